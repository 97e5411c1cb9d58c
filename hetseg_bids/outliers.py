"""Which scans of a cohort stand out: robust z-scores of volume, asymmetry and expected Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hetseg_bids.robust import robust_sd

LIMIT = 3.5  # Iglewicz & Hoaglin 1993
_LEAST_SCANS = 8
_WORST = 3


@dataclass(frozen=True)
class Measure:
    """One number a scan.

    Attributes
    ----------
    title : str
        For people, e.g. ``Left putamen volume``.
    values : (scans,) float array
        NaN where a scan has none.
    suspicious : {"both", "low", "high"}
        Values that stand out.
    """

    title: str
    values: npt.NDArray[np.float64]
    suspicious: Literal["both", "low", "high"] = "both"


@dataclass(frozen=True)
class Outlier:
    """How far a scan stands out.

    Attributes
    ----------
    score : float
        Its largest robust |z|; NaN if the cohort is too small to tell.
    why : tuple of str
        The measures beyond `LIMIT`, worst first, three at most.
    """

    score: float
    why: tuple[str, ...]


def robust_z(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(x - median) / (1.4826 MAD), NaN where it can't be told.

    Parameters
    ----------
    values : (n,) float array

    Returns
    -------
    z : (n,) float array
        All NaN with fewer than 8 numbers or a MAD of zero.
    """
    known = values[np.isfinite(values)]
    if len(known) < _LEAST_SCANS:
        return np.full(len(values), np.nan)
    middle = np.median(known)
    spread = robust_sd(known)
    if not spread > 0:
        return np.full(len(values), np.nan)
    return np.where(np.isfinite(values), (values - middle) / spread, np.nan)


def find_outliers(measures: list[Measure]) -> list[Outlier]:
    """Score every scan on all measures."""
    z = np.stack([robust_z(m.values) for m in measures])
    for row, measure in zip(z, measures, strict=True):
        if measure.suspicious == "low":
            row[row > 0] = 0
        elif measure.suspicious == "high":
            row[row < 0] = 0
    return [_outlier(z[:, scan], measures) for scan in range(z.shape[1])]


def _outlier(z: npt.NDArray[np.float64], measures: list[Measure]) -> Outlier:
    size = np.abs(z)
    if np.isnan(size).all():
        return Outlier(float("nan"), ())
    order = np.argsort(-np.nan_to_num(size, nan=-1.0))[:_WORST]
    why = tuple(f"{measures[i].title} (z = {z[i]:+.1f})" for i in order if size[i] > LIMIT)
    return Outlier(float(np.nanmax(size)), why)
