"""Volumes of the structures, with the error bars the flip map gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hetseg_bids.segmentation import Segmentation
from hetseg_bids.uncertainty import summarise, volume_sd

_NORMAL_975 = 1.959964
_GONE = 0.1  # of the expected volume: a structure of which less is labelled wasn't found

COLUMNS: dict[str, str] = {
    "index": "Label value in the dseg image",
    "name": "Structure",
    "hemisphere": "L or R; n/a for midline structures",
    "volume_mm3": "Volume of the voxels labelled as the structure, mm3",
    "volume_sd_mm3": "Standard deviation of the volume that the flip map implies, mm3; "
    "calibrated on synthetic scans",
    "volume_ci95_low_mm3": "Lower end of the 95 % interval of the volume, mm3",
    "volume_ci95_high_mm3": "Upper end of the 95 % interval of the volume, mm3",
    "mean_flip_probability": "Mean probability, inside the structure, that the label disagrees "
    "with the reference",
    "expected_dice": "Dice that the flip map expects against the reference",
}


def measure(result: Segmentation, surplus_mm3: Mapping[str, float] | None = None) -> pd.DataFrame:
    """A row for each structure; columns as in `COLUMNS`, NaN where a model gives no flip map.

    Parameters
    ----------
    result : Segmentation
    surplus_mm3 : dict of str to float, optional
        See `Plausibility.surplus_mm3`.
    """
    surplus_mm3 = surplus_mm3 or {}
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
            surplus = surplus_mm3.get(structure.name, 0.0)
            row |= _error_bars(inside, result.flip[i], voxel, surplus)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _error_bars(
    inside: np.ndarray, q: np.ndarray, voxel: float, surplus_mm3: float
) -> dict[str, float]:
    u = summarise(inside, q).without(surplus_mm3 / voxel)
    sd = volume_sd(u.flip_variance * voxel)
    low = max(0.0, u.expected_size * voxel - _NORMAL_975 * sd)
    return {
        "volume_sd_mm3": sd,
        # q is the network's, which found next to nothing: the reference may hold nothing
        "volume_ci95_low_mm3": 0.0 if u.size <= _GONE * u.expected_size else low,
        "volume_ci95_high_mm3": u.expected_size * voxel + _NORMAL_975 * sd,
        "mean_flip_probability": u.mean_q,
        "expected_dice": u.expected_dice,
    }
