"""Accuracy of a model on labelled scans, as README.md and the model cards state it.

    python benchmarks/accuracy.py DATA OUT [--model NAME] [--structures aseg]

DATA holds sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids) in one folder.
Writes OUT/scores.tsv and OUT/groups.tsv (Dice of 14 groups: left and right and all ventricles
merged, as in brainchop's 50-class network) and prints Markdown tables. With --structures aseg all
labels of an aseg are written and scored, too: OUT/scores_aseg.tsv.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from hetseg_bids.cli import evaluate, run
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.images import read_labels
from hetseg_bids.structures.aseg import ASEG, STRUCTURES, WHOLE_ASEG


def main() -> int:
    """Run hetseg over DATA and score it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="label-flip")
    parser.add_argument("--structures", choices=("paper", "aseg"), default="paper")
    args = parser.parse_args()
    bids = write_dataset(scans_of(args.data), args.out / "bids")
    results = args.out / "derivatives"
    options = ["--model", args.model, "--structures", args.structures]
    code = run.main([str(bids), str(results), "participant", *options])
    if code:
        return code
    kinds = {"paper": args.out / "scores.tsv", "aseg": args.out / "scores_aseg.tsv"}
    for kind in dict.fromkeys(("paper", args.structures)):
        options = ["--structures", kind, "--out", str(kinds[kind])]
        code = evaluate.main([str(args.data), str(results), *options])
        if code:
            return code
        print(_markdown(pd.read_csv(kinds[kind], sep="\t", na_values="n/a")))
    groups = pd.concat([score_groups(scan, results) for scan in scans_of(args.data)])
    write_table(groups, args.out / "groups.tsv")
    print(_groups_markdown(groups))
    return 0


def scans_of(data: Path) -> list[Path]:
    """The scans of a folder; ends the program where there is none."""
    scans = sorted(data.glob("sub-*_T1w.nii.gz"))
    if not scans:
        sys.exit(f"{data}: no sub-*_T1w.nii.gz")
    return scans


def read_reference(t1w: Path) -> npt.NDArray[np.uint8]:
    """The labels beside a scan, reduced to the structures."""
    return ASEG.collapse(read_labels(t1w.with_name(t1w.name.replace("_T1w", "_dseg")))[0])


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


def score_groups(t1w: Path, results: Path) -> pd.DataFrame:
    """Dice of one scan with the sides and the ventricles merged."""
    participant = t1w.name.split("_")[0]
    dseg = results / participant / "anat" / f"{participant}_seg-hetseg_dseg.nii.gz"
    found = ASEG.collapse(read_labels(dseg)[0])
    truth = read_reference(t1w)
    members: dict[str, list[int]] = {}
    for s in STRUCTURES:
        name = "ventricles" if s.bare_name.endswith("ventricle") else s.bare_name
        members.setdefault(name, []).append(s.label)
    scores = {k: dice(np.isin(found, v), np.isin(truth, v)) for k, v in members.items()}
    return pd.DataFrame(
        {"participant": participant, "group": scores.keys(), "dice": scores.values()}
    )


def _groups_markdown(groups: pd.DataFrame) -> str:
    table = groups.pivot(index="group", columns="participant", values="dice")
    lines = ["", f"| {len(table)} groups | " + " | ".join(table.columns) + " |"]
    lines.append("|---|" + "---|" * len(table.columns))
    lines.append("| mean Dice | " + " | ".join(f"{v:.3f}" for v in table.mean()) + " |")
    return "\n".join(lines)


def _markdown(scores: pd.DataFrame) -> str:
    table = scores.pivot(index="name", columns="participant", values="dice")
    known = (*STRUCTURES, *WHOLE_ASEG.structures)
    order = list(dict.fromkeys(s.name for s in known if s.name in table.index))
    table = table.loc[order]
    names = list(table.columns)
    lines = [
        f"Dice, {len(names)} scans; {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}",
        "",
        "| structure | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for name, row in table.iterrows():
        lines.append(f"| {name} | " + " | ".join(f"{v:.3f}" for v in row) + " |")
    lines.append("| **mean** | " + " | ".join(f"**{v:.3f}**" for v in table.mean()) + " |")
    hd = scores.groupby("participant")["hd95_mm"].mean()
    lines.append("| mean HD95, mm | " + " | ".join(f"{hd[n]:.2f}" for n in names) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
