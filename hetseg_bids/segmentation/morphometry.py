"""Volumes of the structures, with error bars from the flip map."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from hetseg_bids.segmentation.labels import Segmentation
from hetseg_bids.segmentation.uncertainty import REPEAT_NOISE, StructureUncertainty, volume_sd

NORMAL_975 = 1.959964
_GONE = 0.1  # of the expected volume: with fewer labelled voxels, a structure counts as not found

COLUMNS: dict[str, str] = {
    "index": "Label value in the dseg image",
    "name": "Structure",
    "hemisphere": "L or R; n/a for midline structures",
    "volume_mm3": "Volume of the voxels labelled as the structure, mm3",
    "volume_sd_mm3": "Standard deviation of a reference's volume that the flip map implies, mm3; "
    "chosen on four real scans. No measurement error: most of it is shared by the scans of "
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


def measure(
    result: Segmentation,
    *,
    noise: float = float("nan"),
    surplus_mm3: Mapping[str, float] | None = None,
    divided: Mapping[str, tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """One row per structure; columns as in `COLUMNS`, NaN where a model has no flip map.

    Parameters
    ----------
    result : Segmentation
    noise : float
        `ImageQuality.noise` of the scan, which makes volumes less repeatable.
    surplus_mm3 : dict of str to float, optional
        See `Plausibility.surplus_mm3`.
    divided : dict of str to tuple of str, optional
        See `Division.divided`: the surplus of a structure is shared by its labels, by their volume.

    Examples
    --------
    >>> from hetseg_bids.images import Grid
    >>> from hetseg_bids.structures.label_sets import LabelSet, Structure
    >>> brainstem = LabelSet((Structure("brainstem", 16, (16,), (119, 159, 176)),))
    >>> dseg, grid = np.full((2, 3, 4), 16, np.uint8), Grid((2, 3, 4), np.diag([1, 1, 2, 1.0]))
    >>> result = Segmentation(grid, (slice(2), slice(3), slice(4)), dseg, None, None, brainstem)
    >>> measure(result)[["index", "name", "volume_mm3"]]
       index       name  volume_mm3
    0     16  brainstem        48.0
    """
    voxel = result.grid.voxel_volume
    sizes = np.bincount(result.dseg.reshape(-1), minlength=256)
    volumes = {s.name: float(sizes[s.label]) * voxel for s in result.label_set.structures}
    surplus_mm3 = _shared_out(surplus_mm3 or {}, divided or {}, volumes)
    rows = []
    for i, structure in enumerate(result.label_set.structures):
        row: dict[str, object] = {
            "index": structure.label,
            "name": structure.name,
            "hemisphere": structure.hemisphere,
            "volume_mm3": volumes[structure.name],
        }
        if result.uncertainty is not None:
            surplus = surplus_mm3.get(structure.name, 0.0) / voxel
            row |= _error_bars(result.uncertainty[i].without(surplus), voxel, noise)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _shared_out(
    surplus_mm3: Mapping[str, float],
    divided: Mapping[str, tuple[str, ...]],
    volumes: Mapping[str, float],
) -> dict[str, float]:
    """Surplus of structures as that of the labels which take their place."""
    shared: dict[str, float] = {}
    for structure, surplus in surplus_mm3.items():
        names = divided.get(structure, (structure,))
        found = {name: volumes[name] for name in names if volumes.get(name)}
        whole = sum(found.values())
        shared |= {name: surplus * volume / whole for name, volume in found.items()}
    return shared


def has_columns(path: Path) -> bool:
    """Whether a table of volumes has today's columns; older versions of hetseg wrote fewer."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().rstrip("\n").split("\t") == list(COLUMNS)


def _error_bars(u: StructureUncertainty, voxel: float, noise: float) -> dict[str, float]:
    sd = volume_sd(u.flip_variance * voxel)
    low = max(0.0, u.expected_size * voxel - NORMAL_975 * sd)
    return {
        "volume_sd_mm3": sd,
        # where the network found almost nothing, the reference may not have the structure
        "volume_ci95_low_mm3": 0.0 if u.size <= _GONE * u.expected_size else low,
        "volume_ci95_high_mm3": u.expected_size * voxel + NORMAL_975 * sd,
        "volume_repeat_sd_mm3": REPEAT_NOISE.sd(u.size * voxel, u.flip_variance * voxel, noise),
        "mean_flip_probability": u.mean_flip_probability,
        "expected_dice": u.expected_dice,
    }
