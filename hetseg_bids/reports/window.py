"""The display window: which intensities are drawn black and white, from the brain alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hetseg_bids.quality.image_quality import GREY, WHITE, tissue
from hetseg_bids.structures.label_sets import LabelSet

_PERCENTILES = (0.5, 99.5)  # of the brain: fluid and vessels at its ends may vary
_HEADROOM = 0.05  # of the range between them, at both ends
_STEP = 0.32  # least distance of white matter to cortex, of the window
_CORTEX_AT = 0.35  # of a narrowed window: room above, coils make the middle of the brain brighter
_MOST_OF_BOTH = (5, 95)  # percentiles: they fit in a narrowed window, also where labels are wrong
_LEAST_VOXELS = 1000


def display_window(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    dseg: npt.NDArray[np.uint8],
    label_set: LabelSet,
) -> tuple[float, float]:
    """Intensities to draw as black and as white.

    The window holds the brain's intensities from the 0.5th to the 99.5th percentile and a
    little more; scalp, background and single voxels have no say. Where white matter and cortex
    are labelled and would lie too close together for their border, and the grey nuclei
    between them, to show, it is narrowed around these two.

    Parameters
    ----------
    image : (X, Y, Z) float array
        Finite, in any linear intensity.
    mask : (X, Y, Z) bool array
        Brain; if it is empty, all of the image counts.
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
    >>> image = np.linspace(0, 100, 1000, dtype=np.float32).reshape(10, 10, 10)
    >>> labels = np.zeros(image.shape, np.uint8)
    >>> low, high = display_window(image, image > 0, labels, ASEG)
    >>> round(low), round(high)
    (-4, 104)
    """
    inside = image[mask] if mask.any() else image
    bottom, top = (float(value) for value in np.percentile(inside, _PERCENTILES))
    headroom = _HEADROOM * (top - bottom)
    low, high = bottom - headroom, top + headroom
    if not high > low:
        return low, low + 1.0
    white, cortex = (image[tissue(dseg, label_set, name)] for name in (WHITE, GREY))
    if min(len(white), len(cortex)) < _LEAST_VOXELS:
        return low, high
    middle = float(np.median(cortex))
    step = float(np.median(white)) - middle
    spread = float(np.ptp(np.percentile(np.concatenate((white, cortex)), _MOST_OF_BOTH)))
    width = max(step / _STEP, spread)
    if step <= 0 or width >= high - low:
        return low, high
    return middle - _CORTEX_AT * width, middle + (1 - _CORTEX_AT) * width
