"""Spread that a few wild values don't move."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MAD_TO_SD = 1.4826  # of a normal distribution


def robust_sd(values: npt.NDArray[np.floating]) -> float:
    """1.4826 times the median absolute deviation from the median.

    Parameters
    ----------
    values : float array
    """
    return float(_MAD_TO_SD * np.median(np.abs(values - np.median(values))))
