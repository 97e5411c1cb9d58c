"""Tables and figures of the finished runs.

    python benchmarks/paper/collect.py WORK RESULTS

Calls hetseg-evaluate for every experiment of run.py; for the known-noise experiment also
writes calibration.tsv, reliability.png and .svg, and rejection.tsv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from noise import LEVELS
from rejected import judge_masks
from run import START, VARIANTS, Run

from hetseg_bids.cli import evaluate
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.figures import save_figure

REJECTION = "label-flip-rejection"


def main() -> None:
    """Collect what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    noise = [f"noise/{level}" for level in LEVELS]
    for experiment in ("scans", "one", *noise):
        if finished(args.work, experiment):
            score(args.work, experiment, args.results / experiment)
    done = [name for name in noise if finished(args.work, name)]
    if done:
        counts = pd.concat([reliability_counts(args.work, name) for name in done])
        write_table(calibration(counts), args.results / "noise" / "calibration.tsv")
        save_figure(reliability_diagram(counts), args.results / "noise" / "reliability")
        masks = [judge_masks(args.work, *found) for found in rejecting(args.work, done)]
        if masks:
            write_table(pd.concat(masks), args.results / "noise" / "rejection.tsv")


def finished(work: Path, experiment: str) -> dict[str, list[Path]]:
    """Result folders of each variant, a seed each; a seed counts when it segmented all."""
    found: dict[str, list[Path]] = {}
    expected = len(list(validation_scans(work, experiment).glob("sub-*")))
    for variant in VARIANTS:
        for folder in sorted((work / "results" / experiment / variant).glob("seed-*")):
            if len(list(folder.rglob("*_dseg.nii.gz"))) == expected:
                found.setdefault(variant, []).append(folder)
    return found


def score(work: Path, experiment: str, out: Path) -> None:
    """Table 1, tests and learning curves of one experiment."""
    references = validation_scans(work, experiment)
    words, curves = [], []
    for variant, folders in finished(work, experiment).items():
        words += [f"{variant}={folder}" for folder in folders]
        curves += [f"{variant}={run_of(work, folder)}" for folder in folders]
    starts = sorted((work / "runs" / experiment / START).glob("seed-*"))
    curves += [f"{START}={folder}" for folder in starts]
    code = evaluate.main([str(references), *words, "--report", str(out), "--curves", *curves])
    if code:
        raise SystemExit(code)


def validation_scans(work: Path, experiment: str) -> Path:
    """The same for every variant and seed."""
    return Run(experiment, START, 0).data(work)[1]


def run_of(work: Path, result: Path) -> Path:
    """The training folder of a result folder."""
    return work / "runs" / result.relative_to(work / "results")


def rejecting(work: Path, experiments: list[str]) -> list[tuple[str, Path]]:
    """Runs that left masks of rejected voxels, with their experiment."""
    return [
        (name, run_of(work, folder))
        for name in experiments
        for folder in finished(work, name).get(REJECTION, [])
    ]


def reliability_counts(work: Path, experiment: str) -> pd.DataFrame:
    """Bins of every variant, summed over scans, structures and seeds."""
    tables = []
    for variant, folders in finished(work, experiment).items():
        rows = pd.concat([pd.read_csv(folder / "reliability.tsv", sep="\t") for folder in folders])
        sums = rows.groupby(["region", "bin"])[["voxels", "forecast_sum", "rate_sum"]].sum()
        level = experiment.removeprefix("noise/")
        tables.append(sums.reset_index().assign(level=level, system=variant))
    return pd.concat(tables)


def calibration(counts: pd.DataFrame) -> pd.DataFrame:
    """Expected calibration error: mean |forecast - true rate| over bins, by voxels."""
    gaps = (counts["forecast_sum"] - counts["rate_sum"]).abs()
    keys = [counts[name] for name in ("level", "system", "region")]
    groups = counts.assign(gap=gaps).groupby(keys, sort=False)
    sums = groups[["voxels", "gap", "forecast_sum", "rate_sum"]].sum()
    table = pd.DataFrame(
        {
            "voxels": sums["voxels"],
            "mean_forecast": sums["forecast_sum"] / sums["voxels"],
            "true_rate": sums["rate_sum"] / sums["voxels"],
            "ece": sums["gap"] / sums["voxels"],
        }
    )
    return table.reset_index()


def reliability_diagram(counts: pd.DataFrame) -> Figure:
    """True rate against forecast, near the true boundaries; a panel a noise level."""
    levels = list(counts["level"].unique())
    figure = Figure(figsize=(4 * len(levels), 4.2))
    FigureCanvasAgg(figure)
    for place, level in enumerate(levels, start=1):
        axes = figure.add_subplot(1, len(levels), place)
        axes.plot([0, 0.5], [0, 0.5], color="0.6", linewidth=1)
        near = counts[(counts["level"] == level) & (counts["region"] == "band")]
        markers = iter("osD^v")
        for system, rows in near.groupby("system", sort=False):
            rows = rows[rows["voxels"] >= np.maximum(1, 1e-4 * rows["voxels"].sum())]
            axes.plot(
                rows["forecast_sum"] / rows["voxels"],
                rows["rate_sum"] / rows["voxels"],
                marker=next(markers),
                markersize=4,
                label=system,
            )
        axes.set(title=f"{level} noise", xlabel="forecast q", ylabel="true rate of disagreement")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
