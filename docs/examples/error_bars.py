r"""Volumes with their repeat noise in a statistical model.

    python docs/examples/error_bars.py
    python docs/examples/error_bars.py OUT/group_morph.tsv BIDS/participants.tsv \
        --structure left_hippocampus --predictor age --outcome memory

Regresses a structure's volume on the predictor in three ways, and the outcome on the volume in two;
predictor and outcome are columns of participants.tsv, either may be left out. With --relative the
volumes are scaled to heads of the same size, by the intracranial volume, whose noise counts, too.
Without arguments it makes a cohort whose truth is known.

The standard deviation it uses is ``volume_repeat_sd_mm3``: how much the volume differs from scan to
scan of one person. ``volume_sd_mm3`` is no measurement error: it says how far the volume of a
reference such as FreeSurfer's may lie from hetseg's, and most of that is the same in all scans.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

SLOPE, PER_ML = -25.0, -1.2  # truth of the simulated cohort: mm3 a year, score points a ml
REPEAT, REFERENCE = "volume_repeat_sd_mm3", "volume_sd_mm3"
TOO_LARGE = "none: the standard deviations are larger than all that people differ by"
LEAST_RELIABLE = 0.5  # below it more than half of the observed variance would be noise
_FREESURFER = {
    "3rd_ventricle": "third_ventricle",
    "4th_ventricle": "fourth_ventricle",
    "brain_stem": "brainstem",
    "left_thalamus_proper": "left_thalamus",
    "right_thalamus_proper": "right_thalamus",
    "left_accumbens_area": "left_accumbens",
    "right_accumbens_area": "right_accumbens",
    "left_ventraldc": "left_ventral_dc",
    "right_ventraldc": "right_ventral_dc",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the estimates; 0, or 2 where the tables can't be used."""
    args = parse(arguments)
    if args.morph is None:
        data = simulate(np.random.default_rng(7))
        for line in (*estimates(data), *estimates_with_the_wrong_sd(data)):
            print(line)
        return 0
    try:
        columns = (args.structure, args.predictor, args.outcome)
        data = read(args.morph, args.participants, *columns, relative=args.relative)
        lines = estimates(data)
    except ValueError as error:
        print(f"error_bars.py: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; a usage line and exit code 2 where it is incomplete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("morph", type=Path, nargs="?", help="OUT/group_morph.tsv")
    parser.add_argument("participants", type=Path, nargs="?", help="participants.tsv")
    parser.add_argument("--structure", help="as in column name: left_hippocampus")
    parser.add_argument("--predictor", metavar="COLUMN", help="the volume is regressed on it")
    parser.add_argument("--outcome", metavar="COLUMN", help="it is regressed on the volume")
    parser.add_argument(
        "--relative", action="store_true", help="scale volumes to heads of the same size"
    )
    args = parser.parse_args(arguments)
    if args.morph is None:
        if args.structure or args.predictor or args.outcome:
            parser.error("the options need the two tables")
    elif args.participants is None or args.structure is None:
        parser.error("group_morph.tsv, participants.tsv and --structure go together")
    elif args.predictor is None and args.outcome is None:
        parser.error("give --predictor, --outcome or both")
    return args


def estimates(data: pd.DataFrame) -> list[str]:
    """A line for each estimate; columns x, outcome, volume_mm3 and volume_repeat_sd_mm3."""
    lines = []
    if "x" in data:
        known = data.dropna(subset=["x"])
        x, volume, sd = (known[c].to_numpy(float) for c in ("x", "volume_mm3", REPEAT))
        enough(x, "predictor")
        sure = sd <= np.quantile(sd, 0.9)  # exclusion: the noisiest tenth
        lines += [
            f"volume on predictor, ordinary: {slope(x, volume):.5g}",
            f"volume on predictor, noisiest left out: {slope(x[sure], volume[sure]):.5g}",
            f"volume on predictor, weighted: {weighted_slope(x, volume, sd)}",
        ]
    if "outcome" in data:
        known = data.dropna(subset=["outcome"])
        y, volume, sd = (known[c].to_numpy(float) for c in ("outcome", "volume_mm3", REPEAT))
        enough(volume, "volume")
        naive, share = slope(volume, y), reliability(volume, sd)
        lines += [f"outcome on volume, ordinary: {naive:.5g}", f"reliability: {share:.3f}"]
        lines.append(f"outcome on volume, error in variables: {corrected(naive, share)}")
    return lines


def estimates_with_the_wrong_sd(data: pd.DataFrame) -> list[str]:
    """What becomes of the slope where the distance to a reference is taken for noise."""
    volume, y = data["volume_mm3"].to_numpy(float), data["outcome"].to_numpy(float)
    share = reliability(volume, data[REFERENCE].to_numpy(float))
    return [
        f"WRONG, with {REFERENCE}: reliability: {share:.3f}",
        f"WRONG, with {REFERENCE}: error in variables: {corrected(slope(volume, y), share)}",
    ]


def corrected(naive: float, share: float) -> str:
    """A slope divided by the reliability, and a warning where that can't be right."""
    if share <= 0:
        return TOO_LARGE
    value = f"{naive / share:.5g}"
    if share < LEAST_RELIABLE:
        value += f" (don't use it: with a reliability below {LEAST_RELIABLE} most of what people "
        value += "differ by would be noise; is it the right standard deviation?)"
    return value


def slope(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Least squares with an intercept."""
    weight = np.ones_like(x) if weight is None else weight
    x = x - np.average(x, weights=weight)
    return float((weight * x * y).sum() / (weight * x * x).sum())


def weighted_slope(x: np.ndarray, y: np.ndarray, sd: np.ndarray) -> str:
    """Weights 1 / (variance between people + the scan's own variance), in two rounds.

    1 / sd^2 alone would forget that people differ: a tiny error bar makes nobody two people.
    """
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    between = residual.var(ddof=2) - (sd**2).mean()
    return TOO_LARGE if between <= 0 else f"{slope(x, y, 1 / (between + sd**2)):.5g}"


def reliability(volume: np.ndarray, sd: np.ndarray) -> float:
    """Share of the observed variance that isn't measurement error; negative for a wrong sd.

    Error in a predictor pulls its slope to zero by this factor (Fuller, Measurement Error Models,
    1987, section 1.1), so that dividing by it undoes the pull.
    """
    observed = volume.var(ddof=1)
    return float((observed - (sd**2).mean()) / observed)


def enough(values: np.ndarray, what: str) -> None:
    """Refuse what no line can be fitted to."""
    if len(values) < 3 or np.ptp(values) == 0:
        raise ValueError(f"{len(values)} people with a {what}: 3 that differ are the least")


def simulate(rng: np.random.Generator, n: int = 2000) -> pd.DataFrame:
    """A cohort with both kinds of error, larger than hetseg's so that they show.

    All scans share their distance to a reference. Each has repeat noise of its own: some people
    hold still, and some do not.
    """
    age = rng.uniform(20, 80, n)
    true = 8000 + SLOPE * (age - 50) + rng.normal(0, 400, n)
    repeat = rng.choice([100.0, 300.0, 1200.0], n, p=[0.6, 0.3, 0.1])
    reference = rng.normal(700, 30, n)  # what a flip map says of each scan
    distance = rng.normal(0, 700)  # what it is: the same for all
    measured = true + distance + rng.normal(0, 1, n) * repeat
    outcome = 100 + PER_ML * true / 1000 + rng.normal(0, 1, n)
    columns = {"x": age, "outcome": outcome, "volume_mm3": measured}
    return pd.DataFrame(columns | {REPEAT: repeat, REFERENCE: reference})


def read(
    morph: Path,
    participants: Path,
    structure: str,
    predictor: str | None,
    outcome: str | None,
    *,
    relative: bool = False,
) -> pd.DataFrame:
    """Join group_morph.tsv with participants.tsv, a row for each person.

    Several scans of a person count as one: their mean, with the variance of a mean.

    Raises
    ------
    ValueError
        In one line: a column, structure or number that isn't there.
    """
    scan = ["scan"] if relative else []
    volumes = table(morph, ["participant_id", *scan, "name", "volume_mm3", REPEAT])
    wanted = {"x": predictor, "outcome": outcome}
    wanted = {name: column for name, column in wanted.items() if column}
    people = table(participants, ["participant_id", *wanted.values()])
    if people["participant_id"].duplicated().any():
        raise ValueError(f"{participants}: has several rows for a participant_id")
    rows = volumes[volumes["name"].map(plain) == plain(structure)]
    if rows.empty:
        known = ", ".join(map(str, volumes["name"].unique()))
        raise ValueError(f"{morph}: no structure {structure!r}; it has {known}")
    rows = rows.dropna(subset=["volume_mm3", REPEAT])
    if relative:
        rows = of_equal_heads(rows, volumes, morph)
    scans = rows.assign(variance=numbers(rows, REPEAT, morph) ** 2).groupby("participant_id")
    each = pd.DataFrame(
        {
            "volume_mm3": scans["volume_mm3"].mean(),
            REPEAT: np.sqrt(scans["variance"].sum()) / scans.size(),
        }
    )
    people = people.set_index("participant_id")
    values = {name: numbers(people, column, participants) for name, column in wanted.items()}
    joined = each.join(pd.DataFrame(values), how="inner")
    if joined.empty:
        raise ValueError(f"{morph} and {participants} share no participant_id")
    return joined


def of_equal_heads(rows: pd.DataFrame, volumes: pd.DataFrame, morph: Path) -> pd.DataFrame:
    """Volumes times mean / own intracranial volume, with the noise of both.

    Raises
    ------
    ValueError
        If no scan has an intracranial volume.
    """
    heads = volumes[volumes["name"] == "intracranial"].dropna(subset=["volume_mm3", REPEAT])
    both = rows.join(heads.set_index("scan")[["volume_mm3", REPEAT]], on="scan", rsuffix="_head")
    both = both.dropna(subset=["volume_mm3_head"])
    if both.empty:
        raise ValueError(f"{morph}: no scan has an intracranial volume; stripped images don't")
    size, volume = both["volume_mm3_head"], both["volume_mm3"]
    share = np.hypot(both[REPEAT] / volume, both[f"{REPEAT}_head"] / size)
    scaled = volume * size.mean() / size
    return both.assign(volume_mm3=scaled, **{REPEAT: scaled * share})


def table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a TSV file that must have some columns."""
    try:
        read = pd.read_csv(path, sep="\t", na_values="n/a", dtype={"participant_id": str})
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    lacking = [column for column in columns if column not in read]
    if lacking:
        remedy = ""
        if REPEAT in lacking:
            remedy = "; it must be hetseg's group_morph.tsv: run the group level again"
        raise ValueError(
            f"{path}: no column {', '.join(lacking)}; it has {', '.join(map(str, read))}{remedy}"
        )
    return read


def numbers(rows: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """A column as numbers, without a number where it is n/a."""
    try:
        return pd.to_numeric(rows[column])
    except ValueError as error:
        raise ValueError(f"{path}: column {column} must hold numbers ({error})") from None


def plain(name: object) -> str:
    """A structure as hetseg spells it, from FreeSurfer's spelling: Left-Hippocampus."""
    simple = str(name).lower().replace("-", "_")
    return _FREESURFER.get(simple, simple)


if __name__ == "__main__":
    sys.exit(main())
