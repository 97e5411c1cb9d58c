"""Volumes of the structures, with error bars from the flip map."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from hetseg_bids.segmentation.labels import Segmentation
from hetseg_bids.segmentation.lesioned import UNKNOWN
from hetseg_bids.segmentation.uncertainty import (
    NORMAL_975,
    REPEAT_NOISE,
    StructureUncertainty,
    volume_sd,
)

_GONE = 0.1  # of the expected volume: with fewer labelled voxels, a structure counts as not found

COLUMNS: dict[str, str] = {
    "index": "Label value in the dseg image",
    "name": "Structure",
    "hemisphere": "L or R; n/a for midline structures",
    "volume_mm3": "Volume of the voxels labelled as the structure, mm3",
    "expected_volume_mm3": "Soft volume, mm3: the probability of the structure, summed over all "
    "voxels of the image",
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
    "lesion_mm3": "Volume of the lesion mask that was most probably the structure, mm3: no part of "
    "volume_mm3 unless lesions are labelled; n/a without a lesion mask",
    "lesion_share": "Share of the structure that the lesion mask covers, 0-1: lesion_mm3 of the "
    "sum of lesion_mm3 and what is labelled outside the lesion; n/a without a lesion mask",
}


def measure(
    result: Segmentation,
    *,
    noise: float = float("nan"),
    surplus_mm3: Mapping[str, float] | None = None,
    divided: Mapping[str, tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """One row per structure; columns as in `COLUMNS`, NaN where a model has no flip map.

    The soft volume needs `Segmentation.probability_sums`, which models without flip maps have, too.

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
        if result.probability_sums is not None:
            row["expected_volume_mm3"] = float(result.probability_sums[i]) * voxel
        if result.uncertainty is not None:
            surplus = surplus_mm3.get(structure.name, 0.0) / voxel
            lesion = 0.0 if result.covered is None else float(result.covered.inside[i])
            row |= _error_bars(result.uncertainty[i].without(surplus), voxel, noise, lesion)
        if result.covered is not None:
            row["lesion_mm3"] = float(result.covered.inside[i]) * voxel
            row["lesion_share"] = float(result.covered.share[i])
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


def _error_bars(
    u: StructureUncertainty, voxel: float, noise: float, lesion: float = 0.0
) -> dict[str, float]:
    """Error bars of one structure, `lesion` voxels of which a lesion may have replaced.

    All or nothing of these may be the structure in a reference: they widen the interval as a whole,
    and no scan of the person tells more about them.
    """
    variance = (u.flip_variance - UNKNOWN * (1 - UNKNOWN) * lesion) * voxel
    known = u.expected_size - UNKNOWN * lesion
    sd = volume_sd(max(variance, 0.0))
    low = max(0.0, known * voxel - NORMAL_975 * sd)
    return {
        "volume_sd_mm3": math.hypot(sd, UNKNOWN * lesion * voxel),
        # where the network found almost nothing, the reference may not have the structure
        "volume_ci95_low_mm3": 0.0 if u.size <= _GONE * known else low,
        "volume_ci95_high_mm3": known * voxel + NORMAL_975 * sd + lesion * voxel,
        "volume_repeat_sd_mm3": REPEAT_NOISE.sd(u.size * voxel, max(variance, 0.0), noise),
        "mean_flip_probability": u.mean_flip_probability,
        "expected_dice": u.expected_dice,
    }
