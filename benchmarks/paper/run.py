"""Train, predict and score the grid of the paper's systems.

    python benchmarks/paper/run.py WORK {scans,one,noise} [--seed N] [--samples N] [--jobs N]
        [--start MODEL] [--levels low medium high] [--only plain label-flip]

WORK is what prepare.py and noise.py filled.  The systems of an experiment and seed share one
start, a plain network trained for --start-samples (the paper, too, begins its heteroscedastic
systems with plain restarts); from there each is trained for --samples with its own loss, on the
same stacks in the same order, and segments the validation scans.  With --start they begin at
a finished model instead, whose width the recipe must have.  What exists is not made
again, so a stopped grid goes on.  Each job has one thread: on a CPU that is the most work done
in the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from noise import LEVELS

START = "start"
VARIANTS = {
    "plain": ["--system", "plain"],
    "predictive-variance": ["--system", "predictive-variance"],
    "label-flip": ["--system", "label-flip"],
    "label-flip-rejection": ["--system", "label-flip", "--reject-sporadic"],
}
ONE_SHOT = ("plain", "label-flip")
_VALIDATIONS = 8  # a run
_START_SEED = 1000  # added to the seed: the shared start sees other stacks than what follows


@dataclass(frozen=True)
class Run:
    """One network of the grid.

    Attributes
    ----------
    experiment : str
        ``scans`` (n = 9), ``one`` (n = 1) or ``noise/LEVEL``.
    variant : str
        Key of `VARIANTS`.
    seed : int
    """

    experiment: str
    variant: str
    seed: int

    def folder(self, root: Path) -> Path:
        """Where it keeps its files below `root`."""
        return root / self.experiment / self.variant / f"seed-{self.seed}"

    def data(self, work: Path) -> tuple[Path, Path]:
        """Training and validation scans."""
        if self.experiment.startswith("noise"):
            return work / self.experiment / "train", work / "noise" / "validation"
        part = "one" if self.experiment == "one" else "train"
        return work / "scans" / part, work / "scans" / "validation"


def main() -> int:
    """Carry out one experiment; returns the number of failed runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("experiment", choices=("scans", "one", "noise"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=2500)
    parser.add_argument("--start-samples", type=int, default=5000)
    parser.add_argument("--start", metavar="MODEL")
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=tuple(LEVELS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=tuple(VARIANTS))
    args = parser.parse_args()
    runs = grid(args)
    starts = list(dict.fromkeys(Run(run.experiment, START, run.seed) for run in runs))
    if args.start:
        starts = []
    with ThreadPoolExecutor(args.jobs) as pool:
        codes = list(pool.map(lambda run: train(run, args), starts))
        codes += pool.map(lambda run: train(run, args) or predict(run, args), runs)
    return sum(code != 0 for code in codes)


def grid(args: argparse.Namespace) -> list[Run]:
    """The runs of an experiment that come after the start."""
    if args.experiment == "noise":
        names = [f"noise/{level}" for level in args.levels]
    else:
        names = [args.experiment]
    variants = [v for v in args.only if args.experiment != "one" or v in ONE_SHOT]
    return [Run(name, variant, args.seed) for name in names for variant in variants]


def train(run: Run, args: argparse.Namespace) -> int:
    """Call hetseg-train unless its model is there; returns the exit code."""
    folder = run.folder(args.work / "runs")
    if (folder / "model" / "plan.json").exists():
        return 0
    scans, validation = run.data(args.work)
    start = Run(run.experiment, START, run.seed)
    if run == start:
        samples, seed, own = args.start_samples, run.seed + _START_SEED, ["--system", "plain"]
    else:
        model = args.start or start.folder(args.work / "runs") / "model"
        samples, seed, own = args.samples, run.seed, [*VARIANTS[run.variant], "--init", str(model)]
    command = ["-m", "hetseg_bids.cli.train", str(folder), *own, "--scans", str(scans)]
    command += ["--validate", str(validation), "--validate-every", str(samples // _VALIDATIONS)]
    command += ["--recipe", args.recipe, "--samples", str(samples), "--seed", str(seed)]
    command += ["--workers", "0", "--threads", "1", "--compile", "--name", run.variant]
    return call(command, folder / "log.txt")


def predict(run: Run, args: argparse.Namespace) -> int:
    """Segment the validation scans; returns the exit code."""
    model = run.folder(args.work / "runs") / "model"
    results = run.folder(args.work / "results")
    command = [str(Path(__file__).with_name("predict.py")), str(model)]
    command += [str(run.data(args.work)[1]), str(results)]
    if run.experiment.startswith("noise"):
        command += ["--noise", run.experiment.removeprefix("noise/")]
    return call(command, results / "log.txt")


def call(arguments: list[str], log: Path) -> int:
    """Run Python with one thread, its output appended to a log; returns the exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    print(f"{log.parent}: {'failed' if done.returncode else 'done'}", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
