"""Spoil labelled scans and see how far Dice falls, and whether the numbers without truth say so.

    python benchmarks/robustness.py DATA OUT [--model NAME] [--only NAME ...]

DATA holds sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids) in one folder. Runs hetseg
on every scan and on every degraded copy (`degradations`), and writes OUT/robustness.tsv (one row
per copy: Dice against the reference and against the clean result, expected Dice, verdict),
OUT/structures.tsv (one row per structure and copy) and OUT/robustness.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from accuracy import scans_of, write_dataset
from degradations import DEGRADATIONS, Scan

from hetseg_bids.cli import run
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.files import read_json
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.outputs.derivatives import save_image
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.quality.verdict import judge
from hetseg_bids.structures.aseg import ASEG, STRUCTURES
from hetseg_bids.structures.label_sets import bare_name

CLEAN = "clean"
_MOVED = "turned|cropped"  # copies whose head lies otherwise, or is not all there


def main() -> int:
    """Run, score and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="label-flip")
    parser.add_argument("--only", nargs="+", choices=DEGRADATIONS, default=tuple(DEGRADATIONS))
    args = parser.parse_args()
    scans = scans_of(args.data)
    segment(args.out / CLEAN, scans, args.model)
    copies = dict(spoil(scans, args.out, args.only))
    segment(args.out / "degraded", sorted(copies), args.model)
    cases = [(scan, CLEAN, scan) for scan in scans]
    cases += [(source, how, copy) for copy, (source, how) in copies.items()]
    rows = pd.concat([score(args.out, *case) for case in cases])
    write_table(rows, args.out / "structures.tsv")
    table = summarise(rows)
    write_table(table, args.out / "robustness.tsv")
    text = markdown(table, correlations(rows), offsets(rows))
    (args.out / "robustness.md").write_text(text, encoding="utf-8")
    return 0


def segment(folder: Path, scans: list[Path], model: str) -> None:
    """One participant run over a folder of scans; a scan that is refused is part of the result."""
    bids = write_dataset(scans, folder / "bids")
    run.main([str(bids), str(folder / "derivatives"), "participant", "--model", model])


def spoil(
    scans: list[Path], out: Path, names: tuple[str, ...]
) -> Iterator[tuple[Path, tuple[Path, str]]]:
    """Write the copies with both their label images; yields each with its source and its name."""
    for path in scans:
        participant = path.name.split("_")[0]
        scan = Scan.read(path, beside(path, "dseg"), result_of(out / CLEAN, participant, "dseg"))
        for name in names:
            copy = f"{participant}{name}"
            degraded = DEGRADATIONS[name](scan)
            target = out / "copies" / f"{copy}_T1w.nii.gz"
            grid = Grid(degraded.image.shape, degraded.affine)
            save_image(target, degraded.image, grid, intent="none")
            for kind, labels in zip(("dseg", "clean"), degraded.labels, strict=True):
                save_image(beside(target, kind), labels, grid, intent="label")
            yield target, (path, name)


def beside(t1w: Path, kind: str) -> Path:
    """A label image beside a scan."""
    return t1w.with_name(t1w.name.replace("_T1w", f"_{kind}"))


def result_of(folder: Path, participant: str, kind: str) -> Path:
    """A file that hetseg wrote for a participant."""
    suffix = "tsv" if kind == "morph" else "nii.gz"
    name = f"{participant}_seg-hetseg_{kind}.{suffix}"
    return folder / "derivatives" / participant / "anat" / name


def score(out: Path, source: Path, how: str, copy: Path) -> pd.DataFrame:
    """One row per structure of one copy; a single row where hetseg refused the scan."""
    participant = copy.name.split("_")[0]
    folder = out / (CLEAN if how == CLEAN else "degraded")
    where = {"scan": source.name.split("_")[0], "copy": how}
    dseg = result_of(folder, participant, "dseg")
    if not dseg.exists():
        return pd.DataFrame([{**where, "verdict": "refused"}])
    table = pd.read_csv(result_of(folder, participant, "morph"), sep="\t", na_values="n/a")
    table = table[table["name"].isin(ASEG.names)]  # without sums and intracranial volume
    record = read_json(dseg.with_name(dseg.name.replace(".nii.gz", ".json")))
    verdict = judge(table, record["HetsegWarnings"], ImageQuality.of_record(record))
    labels = read_labels(dseg)[0]
    truth = ASEG.collapse(read_labels(beside(copy, "dseg"))[0])
    clean = labels if how == CLEAN else read_labels(beside(copy, "clean"))[0]
    expected = table.set_index("name")["expected_dice"]
    rows = [
        {
            "name": structure.name,
            "dice": dice(labels == structure.label, truth == structure.label),
            "dice_clean": dice(labels == structure.label, clean == structure.label),
            "expected_dice": expected[structure.name],
        }
        for structure in STRUCTURES
        if (truth == structure.label).any()
    ]
    return pd.DataFrame(rows).assign(
        **where, verdict=verdict.level, reasons="; ".join(verdict.reasons)
    )


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per copy: means over the structures, and the verdict."""
    groups = rows.groupby(["scan", "copy"], sort=False)
    means = groups[["dice", "dice_clean", "expected_dice"]].mean()
    return means.join(groups[["verdict", "reasons"]].first()).reset_index()


def correlations(rows: pd.DataFrame) -> dict[str, float]:
    """Pearson r of expected and true Dice."""
    full = rows.dropna(subset=["dice", "expected_dice"])
    passed = full[full["verdict"] == "pass"]
    means = full.groupby(["scan", "copy"])[["dice", "expected_dice"]].mean()
    in_place = full[~full["copy"].str.contains(_MOVED)]
    return {
        f"all {len(full)} structures of all copies": _r(full),
        f"the {len(in_place)} structures of the copies that aren't turned or cropped": _r(in_place),
        f"the {len(passed)} structures of the copies that pass": _r(passed),
        f"means of the {len(means)} copies": _r(means),
        "clean scans only": _r(full[full["copy"] == CLEAN]),
    }


def offsets(rows: pd.DataFrame) -> pd.Series:
    """Expected minus true Dice by structure, mean of sides and copies; turned, cropped left out."""
    rows = rows[~rows["copy"].str.contains(_MOVED)].dropna(subset=["name"])
    either = rows["name"].map(bare_name)
    return (rows["expected_dice"] - rows["dice"]).groupby(either).mean().sort_values()


def _r(rows: pd.DataFrame) -> float:
    return float(rows["dice"].corr(rows["expected_dice"]))


def markdown(table: pd.DataFrame, r: dict[str, float], offset: pd.Series) -> str:
    """The tables in Markdown."""
    lines = ["| scan | copy | Dice | against clean | expected Dice | verdict |", "|" + "---|" * 6]
    for row in table.itertuples():
        numbers = " | ".join(f"{v:.3f}" for v in (row.dice, row.dice_clean, row.expected_dice))
        lines.append(f"| {row.scan} | {row.copy} | {numbers} | {row.verdict} |")
    lines += ["", "Pearson r of expected and true Dice:", ""]
    lines += [f"- {name}: {value:.2f}" for name, value in r.items()]
    lines += ["", "Expected minus true Dice by structure, without turned and cropped copies:", ""]
    lines += [f"- {name}: {value:+.2f}" for name, value in offset.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
