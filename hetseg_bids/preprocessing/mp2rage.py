"""The uniform image of an MP2RAGE (UNIT1): noise of full strength where there is no signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hetseg_bids.dataset.names import UNIT1

# Local noise as a share of the image's range: in two simulated images 0.25 to 0.32 in air, at most
# 0.10 in 99 % of the brain, borders of tissue included
_QUIET, _LOUD = 0.12, 0.20
_RANGE = (0.5, 99.5)  # percentiles
_MEAN, _LEVEL = 3, 5  # edges of the cubes for a voxel's surroundings and for the noise level


def is_unit1(path: Path) -> bool:
    """Whether a file is named as a UNIT1 image.

    Examples
    --------
    >>> is_unit1(Path("sub-01_UNIT1.nii.gz")), is_unit1(Path("sub-01_T1w.nii.gz"))
    (True, False)
    """
    return path.name.split(".")[0].endswith(f"_{UNIT1}")


def darken_noise(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The image with air as dark as in a T1w, for brain extraction and the head model.

    A voxel of a UNIT1 is a ratio of two images. Where both hold noise, it takes any value from
    black to white, and its neighbours take others. So the level of the noise around each voxel
    says whether there is signal. An image whose air is dark already hardly changes.

    Parameters
    ----------
    image : (X, Y, Z) float32 array
        On the grid of the scan: interpolation would smooth the noise.

    Returns
    -------
    darkened : (X, Y, Z) float32 array
        0 for the darkest and about 1 for the brightest values, 0 in noise.

    Notes
    -----
    The robust combination of O'Brien et al. 2014 needs the images of both inversions, which many
    datasets do not keep. The mask was as good without it (docs/outputs.md, MP2RAGE).

    Examples
    --------
    >>> noise = np.random.default_rng(0).uniform(0, 4095, (20, 20, 20)).astype(np.float32)
    >>> noise[6:14, 6:14, 6:14] = 3000  # tissue
    >>> darkened = darken_noise(noise)
    >>> float(darkened[0, 0, 0]), round(float(darkened[10, 10, 10]), 1)
    (0.0, 0.7)
    """
    low, high = np.percentile(image, _RANGE)
    scaled = (image - np.float32(low)) / np.float32(high - low)
    rest = scaled - ndimage.uniform_filter(scaled, _MEAN)
    level = np.sqrt(ndimage.uniform_filter(rest * rest, _LEVEL).clip(0))
    signal = ((_LOUD - level) / (_LOUD - _QUIET)).clip(0, 1)
    return np.asarray(scaled.clip(0) * signal, dtype=np.float32)
