"""Which network is worth its time: Dice against CPU time of training and seconds a scan.

    python benchmarks/front.py MAPS DATA OUT [--samples N] [--only NAME ...] [--models MODEL ...]

MAPS holds the label maps, DATA sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids).
Trains networks of several sizes from nothing, each on as many stacks as cost it what N cost the
default one in multiply-adds, on one core, and scores them on DATA; finished models, as they are
used, beside them. Writes OUT/front.tsv (one row per network), OUT/front.md and OUT/front.png, .svg
(Dice against each cost). What exists is not made again, and an interrupted training goes on.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ablation import score, train_to_end
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.figures import save_figure
from hetseg_bids.files import read_json, write_json
from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.devices import set_threads
from hetseg_bids.network.models import load_model
from hetseg_bids.network.systems import LabelFlip
from hetseg_bids.segmentation.views import add_view_, empty_logits, views_of
from hetseg_bids.structures.aseg import N_TASKS
from hetseg_bids.training.recipes import TrainingConfig, compact_recipe, fast_recipe, wide_recipe
from hetseg_bids.training.schedules import Schedule
from hetseg_bids.training.synthesis.painting import SyntheticSource

DEFAULT = "default"
_BRAIN = (150, 180, 140)  # box of a large brain, mm
_REPEATS = 2


@dataclass(frozen=True)
class Variant:
    """A network, and how its weights are averaged."""

    network: NetworkConfig
    ema_decay: float = 0.99


_DEFAULT = NetworkConfig(LabelFlip().n_outputs(N_TASKS))
VARIANTS: dict[str, Variant] = {
    DEFAULT: Variant(_DEFAULT),
    "half width": Variant(replace(_DEFAULT, stem=(8, 8, 16), levels=(16, 32, 48), growth=16)),
    "width x 1.5": Variant(replace(_DEFAULT, stem=(24, 24, 48), levels=(48, 96, 144), growth=48)),
    "2 dense blocks": Variant(replace(_DEFAULT, dilations=(1, 2))),
    "8 dense blocks": Variant(replace(_DEFAULT, dilations=(1, 2, 4, 8, 1, 2, 4, 1))),
    "wide recipe": Variant(wide_recipe("label-flip").network),
    "thin stem": Variant(replace(_DEFAULT, stem=(4, 8, 16))),
    "5 slices": Variant(replace(_DEFAULT, stem=(16, 32))),
    "9 slices": Variant(replace(_DEFAULT, stem=(16, 16, 16, 32))),
    "3 of 7 slices labelled": Variant(replace(_DEFAULT, labelled=3)),
    "deep supervision": Variant(replace(_DEFAULT, deep_supervision=True)),
    "compact": Variant(compact_recipe("label-flip").network),
    "no average of weights": Variant(_DEFAULT, ema_decay=0.0),
}


def main() -> None:
    """Train, time, score, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=tuple(VARIANTS))
    parser.add_argument("--models", nargs="+", default=())
    args = parser.parse_args()
    set_threads(1)
    rows, models = [], {}
    for name in args.only:
        facts = train(name, args)
        models[name] = str(args.out / name.replace(" ", "-") / "model")
        rows.append(row(name, facts, score(name, models[name], args)))
    for name in args.models:
        models[name] = name
        scores = score(Path(name).name, name, args, mirror=True)
        rows.append(row(name, facts_of(name), scores))
    table = pd.DataFrame(rows)
    table["seconds_a_scan"] = table["network"].map(seconds(models))
    write_table(table, args.out / "front.tsv")
    (args.out / "front.md").write_text(markdown(table), encoding="utf-8")
    save_figure(draw(table), args.out / "front")
    print(markdown(table))


def row(name: str, facts: dict[str, float], scores: pd.DataFrame) -> dict[str, object]:
    """One row of the table."""
    dice = scores.groupby("scan")["dice"].mean()
    return {"network": name, **facts, **dice, "mean_dice": dice.mean()}


