"""Volumes of the structures, with the error bars the flip map gives, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.segmentation import Segmentation
from hetseg_bids.structures import Structure
from hetseg_bids.uncertainty import REPEAT_NOISE, summarise, volume_sd

_NORMAL_975 = 1.959964

COLUMNS: dict[str, str] = {
    "index": "Label value in the dseg image",
    "name": "Structure",
    "hemisphere": "L or R; n/a for midline structures",
    "volume_mm3": "Volume of the voxels labelled as the structure, mm3",
    "volume_sd_mm3": "Standard deviation of a reference's volume that the flip map implies, mm3; "
    "calibrated on synthetic scans. No measurement error: most of it is shared by the scans of "
    "one protocol",
    "volume_ci95_low_mm3": "Lower end of the 95 % interval in which the volume of a reference "
    "such as FreeSurfer's is expected, mm3; says nothing of another scan's volume",
    "volume_ci95_high_mm3": "Upper end of that interval, mm3",
    "volume_repeat_sd_mm3": "Standard deviation of the volume over scans of one person, mm3: "
    "measurement error, for weights and corrections; calibrated on people scanned twice",
    "mean_flip_probability": "Mean probability, inside the structure, that the label disagrees "
    "with the reference",
    "expected_dice": "Dice that the flip map expects against the reference",
}


def measure(result: Segmentation, *, noise: float = float("nan")) -> pd.DataFrame:
    """A row for each structure; columns as in `COLUMNS`, NaN where a model gives no flip map.

    Parameters
    ----------
    result : Segmentation
    noise : float
        `ImageQuality.noise` of the scan, which makes volumes less repeatable.
    """
    voxel = result.grid.voxel_volume
    rows = []
    for i, structure in enumerate(result.label_set.structures):
        inside = result.dseg == structure.label
        row: dict[str, object] = {
            "index": structure.label,
            "name": structure.name,
            "hemisphere": structure.hemisphere,
            "volume_mm3": float(inside.sum()) * voxel,
        }
        if result.flip is not None:
            row |= _error_bars(inside, result.flip[i], voxel, noise)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def has_columns(path: Path) -> bool:
    """Whether a table of volumes has today's columns; older versions of hetseg wrote fewer."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().rstrip("\n").split("\t") == list(COLUMNS)


def _error_bars(inside: np.ndarray, q: np.ndarray, voxel: float, noise: float) -> dict[str, float]:
    u = summarise(inside, q)
    sd = volume_sd(u.flip_variance * voxel)
    return {
        "volume_sd_mm3": sd,
        "volume_ci95_low_mm3": max(0.0, u.expected_size * voxel - _NORMAL_975 * sd),
        "volume_ci95_high_mm3": u.expected_size * voxel + _NORMAL_975 * sd,
        "volume_repeat_sd_mm3": REPEAT_NOISE.sd(u.size * voxel, u.flip_variance * voxel, noise),
        "mean_flip_probability": u.mean_q,
        "expected_dice": u.expected_dice,
    }


def centroids(
    labels: npt.NDArray[np.integer], grid: Grid, structures: Sequence[Structure]
) -> dict[str, npt.NDArray[np.float64]]:
    """Centre of gravity of each structure that is there, mm in scanner space.

    Parameters
    ----------
    labels : (X, Y, Z) int array
        `Structure.label` values.
    grid : Grid
    structures : sequence of Structure
    """
    boxes = ndimage.find_objects(labels, max_label=max((s.label for s in structures), default=0))
    places = {}
    for structure in structures:
        box = boxes[structure.label - 1]
        if box is not None:
            inside = np.argwhere(labels[box] == structure.label).mean(axis=0)
            place = inside + [part.start for part in box]
            places[structure.name] = nib.affines.apply_affine(grid.affine, place)
    return places
