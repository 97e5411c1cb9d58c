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

    Examples
    --------
    >>> Agreement(dice=0.9, hd95_mm=1.2, volume_mm3=5500, reference_mm3=5000).volume_error
    0.1
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

    Examples
    --------
    >>> segment, reference = np.zeros((2, 9, 9, 9), bool)
    >>> segment[2:6, 2:6, 2:6] = reference[3:7, 2:6, 2:6] = True  # 1 voxel apart
    >>> compare(segment, reference, np.array([2.0, 1, 1]))
    Agreement(dice=0.75, hd95_mm=2.0, volume_mm3=128.0, reference_mm3=128.0)
    """
    voxel = float(np.prod(zooms))
    return Agreement(
        dice=dice(segment, reference),
        hd95_mm=hausdorff95(segment, reference, zooms),
        volume_mm3=float(segment.sum()) * voxel,
        reference_mm3=float(reference.sum()) * voxel,
    )


def dice(segment: Mask, reference: Mask) -> float:
    """Dice, 2 |A and B| / (|A| + |B|), of bool arrays of one shape; NaN if both are empty.

    Examples
    --------
    >>> dice(np.array([True, True, False]), np.array([False, True, False]))
    0.6666666666666666
    """
    total = int(segment.sum()) + int(reference.sum())
    return 2 * int((segment & reference).sum()) / total if total else float("nan")


def hausdorff95(segment: Mask, reference: Mask, zooms: npt.NDArray[np.float64]) -> float:
    """95th percentile of the distances between two surfaces, of both directions together, mm.

    Parameters
    ----------
    segment, reference : (X, Y, Z) bool arrays
    zooms : (3,) float array
        Voxel size, mm.

    Returns
    -------
    distance : float
        NaN if either mask is empty.

    Examples
    --------
    >>> segment, reference = np.zeros((2, 9, 9, 9), bool)
    >>> segment[4, 4, 2] = reference[4, 4, 5] = True
    >>> hausdorff95(segment, reference, np.array([1, 1, 1.5]))
    4.5
    """
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

    Examples
    --------
    >>> mask = np.zeros((9, 9, 9), bool)
    >>> mask[3:6, 3:6, 3:6] = True
    >>> box, band = boundary_band(mask, 1)
    >>> box[0], band.shape, bool(band[2, 2, 2])  # the centre is no boundary
    (slice(2, 7, None), (5, 5, 5), False)
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        empty = (slice(0, 0),) * mask.ndim
        return empty, mask[empty]
    box = tuple(slice(max(0, part.start - reach), part.stop + reach) for part in found[0])
    inside = mask[box]
    grown = ndimage.binary_dilation(inside, iterations=reach)
    # a structure that is cut by the image's border has no boundary there
    return box, grown & ~ndimage.binary_erosion(inside, iterations=reach, border_value=1)


def _surface(mask: Mask) -> Mask:
    padded = np.pad(mask, 1)
    return np.asarray((padded & ~ndimage.binary_erosion(padded))[1:-1, 1:-1, 1:-1])


def _joint_box(mask: Mask) -> tuple[slice, ...]:
    found: tuple[slice, ...] = ndimage.find_objects(mask.astype(np.uint8))[0]
    return found
