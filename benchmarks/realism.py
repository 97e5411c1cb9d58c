"""Do synthetic training scans look like real ones? Where each measure of real scans falls.

    python benchmarks/realism.py MAPS OUT DATA [DATA ...] [--scans 30]

MAPS holds the label maps, each DATA sub-X_T1w.nii.gz and sub-X_dseg.nii.gz at 1 mm. Measures what
the network sees (standard scores inside the mask) under clean labels and writes OUT/realism.tsv:
quantiles of the synthetic scans beside the range of each DATA. Positions lie between cortex (0)
and white matter (1); noise and spreads are shares of that distance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from accuracy import read_reference, scans_of
from scipy import ndimage

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.preprocessing.conform import resample
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.pipeline import prepare
from hetseg_bids.structures import ASEG
from hetseg_bids.training.label_noise import CLEAN
from hetseg_bids.training.synthesis import SynthesisConfig, SyntheticSource

_SEED = 77
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FEW = 20  # voxels
_WHITE, _CORTEX = "cerebral_white_matter", "cerebral_cortex"


def main() -> None:
    """Draw, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--scans", type=int, default=30)
    args = parser.parse_args()
    source = SyntheticSource(sorted(args.maps.glob("*.nii*")), SynthesisConfig(labels=CLEAN))
    drawn = [source.draw(np.random.default_rng((_SEED, i))) for i in range(args.scans)]
    synthetic = pd.DataFrame([measures(v.image.numpy(), v.labels.numpy()) for v in drawn])
    table = synthetic.quantile(list(_QUANTILES)).T
    table.columns = [f"synthetic_{100 * q:.0f}" for q in _QUANTILES]
    for data in args.data:
        real = pd.DataFrame([measures(*real_scan(t1w)) for t1w in scans_of(data)])
        for name, column in (("min", real.min()), ("median", real.median()), ("max", real.max())):
            table[f"{data.name}_{name}"] = column
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(table.rename_axis("measure").reset_index(), args.out / "realism.tsv")
    print(table.round(2).to_string())


def real_scan(t1w: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Standard scores and labels on the grid of the scan."""
    scan = prepare(t1w)
    scores = resample(scan.image[None], scan.working, scan.native, outside=BACKGROUND)[0]
    return scores.numpy(), read_reference(t1w)


def measures(image: npt.NDArray[np.float32], labels: npt.NDArray[np.generic]) -> dict[str, float]:
    """What one scan looks like."""
    where = {name: np.isin(labels, ids) for name, ids in _both_sides().items()}
    white, cortex = (np.median(image[where[name]]) for name in (_WHITE, _CORTEX))
    contrast = float(white - cortex)
    brain = np.logical_or.reduce(list(where.values()))
    found = {
        "white_matter_score": float(white),
        "contrast_score": contrast,
        "mask_over_brain": float((image > BACKGROUND).sum() / brain.sum()),
        "noise": noise(image, where[_WHITE]) / contrast,
        "step_white_cortex": step(image, where[_WHITE], where[_CORTEX]),
    }
    for name, inside in where.items():
        if inside.sum() > _FEW:
            values = image[inside]
            found[f"spread_{name}"] = _spread(values) / contrast
            if name not in (_WHITE, _CORTEX):
                found[f"position_{name}"] = float(np.median(values) - cortex) / contrast
    return found


def _both_sides() -> dict[str, tuple[int, ...]]:
    merged: dict[str, tuple[int, ...]] = {}
    for s in ASEG.structures:
        name = s.name.removeprefix("left_").removeprefix("right_")
        merged[name] = (*merged.get(name, ()), *s.members)
    return merged


def _spread(values: npt.NDArray[np.float32]) -> float:
    low, high = np.percentile(values, (25, 75))
    return float(high - low) / 1.349  # a standard deviation, if normal


def noise(image: npt.NDArray[np.float32], white: npt.NDArray[np.bool_]) -> float:
    """Standard deviation of what a voxel has and its neighbours haven't, deep in white matter."""
    inside = ndimage.binary_erosion(white, iterations=2)[1:-1]
    return _spread((2 * image[1:-1] - image[2:] - image[:-2])[inside]) / 6**0.5


def step(
    image: npt.NDArray[np.float32], bright: npt.NDArray[np.bool_], dark: npt.NDArray[np.bool_]
) -> float:
    """Which part of the fall over four voxels lies between the two in the middle: 1 is sharp."""
    profiles = []
    for axis in range(3):
        turned = [np.moveaxis(x, axis, 0) for x in (image, bright, dark)]
        for x, a, b in (turned, [t[::-1] for t in turned]):
            crossing = a[:-3] & a[1:-2] & b[2:-1] & b[3:]
            n = len(x) - 3
            profiles.append([x[i : i + n][crossing] for i in range(4)])
    first, second, third, last = np.median(np.concatenate(profiles, axis=1), axis=1)
    return float((second - third) / (first - last))


if __name__ == "__main__":
    main()
