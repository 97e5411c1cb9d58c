"""Overlap, distance and volume error of two segmentations on one grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How well a segment agrees with its reference.

    Attributes
    ----------
    dice : float
        NaN if both are empty.
    hd95_mm : float
        95th percentile of the symmetric surface distance; NaN if either is empty.
    volume_mm3, reference_mm3 : float
    """

    dice: float
    hd95_mm: float
    volume_mm3: float
    reference_mm3: float

    @property
    def volume_error(self) -> float:
        """(volume - reference) / reference; NaN without a reference."""
        if not self.reference_mm3:
            return float("nan")
        return (self.volume_mm3 - self.reference_mm3) / self.reference_mm3


def compare(segment: Mask, reference: Mask, zooms: npt.NDArray[np.float64]) -> Agreement:
    """Compare two masks.

    Parameters
    ----------
    segment, reference : (X, Y, Z) bool arrays
    zooms : (3,) float array
        Voxel size, mm.
    """
    voxel = float(np.prod(zooms))
    return Agreement(
        dice=dice(segment, reference),
        hd95_mm=hausdorff95(segment, reference, zooms),
        volume_mm3=float(segment.sum()) * voxel,
        reference_mm3=float(reference.sum()) * voxel,
    )


def dice(segment: Mask, reference: Mask) -> float:
    """2 |A and B| / (|A| + |B|), NaN if both are empty."""
    total = int(segment.sum()) + int(reference.sum())
    return 2 * int((segment & reference).sum()) / total if total else float("nan")


def hausdorff95(segment: Mask, reference: Mask, zooms: npt.NDArray[np.float64]) -> float:
    """95th percentile of the distances between two surfaces, both ways pooled, mm."""
    if not segment.any() or not reference.any():
        return float("nan")
    box = _joint_box(segment | reference)
    a, b = _surface(segment[box]), _surface(reference[box])
    to_b = ndimage.distance_transform_edt(~b, sampling=zooms)[a]
    to_a = ndimage.distance_transform_edt(~a, sampling=zooms)[b]
    return float(np.percentile(np.concatenate((to_a, to_b)), 95))


def boundary_band(mask: Mask, reach: int) -> tuple[tuple[slice, ...], Mask]:
    """Voxels within `reach` of a mask's boundary, on both sides.

    Parameters
    ----------
    mask : (X, Y, Z) bool array
    reach : int
        Voxels.

    Returns
    -------
    box : tuple of 3 slice
        Empty if the mask is.
    band : bool array
        Of the box's shape.
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        empty = (slice(0, 0),) * mask.ndim
        return empty, mask[empty]
    box = tuple(slice(max(0, part.start - reach), part.stop + reach) for part in found[0])
    inside = mask[box]
    grown = ndimage.binary_dilation(inside, iterations=reach)
    # beyond the image the structure goes on: its cut side is no boundary
    return box, grown & ~ndimage.binary_erosion(inside, iterations=reach, border_value=1)


def _surface(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    return np.asarray((padded & ~ndimage.binary_erosion(padded))[1:-1, 1:-1, 1:-1])


def _joint_box(mask: Mask) -> tuple[slice, ...]:
    found: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return found
