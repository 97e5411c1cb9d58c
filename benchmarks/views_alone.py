"""The network's views alone, in two builds or models, in turns: without smoothing, islands, labels.

    python benchmarks/views_alone.py T1W OUT --builds DIR DIR --models NAME NAME [--rounds 3]
        [--threads 2]

Each of --builds is a folder that holds the package `hetseg_bids`, by default this one. This build
prepares the image once; then a process of each build in turn predicts it four times and keeps the
last three. Writes OUT/views_alone.tsv (a row for each prediction) and prints median and range over
the rounds, and of the ratio. For an idle machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.network.devices import keep_freed_memory
from hetseg_bids.network.models import load_model
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.segmentation import inference

_HERE = Path(__file__).resolve().parents[1]
_PREDICTIONS = 3


def main() -> None:
    """Measure, write and print; with --image, be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--builds", type=Path, nargs=2, default=(_HERE, _HERE))
    parser.add_argument("--models", nargs=2, default=("label-flip", "label-flip"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    prepared = prepare_image(args.t1w)
    torch.save((prepared.image, prepared.mask), args.out / "prepared.pt")
    rows = []
    for number in range(args.rounds):
        for which, build, model in zip(("first", "second"), args.builds, args.models, strict=True):
            row = {"round": number, "which": which}
            rows += [{**row, "seconds": s} for s in in_build(build, model, args)]
    table = pd.DataFrame(rows)
    write_table(table.round(3), args.out / "views_alone.tsv")
    found = table.groupby(["round", "which"])["seconds"].median().unstack()
    found["second / first"] = found["second"] / found["first"]
    for name, column in found.items():
        print(f"{name}: {column.median():.3f} ({column.min():.3f}-{column.max():.3f})")


def in_build(build: Path, model: str, args: argparse.Namespace) -> list[float]:
    """Seconds of each prediction, in a process that has the other build."""
    command = [sys.executable, __file__, "child", args.out / "prepared.pt", model, args.threads]
    environment = {**os.environ, "PYTHONPATH": str(build), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, check=True
    )
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def predictions(prepared: Path, name: str, threads: int) -> list[float]:
    """Seconds of the views of each prediction but the first, which gets its memory anew."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    model = load_model(name, torch.device("cpu"))
    image, mask = torch.load(prepared)
    after = inference.to_logits_
    spent = 0.0

    def timed(*args: object, **options: object) -> inference.Logits:
        nonlocal spent
        start = time.perf_counter()
        try:
            return after(*args, **options)
        finally:
            spent += time.perf_counter() - start

    inference.to_logits_ = timed
    seconds = []
    for _ in range(1 + _PREDICTIONS):
        spent, start = 0.0, time.perf_counter()
        logits = inference.predict(model, image, mask)
        seconds.append(time.perf_counter() - start - spent)
        del logits
    return seconds[1:]


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        print(json.dumps(predictions(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
    else:
        main()
