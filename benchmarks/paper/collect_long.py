"""Figure 3, Table 1 and tests of the long runs, as far as they have come.

    python benchmarks/paper/collect_long.py OUT RESULTS

OUT is that of long.py. RESULTS/DATA gets figure3 (all structures, and the paper's seven), gap (Dice
of the scans trained on, and of those validated on), scores.tsv, table1 and wilcoxon.tsv at the
largest number of samples that all runs have reached, peak.tsv (best Dice of each run and
structure, and what it is now) and progress.tsv (calibration, rejected voxels, time).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from long import CLEAN_NAME, PROGRESS_NAME, REJECTION, START, TRAINING_NAME, Run

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.figures import ALL, learning_curves, save_figure
from hetseg_bids.evaluation.report import write_report
from hetseg_bids.structures.label_sets import both_sides
from hetseg_bids.training.validation import VALIDATION_NAME

PANELS = (
    ALL,
    "Cerebral cortex",
    "Putamen",
    "Pallidum",
    "Hippocampus",
    "Amygdala",
    "Accumbens",
    "Third ventricle",
)
_ORDER = ("plain", "predictive-variance", "label-flip", REJECTION)
_SMOOTH = 3  # scores, of which the median counts as the best or the last
_ON = {TRAINING_NAME: "on training scans", CLEAN_NAME: "on training scans, clean labels"}

Tables = dict[Run, pd.DataFrame]


def main() -> None:
    """Collect what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    for data in sorted(
        {path.parents[2].name for path in args.out.glob(f"*/*/*/{VALIDATION_NAME}")}
    ):
        collect(args.out, data, args.results / data)


def collect(out: Path, data: str, results: Path) -> None:
    """All tables and figures of one data set."""
    found = read(out, data, VALIDATION_NAME)
    save_figure(learning_curves(by_system(found), PANELS), results / "figure3")
    curves = by_system(found)
    for name, where in _ON.items():
        for system, tables in by_system(read(out, data, name)).items():
            curves[f"{system} {where}"] = tables
    save_figure(learning_curves(curves, PANELS), results / "gap")
    write_report(at_the_same_samples(found), results)
    write_table(peaks(found), results / "peak.tsv")
    progress = read(out, data, PROGRESS_NAME)
    rows = [table.assign(system=run.variant, seed=run.seed) for run, table in progress.items()]
    gathered = pd.concat(rows)
    gathered["gap"] = gathered["training_dice"] - gathered["validation_dice"]
    write_table(gathered.set_index(["system", "seed"]).reset_index(), results / "progress.tsv")


def read(out: Path, data: str, name: str) -> Tables:
    """The tables of a name, by run, in the paper's order of systems."""
    paths = {
        Run.named("/".join(path.parts[-4:-1])): path for path in out.glob(f"{data}/*/*/{name}")
    }
    paths = {run: path for run, path in paths.items() if run.variant != START}
    runs = sorted(paths, key=lambda run: (_ORDER.index(run.variant), run.seed))
    return {run: pd.read_csv(paths[run], sep="\t", na_values="n/a") for run in runs}


def by_system(tables: Tables) -> dict[str, list[pd.DataFrame]]:
    """One list of tables, a seed each, for every system."""
    found: dict[str, list[pd.DataFrame]] = {}
    for run, table in tables.items():
        found.setdefault(run.variant, []).append(table)
    return found


def at_the_same_samples(tables: Tables) -> pd.DataFrame:
    """Scores of all systems when the one that has seen the fewest samples was last scored.

    A seed counts if all its systems have come as far as those of the seed that is ahead.
    """
    seen = pd.Series({(run.seed, run): table["samples"].max() for run, table in tables.items()})
    reached = seen.groupby(level=0).min()
    samples = int(reached.max())
    seeds = reached.index[reached >= samples]
    parts = [
        table[table["samples"] == samples].assign(system=run.variant, seed=run.seed)
        for run, table in tables.items()
        if run.seed in seeds
    ]
    print(f"table 1 and tests: {samples} samples, seeds {', '.join(map(str, seeds))}")
    return pd.concat(parts, ignore_index=True)


def peaks(tables: Tables) -> pd.DataFrame:
    """Best and last Dice of each run and structure, and after how many samples it was best.

    `lost` can't be negative, and noise alone makes it positive: read it beside figure3.
    """
    rows = []
    for run, table in tables.items():
        named = table.assign(name=table["name"].map(both_sides))
        everything = pd.concat((named, named.assign(name=ALL)))
        dice = everything.groupby(["samples", "name"], sort=False)["dice"].mean().unstack("name")
        dice = dice.dropna(axis=1)  # structures that nobody there has
        smooth = dice.rolling(_SMOOTH, center=True, min_periods=1).median()
        last = dice.tail(_SMOOTH).median()
        names = [name for name in dict.fromkeys((*PANELS, *dice.columns)) if name in dice]
        table = pd.DataFrame(
            {
                "system": run.variant,
                "seed": run.seed,
                "name": names,
                "best": smooth[names].max().to_numpy(),
                "best_at": smooth[names].idxmax().to_numpy(),
                "last": last[names].to_numpy(),
                "last_at": dice.index[-1],
            }
        )
        rows.append(table.assign(lost=table["best"] - table["last"]))
    return pd.concat(rows)


if __name__ == "__main__":
    main()