def train(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Train a network for the common budget; what it is and took."""
    kept = args.out / name.replace(" ", "-") / "facts.json"
    if not kept.exists():
        config = recipe(VARIANTS[name], args.samples)
        source = SyntheticSource(sorted(args.maps.glob("*.nii*")))
        clock = Clock(kept.with_name("spent.json"))
        folder = train_to_end(args.out, name, config, source, after_step=clock.keep)
        write_json(kept, {**facts_of(str(folder)), "training_cpu_min": clock.minutes})
    facts: dict[str, float] = read_json(kept)
    return facts


class Clock:
    """CPU minutes of a run that may have been interrupted, what was trained twice included.

    Parameters
    ----------
    path : Path
        Where they are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._earlier = float(read_json(path)["cpu_min"]) if path.exists() else 0.0
        self._begun = self._kept = time.process_time()

    @property
    def minutes(self) -> float:
        """Until now."""
        return self._earlier + (time.process_time() - self._begun) / 60

    def keep(self) -> None:
        """Write them, once a minute."""
        if time.process_time() - self._kept > 60:
            self._kept = time.process_time()
            write_json(self._path, {"cpu_min": self.minutes})


def facts_of(name: str) -> dict[str, float]:
    """What a finished model is; what its last run saw, and not how long it took."""
    model = load_model(name, torch.device("cpu"))
    parameters = sum(p.numel() for p in model.network.parameters())
    stacks = model.plan.provenance.get("samples_seen", float("nan"))
    return {"parameters": parameters, "stacks": stacks, "training_cpu_min": float("nan")}


def recipe(variant: Variant, samples: int) -> TrainingConfig:
    """As many stacks as cost what `samples` cost the default network, in small batches."""
    share = multiply_adds(_DEFAULT) / multiply_adds(variant.network)
    config = fast_recipe("label-flip", samples=round(samples * share / 2) * 2)
    return replace(
        config,
        network=variant.network,
        batch=2,
        schedule=Schedule(warmup=100),
        ema_decay=variant.ema_decay,
        mirror=False,
    )


def multiply_adds(network: NetworkConfig) -> float:
    """Of the convolutions over one stack."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        HetsegNet(network)(torch.zeros(1, 1, network.depth.slices, 64, 64))
    return counter.get_total_flops() / 2


def seconds(models: dict[str, str]) -> dict[str, float]:
    """Least wall time of all views of one brain, models in turns, on the threads set."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_REPEATS):
        for name, folder in models.items():
            times[name].append(one_scan(folder))
    return {name: min(found) for name, found in times.items()}


def one_scan(folder: str) -> float:
    """Wall time of the views of one brain."""
    model = load_model(folder, torch.device("cpu"))
    chosen = views_of(model)
    image = torch.randn(_BRAIN, generator=torch.Generator().manual_seed(0))
    total = empty_logits(len(chosen[0].keep), _BRAIN)
    start = time.perf_counter()
    for view in chosen:
        add_view_(total, image, view)
    return time.perf_counter() - start


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    scans = [c for c in table.columns if c.startswith("sub-")]
    head = ["network", "parameters", "stacks", "training, CPU min", "network, s a scan", *scans]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for _, row in table.iterrows():
        dice = " | ".join(f"{row[s]:.3f}" for s in scans)
        minutes = row["training_cpu_min"]
        lines.append(
            f"| {row['network']} | {row['parameters'] / 1e6:.2f} M | {row['stacks']:,.0f} | "
            f"{'' if np.isnan(minutes) else f'{minutes:.1f}'} | {row['seconds_a_scan']:.1f} | "
            f"{dice} |"
        )
    return "\n".join(lines) + "\n"


def draw(table: pd.DataFrame) -> Figure:
    """Mean Dice against both costs, one per panel; what nothing beats there is joined."""
    figure = Figure(figsize=(9, 4.2))
    FigureCanvasAgg(figure)
    costs = {
        "training_cpu_min": "training, CPU minutes",
        "seconds_a_scan": "network, seconds a scan on one core",
    }
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (cost, name) in zip(panels, costs.items(), strict=True):
        ordered = table.dropna(subset=cost).sort_values(cost)
        front = ordered[ordered["mean_dice"] >= ordered["mean_dice"].cummax()]
        axes.plot(front[cost], front["mean_dice"], color="0.6", linewidth=1)
        axes.plot(ordered[cost], ordered["mean_dice"], "o")
        for i, (_, row) in enumerate(ordered.iterrows()):
            # above and below by turns: neighbours overlap otherwise
            place = (4, -11 if i % 2 else 5)
            point = (row[cost], row["mean_dice"])
            axes.annotate(
                row["network"], point, xytext=place, textcoords="offset points", fontsize=7
            )
        axes.set(xlabel=name)
        axes.margins(x=0.3, y=0.1)
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="mean Dice")
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
