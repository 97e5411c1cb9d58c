"""What a small network learns in the same time from labels, from a trained network, and from both.

    python benchmarks/distillation.py MAPS DATA OUT [--teacher MODEL] [--minutes 15] [--only NAME]

MAPS holds the label maps, DATA sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids). Trains
`--recipe compact` on synthetic scans for as many minutes of one core each time, compilation and
teacher included, and scores it on DATA. Writes OUT/distillation.tsv (one row per way and scan) and
OUT/distillation.md. What exists is not made again. For a machine on which a core is free.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import pandas as pd
from ablation import score
from watched import watched

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.files import read_json, write_json
from hetseg_bids.network.devices import set_threads

_TEACHER = "TEACHER"
WAYS: dict[str, list[str]] = {
    "labels": [],
    "teacher": ["--teacher", _TEACHER, "--teaching-share", "1"],
    "teacher and labels": ["--teacher", _TEACHER, "--teaching-share", "0.5"],
    "labels, coarse layers of the teacher": ["--init", _TEACHER],
    "teacher and labels, coarse layers of the teacher": [
        *("--init", _TEACHER, "--teacher", _TEACHER, "--teaching-share", "0.5")
    ],
}


def main() -> None:
    """Train, score and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--teacher", default="label-flip")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=tuple(WAYS))
    args = parser.parse_args()
    set_threads(1)
    rows = []
    for name in args.only:
        facts = train(name, args)
        scores = score(name, str(folder_of(name, args) / "model"), args)
        for scan, dice in scores.groupby("scan")["dice"].mean().items():
            rows.append({"way": name, **facts, "scan": scan, "dice": dice})
        table = pd.DataFrame(rows)
        write_table(table, args.out / "distillation.tsv")
    text = markdown(table)
    (args.out / "distillation.md").write_text(text, encoding="utf-8")
    print(text)


def folder_of(name: str, args: argparse.Namespace) -> Path:
    """Where a run is kept."""
    out: Path = args.out
    return out / name.replace(",", "").replace(" ", "-")


def train(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Train for the common time; the stacks seen, and the CPU minutes."""
    folder = folder_of(name, args)
    kept = folder / "facts.json"
    if not kept.exists():
        shutil.rmtree(folder, ignore_errors=True)  # all of a run's time counts
        options = [args.teacher if option == _TEACHER else option for option in WAYS[name]]
        command = [sys.executable, "-m", "hetseg_bids.cli.train", str(folder)]
        command += ["--label-maps", str(args.maps), "--recipe", "compact", *options]
        command += ["--minutes", str(args.minutes), "--threads", "1", "--workers", "0", "--compile"]
        used = watched(command)
        stacks = read_json(folder / "model" / "plan.json")["provenance"]["samples_seen"]
        write_json(kept, {"stacks": stacks, "cpu_min": used.cpu_seconds / 60})
    facts: dict[str, float] = read_json(kept)
    return facts


def markdown(table: pd.DataFrame) -> str:
    """A row per way, a column per scan."""
    scans = sorted(table["scan"].unique())
    lines = [
        "| learned from | stacks | CPU min | " + " | ".join([*scans, "mean"]) + " |",
        "|" + "---|" * (4 + len(scans)),
    ]
    for name, rows in table.groupby("way", sort=False):
        dice = rows.set_index("scan")["dice"]
        cells = [f"{dice[scan]:.3f}" for scan in scans] + [f"{dice.mean():.3f}"]
        first = rows.iloc[0]
        cells = [f"{first['stacks']:,.0f}", f"{first['cpu_min']:.1f}", *cells]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
