"""Standard deviations that a few extreme values don't change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MAD_TO_SD = 1.4826  # of a normal distribution


def robust_sd(values: npt.NDArray[np.floating]) -> float:
    """1.4826 times the median absolute deviation from the median.

    Parameters
    ----------
    values : float array

    Examples
    --------
    >>> robust_sd(np.array([1.0, 2, 3, 4, 1000]))
    1.4826
    """
    return float(_MAD_TO_SD * np.median(np.abs(values - np.median(values))))


def robust_sds(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """`robust_sd` of each column, without NaN.

    Parameters
    ----------
    values : (n, M) float array
        Each column must have a number.

    Returns
    -------
    deviations : (M,) float64 array

    Examples
    --------
    >>> robust_sds(np.array([[1.0, 10], [2, 20], [3, np.nan]]))
    array([1.4826, 7.413 ])
    """
    deviation = np.abs(values - np.nanmedian(values, axis=0))
    return np.asarray(_MAD_TO_SD * np.nanmedian(deviation, axis=0), np.float64)
