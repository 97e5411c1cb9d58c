"""The display window: which intensities are drawn black and white, from the tissue alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hetseg_bids.quality.image_quality import GREY, WHITE, tissue
from hetseg_bids.structures.label_sets import LabelSet

_CORTEX_AT = 0.35  # low, as coils brighten the brain's middle
_WHITE_AT = 0.8  # deep grey matter lies between
_BRIGHTEST = 99.5  # percentile of white matter that is still drawn below white
_LEAST_VOXELS = 1000
# without both tissues: of the brain, as fluid and vessels at its ends may vary
_PERCENTILES = (0.5, 99.5)
_HEADROOM = 0.05  # of the range between them, at both ends


def display_window(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    dseg: npt.NDArray[np.uint8],
    label_set: LabelSet,
) -> tuple[float, float]:
    """Intensities to draw as black and as white.

    The medians of cortex and white matter are drawn at 0.35 and 0.8 of the way from black to
    white, so that fluid is black or nearly so and the nuclei between these two stay apart from
    both. White lies higher where more than the brightest 0.5 % of white matter would be white
    otherwise. Scalp, neck, vessels and background have no say.

    Parameters
    ----------
    image : (X, Y, Z) float array
        Finite; any intensity scale that is linear.
    mask : (X, Y, Z) bool array
        Brain; counts where white matter and cortex weren't labelled, or white matter isn't the
        brighter one: then the window holds the brain's intensities from the 0.5th to the 99.5th
        percentile and a little more. If it is empty, all of the image counts.
    dseg : (X, Y, Z) uint8 array
        `Structure.label` values.
    label_set : LabelSet

    Returns
    -------
    low, high : float
        ``low < high``.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> labels = np.repeat(np.array([3, 2], np.uint8), 1000).reshape(10, 10, 20)
    >>> image = np.where(labels == 2, 110, 65).astype(np.float32)
    >>> low, high = display_window(image, labels > 0, labels, ASEG)
    >>> round(low), round(high)
    (30, 130)
    """
    white, cortex = (image[tissue(dseg, label_set, name)] for name in (WHITE, GREY))
    if min(len(white), len(cortex)) < _LEAST_VOXELS:
        return _of_brain(image, mask)
    middle = float(np.median(cortex))
    width = (float(np.median(white)) - middle) / (_WHITE_AT - _CORTEX_AT)
    if width <= 0:
        return _of_brain(image, mask)
    low, high = middle - _CORTEX_AT * width, middle + (1 - _CORTEX_AT) * width
    return low, max(high, float(np.percentile(white, _BRIGHTEST)))


def _of_brain(image: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    inside = image[mask] if mask.any() else image
    bottom, top = (float(value) for value in np.percentile(inside, _PERCENTILES))
    headroom = _HEADROOM * (top - bottom)
    low, high = bottom - headroom, top + headroom
    return (low, high) if high > low else (low, low + 1.0)
