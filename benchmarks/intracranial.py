"""Is the intracranial volume right, does it repeat, do its intervals hold.

    python benchmarks/intracranial.py MAPS OUT [T1W ...] [--model DIR] [--draws N]

Synthetic heads of the label maps in MAPS, whose volume is known: bias, spread, coverage. Whole-head
T1W images against copies of themselves that were moved, padded, turned, biased and defaced. One
process; a second a volume on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from hetseg_bids.files import write_tsv
from hetseg_bids.images import Grid
from hetseg_bids.network.models import Model, load_head_model
from hetseg_bids.preprocessing.conform import resample, working_grid
from hetseg_bids.preprocessing.head import Head, find_head
from hetseg_bids.preprocessing.headers import read_t1w
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.intracranial import mask_on, see_head, volume_sd
from hetseg_bids.segmentation.morphometry import NORMAL_975
from hetseg_bids.training.synthesis.heads import HEAD_FRAME, HeadConfig, HeadSource

_ML = 1000.0
_TRUE = replace(HeadConfig(), cut_rates=(0.0,) * 6)  # whole: cut heads have no volume


def main() -> None:
    """Write OUT/synthetic.tsv and OUT/copies.tsv, and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("t1w", type=Path, nargs="*")
    parser.add_argument("--model", type=Path, help="folder (default: the shipped model)")
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = load_head_model(CPU, args.model)
    if args.draws:
        synthetic = pd.DataFrame(synthetic_rows(model, args.maps, args.draws))
        write_tsv(args.out / "synthetic.tsv", synthetic.round(4))
        _tell_synthetic(synthetic)
    if args.t1w:
        rows = [row for path in args.t1w for row in copy_rows(model, path)]
        copies = pd.DataFrame(rows)
        write_tsv(args.out / "copies.tsv", copies.round(4))
        changed = copies[copies["copy"] != "original"]
        print(copies.pivot(index="scan", columns="copy", values="ml").round(1).to_string())
        print(changed.groupby("copy")["change_percent"].agg(["mean", "std", "min", "max"]).round(2))
        print(f"root mean square change {np.sqrt((changed['change_percent'] ** 2).mean()):.2f} %")


def measured(model: Model, head: Head, grid: Grid) -> dict[str, float]:
    """Volume of the mask on a grid, and what the flip map says of it, ml."""
    seen = see_head(model, head)
    logits, u = seen.inside, seen.uncertainty
    volume = float(mask_on(logits, head.grid, grid).sum()) * grid.voxel_volume
    return {
        "ml": volume / _ML,
        "expected_ml": 8 * u.expected_size / _ML,
        "flip_variance_ml": 8 * u.flip_variance / _ML,
        "sd_ml": volume_sd(volume, 8 * u.flip_variance) / _ML,
    }


def synthetic_rows(model: Model, maps: Path, draws: int) -> Iterator[dict[str, float]]:
    """Heads whose volume is known."""
    source = HeadSource(sorted(maps.glob("*.nii*")), _TRUE)
    coarse = Grid(HEAD_FRAME, np.diag([2.0, 2, 2, 1]))
    fine = working_grid(coarse)
    for seed in range(draws):
        drawn = source.draw_head(np.random.default_rng((7, seed)))
        found = measured(model, Head(drawn.volume.image, coarse), fine)
        yield {"seed": seed, "true_ml": drawn.intracranial_mm3 / _ML, **found}


def _tell_synthetic(table: pd.DataFrame) -> None:
    error = 100 * np.log(table["ml"] / table["true_ml"])
    inside = (table["ml"] - table["true_ml"]).abs() <= NORMAL_975 * table["sd_ml"]
    half = 100 * NORMAL_975 * (table["sd_ml"] / table["ml"]).mean()
    print(
        f"{len(table)} synthetic heads: bias {error.mean():+.2f} %, median "
        f"{error.median():+.2f} %, sd {error.std():.2f} %, largest {error.abs().max():.1f} %; "
        f"{inside.mean():.1%} in the 95 % intervals of +-{half:.1f} %"
    )


def copy_rows(model: Model, path: Path) -> Iterator[dict[str, object]]:
    """A scan, and the same scan in other places, fields and gains."""
    t1w = read_t1w(path)
    grid = working_grid(t1w.grid)
    image = resample(torch.from_numpy(t1w.data)[None], t1w.grid, grid, outside=t1w.background)[0]
    original = None
    for name, changed in copies_of(image.numpy(), t1w.background, np.random.default_rng(0)):
        place = replace(grid, shape=changed.shape)
        head = find_head(
            torch.from_numpy(np.ascontiguousarray(changed, np.float32)), place, t1w.background
        )
        found = measured(model, head, place)
        if original is None:
            original = found["ml"]
        change = 100 * (found["ml"] / original - 1)
        yield {"scan": path.name.split("_")[0], "copy": name, **found, "change_percent": change}


def copies_of(
    image: np.ndarray, background: float, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray]]:
    """The image itself first, then its copies."""
    yield "original", image
    wide = np.pad(image, 12, constant_values=background)
    yield "moved", ndimage.shift(wide, (0.5, 3.3, -2.4), order=1, cval=background)
    yield "padded", np.pad(image, ((31, 10), (5, 40), (25, 0)), constant_values=background)
    for name, axes, angle in (("nodded", (1, 2), 10), ("turned", (0, 1), -8)):
        yield (
            name,
            ndimage.rotate(wide, angle, axes, reshape=False, order=1, cval=background),
        )
    field = ndimage.zoom(rng.normal(0, 0.15, (4, 4, 4)), np.array(image.shape) / 4, order=3)
    yield "biased", (image - background) * np.exp(field) + background
    yield "noisy", np.abs(image + rng.normal(0, 0.03 * np.percentile(image, 99), image.shape))
    yield "defaced", _without_face(image, background)


def _without_face(image: np.ndarray, background: float) -> np.ndarray:
    """All before and below a plane through the middle of the head's lower front is background."""
    places = np.argwhere(image > 0.2 * np.percentile(image, 99))
    low, high = np.percentile(places, 0.5, axis=0), np.percentile(places, 99.5, axis=0)
    y, z = (np.arange(n, dtype=float) for n in image.shape[1:])
    # from the brow, 85 mm below the crown, back and down
    beyond = (y[:, None] - high[1] + 18) - 0.9 * (z[None] - (high[2] - 85))
    face = (beyond > 0) & (z[None] < high[2] - 85) & (y[:, None] > (low[1] + high[1]) / 2)
    return np.where(face[None], background, image)


if __name__ == "__main__":
    main()
