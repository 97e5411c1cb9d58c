"""How often good scans stand out of their cohort, and how often degraded ones do.

    python benchmarks/outliers.py OUT [--scans N] [--people N ...] [--head-error SD] [--group ...]

Draws cohorts of 8 to 10,000 people with the measures that the group level compares (28 volumes,
28 values of expected Dice and their mean, 12 asymmetries, 4 numbers of the image):

- ``independent``: all measures normal and independent;
- ``correlated``: volumes that share age and, between sides (r = 0.9), most of the rest,
  asymmetries that follow from them, expected Dice and image that share a scan's quality, with
  the longer tail on the bad side; spreads between people of about 9 % (volumes) and 0.012 (Dice);
- ``heavy tails``: the same with t (5 degrees of freedom) for normal.

In ``correlated`` cohorts one scan at a time is degraded in a random place: the volume of a left
structure 30 % off, 15 % moved from one side to the other, a midline volume halved, an expected Dice
lower by 0.1, all of them by 0.04. Writes OUT/outliers.tsv and prints it, with the shares for the
fixed limit (|z| > 3.5) that hetseg had before. With --head-error (standard deviation of the
logarithm), ``correlated`` cohorts alone are drawn, and volumes are divided by head sizes with that
error. With --group, a group_qc.tsv of a real cohort each, prints how many of its scans are above 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.quality.outliers import Measure, find_outliers
from hetseg_bids.quality.robust import robust_sds
from hetseg_bids.runs.group import cohort_measures
from hetseg_bids.structures.aseg import STRUCTURES

Array = npt.NDArray[np.float64]
PEOPLE = (8, 11, 30, 300, 10_000)
FORMER_LIMIT = 3.5
DEGRADED_EACH = 60  # scans of each kind, at least, for each size of cohort
DEGRADED_OF_MOST = 10  # of the largest size, where each takes a comparison of 10,000
SIDED = [i for i, s in enumerate(STRUCTURES) if s.hemisphere == "L"]  # the right one follows
MIDLINE = [i for i, s in enumerate(STRUCTURES) if s.hemisphere is None]
_IMAGE = {"noise": "high", "edge": "low", "ripple": "high", "contrast": "low"}
# standard deviations between people, and of one side beside the other as a share of them
_VOLUME_SD, _DICE_SD, _SIDE_SHARE = 0.09, 0.012, 0.3
_SHARED = np.sqrt(0.4)  # of expected Dice and image with the scan's quality
_SKEW = 0.25


def main() -> None:
    """Simulate, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scans", type=int, default=5_000, help="of each row, at least")
    parser.add_argument("--group", type=Path, nargs="*", default=[])
    parser.add_argument("--people", type=int, nargs="+", default=PEOPLE)
    parser.add_argument(
        "--head-error", type=float, default=0.0, help="of the logarithm of its size"
    )
    args = parser.parse_args()
    cohorts, rows = COHORTS, []
    if args.head_error:
        cohorts = {"correlated": partial(correlated, head_error=args.head_error)}
    for people in args.people:
        for name, draw in cohorts.items():
            degraded = DEGRADED_EACH if people < max(PEOPLE) else DEGRADED_OF_MOST
            rows.append(row_of(people, name, draw, -(-args.scans // people), degraded))
            print(rows[-1], flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(pd.DataFrame(rows), args.out / "outliers.tsv")
    print(pd.DataFrame(rows).to_string(index=False))
    for path in args.group:
        score = pd.read_csv(path, sep="\t")["outlier_score"]
        print(f"{path.parent.name}: {(score > 1).sum()} of {score.count()} scans with a score")


Draw = Callable[[np.random.Generator, int], list[Measure]]


def row_of(people: int, name: str, draw: Draw, cohorts: int, degraded: int) -> dict[str, object]:
    """Shares in % of scans that stand out; of degraded ones in `correlated` cohorts only."""
    rng = np.random.default_rng(people)
    names = [str(i) for i in range(people)]
    good, former, found = [], [], {spoil: [] for spoil in DEGRADED}
    for _ in range(cohorts):
        measures = draw(rng, people)
        good += [o.score > 1 for o in find_outliers(measures, names)]
        former += list(former_score(measures) > FORMER_LIMIT)
        for title, spoil in DEGRADED.items() if name == "correlated" else ():
            for scan in range(min(people, -(-degraded // cohorts))):
                copies = [replace(m, values=m.values.copy()) for m in measures]
                spoil(rng, {m.title: m.values[scan:] for m in copies})
                found[title].append(find_outliers(copies, names)[scan].score > 1)
    row: dict[str, object] = {"people": people, "cohorts": cohorts, "measures": name}
    row |= {"good, former": percent(former), "good": percent(good)}
    return row | {title: percent(hits) if hits else float("nan") for title, hits in found.items()}


def percent(hits: list[bool]) -> float:
    """To one decimal."""
    return round(100 * float(np.mean(hits)), 1)


def former_score(measures: list[Measure]) -> Array:
    """Largest |z| by median and MAD, without all that `find_outliers` adds."""
    values = np.stack([m.values for m in measures], axis=1)
    z = (values - np.median(values, axis=0)) / robust_sds(values)
    signs = {"low": -1, "high": 1}
    sized = [
        np.abs(c) if m.suspicious == "both" else c * signs[m.suspicious]
        for c, m in zip(z.T, measures, strict=True)
    ]
    return np.max(sized, axis=0)


def independent(rng: np.random.Generator, people: int) -> list[Measure]:
    """Normal and independent, with spreads that differ."""
    measures = correlated(rng, people)
    spread = rng.lognormal(0, 0.4, len(measures))
    return [
        Measure(m.title, s * rng.standard_normal(people), m.kind, m.suspicious)
        for m, s in zip(measures, spread, strict=True)
    ]


def correlated(
    rng: np.random.Generator, people: int, freedom: int | None = None, head_error: float = 0.0
) -> list[Measure]:
    """As in real cohorts; `freedom` for tails of t."""

    def noise(columns: int) -> Array:
        size = (people, columns)
        if freedom is None:
            return rng.standard_normal(size)
        return rng.standard_t(freedom, size) / np.sqrt(freedom / (freedom - 2))

    count = len(STRUCTURES)
    load = rng.uniform(-0.5, 0.5, count)
    spread = _VOLUME_SD * rng.lognormal(0, 0.35, count)
    own = noise(count)
    for left in SIDED:  # what a pair shares
        for values in (load, spread, own.T):
            values[left + 1] = values[left]
    side = _SIDE_SHARE * noise(count)
    side[:, MIDLINE] = 0
    log_volume = spread * (load * noise(1) + np.sqrt(1 - load**2) * own + side)
    quality = _SHARED * noise(1)
    spoil = np.sqrt(1 - _SHARED**2)
    bad = quality + spoil * noise(count)
    dice = 0.85 - _DICE_SD * rng.lognormal(0, 0.4, count) * np.expm1(_SKEW * bad) / _SKEW
    volume = 1000 * np.exp(log_volume)
    uneven = np.full(volume.shape, np.nan)
    for left in SIDED:
        here, there = volume[:, left], volume[:, left + 1]
        uneven[:, left] = 2 * (here - there) / (here + there)
    image = np.exp(0.2 * (quality + spoil * noise(len(_IMAGE))))
    heads = np.full(people, 1e6)
    if head_error:
        heads *= np.exp(head_error * noise(1)[:, 0])
    measures = cohort_measures(STRUCTURES, volume, heads, dice, uneven)
    return measures + [
        Measure(name, column if end == "high" else 1 / column, name, end)
        for (name, end), column in zip(_IMAGE.items(), image.T, strict=True)
    ]


def heavy(rng: np.random.Generator, people: int) -> list[Measure]:
    """Correlated, with tails of t, 5 degrees of freedom."""
    return correlated(rng, people, 5)


def side_off(rng: np.random.Generator, values: dict[str, Array]) -> None:
    """The volume of a left structure is 30 % too small."""
    structure = STRUCTURES[rng.choice(SIDED)]
    values[f"{structure.title} volume"][0] += np.log(0.7)
    uneven = values[f"{structure.both_sides} asymmetry"]
    ratio = 0.7 * (2 + uneven[0]) / (2 - uneven[0])
    uneven[0] = 2 * (ratio - 1) / (ratio + 1)


def side_to_side(rng: np.random.Generator, values: dict[str, Array]) -> None:
    """A left structure is 15 % too large, the right one 15 % too small."""
    structure = STRUCTURES[rng.choice(SIDED)]
    for side, title in ((1, structure.title), (-1, f"Right{structure.title[4:]}")):
        values[f"{title} volume"][0] += 0.15 * side
    values[f"{structure.both_sides} asymmetry"][0] += 0.3


def midline_off(rng: np.random.Generator, values: dict[str, Array]) -> None:
    """The volume of a midline structure is halved."""
    values[f"{STRUCTURES[rng.choice(MIDLINE)].title} volume"][0] += np.log(0.5)


def dice_low(rng: np.random.Generator, values: dict[str, Array]) -> None:
    """One expected Dice is lower by 0.1."""
    values[f"{STRUCTURES[rng.integers(len(STRUCTURES))].title} expected Dice"][0] -= 0.1
    values["Mean expected Dice"][0] -= 0.1 / len(STRUCTURES)


def dice_all_low(_: np.random.Generator, values: dict[str, Array]) -> None:
    """All are lower by 0.04."""
    for title, column in values.items():
        if title.endswith("xpected Dice"):
            column[0] -= 0.04


COHORTS: dict[str, Draw] = {
    "independent": independent,
    "correlated": correlated,
    "heavy tails": heavy,
}
DEGRADED = {
    "side 30 % off": side_off,
    "15 % to the other side": side_to_side,
    "midline halved": midline_off,
    "a Dice -0.1": dice_low,
    "all Dice -0.04": dice_all_low,
}


if __name__ == "__main__":
    main()
