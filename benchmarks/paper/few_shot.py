"""From the shipped weights to another labelling protocol with 1, 3 and 9 labelled scans.

    python benchmarks/paper/few_shot.py WORK RESULTS [--samples N] [--init MODEL] [--labels TSV]

WORK is what prepare.py filled. Trains `--init` on 1, 3 and 9 of the manually labelled scans,
segments the 6 validation scans with each and with the weights as they are, and writes
RESULTS/scores.tsv and RESULTS/few_shot.md. With --labels (benchmarks/paper/own_labels.tsv) the
network learns those structures instead, which the weights as they are don't know. What exists
is not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from prepare import ONE_SHOT
from run import call

from hetseg_bids.cli import evaluate

SHOTS = (1, 3, 9)
_SHOWN = ("left_thalamus", "left_pallidum", "left_accumbens", "left_amygdala", "brainstem")


def main() -> int:
    """Train, segment, score; returns the exit code of the scoring."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--init", default="label-flip")
    parser.add_argument("--labels", type=Path)
    args = parser.parse_args()
    validation, words = args.work / "scans" / "validation", []
    own = [] if args.labels is None else ["--labels", str(args.labels.resolve())]
    for shots in SHOTS if own else (0, *SHOTS):
        folder = args.work / ("few-shot-own" if own else "few-shot") / str(shots)
        model = args.init if shots == 0 else str(train(folder, shots, args, own))
        script = Path(__file__).with_name("predict.py")
        found = folder / "results"
        call([str(script), model, str(validation), str(found)], folder / "predict.txt")
        words.append(f"{shots}={found}")
    scores = args.results / "scores.tsv"
    code = evaluate.main([str(validation), *words, *own, "--out", str(scores)])
    if not code:
        text = markdown(pd.read_csv(scores, sep="\t", na_values="n/a", dtype={"system": str}))
        (args.results / "few_shot.md").write_text(text, encoding="utf-8")
        print(text)
    return code


def train(folder: Path, shots: int, args: argparse.Namespace, own: list[str]) -> Path:
    """The model folder of a run on so many scans, the first of them that of n = 1."""
    model = folder / "run" / "model"
    if not (model / "plan.json").exists():
        people = sorted(path.name for path in (args.work / "scans" / "train").glob("sub-*"))
        people = [ONE_SHOT, *(name for name in people if name != ONE_SHOT)][:shots]
        for name in people:
            link = folder / "scans" / name / "anat"
            link.mkdir(parents=True, exist_ok=True)
            for path in (args.work / "scans" / "train" / name / "anat").iterdir():
                (link / path.name).unlink(missing_ok=True)
                (link / path.name).symlink_to(path.resolve())
        command = ["-m", "hetseg_bids.cli.train", str(folder / "run"), "--init", args.init]
        command += ["--scans", str(folder / "scans"), "--samples", str(args.samples), *own]
        command += ["--compile", "--threads", "1", "--workers", "0", "--name", f"{shots}-shot"]
        call(command, folder / "train.txt")
    return model


def markdown(scores: pd.DataFrame) -> str:
    """Mean Dice and HD95 by number of scans; some structures by themselves."""
    shown = [name for name in _SHOWN if name in set(scores["name"])] or list(
        dict.fromkeys(scores["name"])
    )
    lines = ["| labelled scans | Dice | HD95, mm | " + " | ".join(shown) + " |"]
    lines.append("|" + "---|" * (3 + len(shown)))
    for shots, rows in scores.groupby("system", sort=False):
        dice = rows.groupby("name")["dice"].mean()
        parts = " | ".join(f"{dice[name]:.2f}" for name in shown)
        means = f"{rows['dice'].mean():.3f} | {rows['hd95_mm'].mean():.2f}"
        lines.append(f"| {shots} | {means} | {parts} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
