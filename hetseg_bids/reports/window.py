"""The display window: which intensities are drawn black and white, from the brain alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hetseg_bids.quality.image_quality import GREY, WHITE, tissue
from hetseg_bids.structures.label_sets import LabelSet

_PERCENTILES = (0.5, 99.5)  # of the brain: fluid and vessels at its ends may vary
_HEADROOM = 0.05  # of the range between them, at both ends
_STEP = 0.32  # least distance of white matter to cortex, as a share of the window
_CORTEX_AT = 0.35  # place of cortex in a narrowed window: low, as coils brighten the brain's middle
_MOST_OF_BOTH = (5, 95)  # percentiles of both tissues that a narrowed window must hold
_LEAST_VOXELS = 1000


def display_window(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    dseg: npt.NDArray[np.uint8],
    label_set: LabelSet,
) -> tuple[float, float]:
    """Intensities to draw as black and as white.

    The window holds the brain's intensities from the 0.5th to the 99.5th percentile and a little
    more; scalp, background and single voxels don't count. If white matter and cortex would be
    drawn so alike that neither their border nor the nuclei between them could be seen, the
    window is narrowed around these two.

    Parameters
    ----------
    image : (X, Y, Z) float array
        Finite; any intensity scale that is linear.
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
