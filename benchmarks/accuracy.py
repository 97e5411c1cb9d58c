"""Accuracy of a model on labelled scans, as README.md and the model cards state it.

    python benchmarks/accuracy.py DATA OUT [--model NAME]

DATA holds sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids) in one folder.
Writes OUT/scores.tsv and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import pandas as pd
import torch

from hetseg_bids.cli import evaluate, run
from hetseg_bids.structures import STRUCTURES


def main() -> int:
    """Run hetseg over DATA and score it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="label-flip")
    args = parser.parse_args()
    bids = write_dataset(scans_of(args.data), args.out / "bids")
    results = args.out / "derivatives"
    code = run.main([str(bids), str(results), "participant", "--model", args.model])
    if code:
        return code
    scores = args.out / "scores.tsv"
    code = evaluate.main([str(args.data), str(results), "--out", str(scores)])
    if not code:
        print(_markdown(pd.read_csv(scores, sep="\t", na_values="n/a")))
    return code


def scans_of(data: Path) -> list[Path]:
    """The scans of a folder; ends the program where there is none."""
    scans = sorted(data.glob("sub-*_T1w.nii.gz"))
    if not scans:
        sys.exit(f"{data}: no sub-*_T1w.nii.gz")
    return scans


def write_dataset(scans: list[Path], bids: Path) -> Path:
    """A BIDS dataset of links to scans."""
    for scan in scans:
        subject = scan.name.split("_")[0]
        link(scan, bids / subject / "anat" / scan.name)
    description = {"Name": "accuracy", "BIDSVersion": "1.10.0"}
    (bids / "dataset_description.json").write_text(json.dumps(description))
    return bids


def link(scan: Path, path: Path) -> Path:
    """Make `path` a link to a scan, in place of an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(scan.resolve())
    return path


def _markdown(scores: pd.DataFrame) -> str:
    dice = scores.pivot(index="name", columns="participant", values="dice")
    order = [s.name for s in STRUCTURES if s.name in dice.index]
    dice = dice.loc[order]
    names = list(dice.columns)
    lines = [
        f"Dice, {len(names)} scans; {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}",
        "",
        "| structure | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for name, row in dice.iterrows():
        lines.append(f"| {name} | " + " | ".join(f"{v:.3f}" for v in row) + " |")
    lines.append("| **mean** | " + " | ".join(f"**{v:.3f}**" for v in dice.mean()) + " |")
    hd = scores.groupby("participant")["hd95_mm"].mean()
    lines.append("| mean HD95, mm | " + " | ".join(f"{hd[n]:.2f}" for n in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
