"""How a model's borders are best drawn: Dice by structure, smoothing and offset.

    python benchmarks/borders.py OUT DATA [DATA ...] [--model NAME]

Segments the sub-X_T1w.nii.gz of each folder, which have sub-X_dseg.nii.gz beside them, and draws
the border of one structure at a time in other ways (`hetseg_bids.network.fitted.Border`), the
others as the plan says. OUT/borders.tsv has the Dice of every way; printed are the best one over
all scans, what it gains in each folder, and what is gained in a scan by ways that were chosen on
all others. 40 s a scan on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import scans_of
from torch import Tensor

from hetseg_bids.files import write_tsv
from hetseg_bids.images import read_labels
from hetseg_bids.network.fitted import Border
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.inference import brain_box, draw_borders_, mean_outputs
from hetseg_bids.segmentation.smoothing import smooth_
from hetseg_bids.segmentation.views import views_of

SMOOTHINGS = (0.0, 0.25, 0.5, 0.75, 1.0)
OFFSETS = np.arange(-1, 2.01, 0.25)
_NEVER = -99.0
_WAY = ["smoothing", "offset"]


def main() -> None:
    """Segment, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--model", default="label-flip")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = load_model(args.model, CPU)
    rows: list[dict[str, object]] = []
    for folder in args.data:
        for t1w in scans_of(folder):
            rows += rows_of(model, t1w)
            write_tsv(args.out / "borders.tsv", pd.DataFrame(rows).round(5))
    tell(pd.DataFrame(rows), model)


def rows_of(model: Model, t1w: Path) -> Iterator[dict[str, object]]:
    """Dice and size of each structure of a scan, drawn in each way."""
    prepared = prepare_image(t1w, "auto")
    box = brain_box(prepared.mask)
    plan, structures = model.plan, model.plan.label_set.structures
    mean = mean_outputs(model, prepared.image[box], views_of(model))[: len(structures)]
    ids, grid = read_labels(t1w.with_name(t1w.name.replace("_T1w", "_dseg")))
    truth = torch.from_numpy(nearest(plan.label_set.collapse(ids), grid, prepared.working))
    sizes = {s.label: int((truth == s.label).sum()) for s in structures}
    planned = mean.clone()
    draw_borders_(planned, plan)
    first, which = planned.max(0)
    second = planned.scatter_(0, which[None], _NEVER).amax(0)
    for smoothing in SMOOTHINGS:
        drawn = mean.clone()
        smooth_(drawn, torch.full((len(drawn), 3), smoothing))
        for place, s in enumerate(structures):
            if not sizes[s.label]:
                continue
            others = torch.where(which == place, second, first).clamp_(min=0)
            found = _scores(drawn[place] - others, truth[box] == s.label, sizes[s.label])
            for offset, (dice, size) in zip(OFFSETS, found, strict=True):
                facts = {"folder": t1w.parent.name, "scan": t1w.name.split("_")[0], "name": s.name}
                way = {"smoothing": smoothing, "offset": offset}
                yield facts | way | {"dice": dice, "size": size}


def _scores(margin: Tensor, truth: Tensor, size: int) -> Iterator[tuple[float, float]]:
    """Dice and relative size for each offset."""
    inside, outside = margin[truth], margin[~truth & (margin > -OFFSETS[-1])]
    for offset in OFFSETS:
        right, wrong = (int((part + offset > 0).sum()) for part in (inside, outside))
        yield 2 * right / (right + wrong + size), (right + wrong) / size


def tell(table: pd.DataFrame, model: Model) -> None:
    """The best way by structure, both sides alike, and what it gains."""
    table["pair"] = table["name"].str.replace(r"^(left|right)_", "", regex=True)
    planned = {name: model.plan.borders.get(name, Border()) for name in table["name"].unique()}
    is_planned = (table["smoothing"] == table["name"].map(lambda n: planned[n].smoothing)) & (
        table["offset"] == table["name"].map(lambda n: planned[n].offset)
    )
    now = table[is_planned].set_index(["scan", "name"])["dice"]
    table["gain"] = (
        table["dice"] - now.loc[pd.MultiIndex.from_frame(table[["scan", "name"]])].to_numpy()
    )
    kept = table.merge(best_ways(table))
    shown = kept.pivot_table("gain", ["pair", *_WAY], "folder", sort=False)
    shown["size"] = table[is_planned].groupby("pair")["size"].mean().reindex(shown.index, level=0)
    print(f"gain by the best way, and size now\n{shown.round(4).to_string()}")
    print("\nmean Dice as planned, and gain by ways chosen on the other scans")
    for scan, own in table.groupby("scan", sort=False):
        others = table[table["scan"] != scan]
        if others.empty:
            continue
        gain = own.merge(best_ways(others))["gain"].mean()
        print(f"{scan} {now.loc[scan].mean():.4f} {gain:+.4f}")


def best_ways(table: pd.DataFrame) -> pd.DataFrame:
    """Smoothing and offset with the largest mean Dice, one row for each pair of sides."""
    best = table.groupby(["pair", *_WAY])["dice"].mean().groupby("pair").idxmax()
    return pd.DataFrame(list(best), columns=["pair", *_WAY])


if __name__ == "__main__":
    main()
