"""Scans of a cohort that stand out: robust z-scores of many measures, with one limit.

The largest of some 70 scores is large even in good scans. How large depends on the size of the
cohort, on the tails of the distributions and on the correlation of the measures. So the limit
isn't fixed but estimated from the cohort's own largest scores: about 5 % of good scans are beyond
it, in cohorts of 8 people or more (`benchmarks/outliers.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from hetseg_bids.quality.robust import robust_sds

LEAST_PEOPLE = 8
_WORST = 3  # measures that are named
# A log robust SD of n normal values has a variance of about this / n.
_LOG_SD_VARIANCE = 1.5
_LEAST_TO_SHARE = 6  # measures of one kind that are needed to estimate the usual spread
# Of log scores: distance from median to 95th percentile, divided by that from median to 80th. It
# is 1.9 to 2.2 for the largest of 20 to 90 |z| with normal to heavy tails (t, 5 degrees of
# freedom); _MORE_STEPS allows for the errors of both percentiles in small cohorts.
_BULK = 0.8
_STEPS, _MORE_STEPS = 2.1, 3.0
_LEAST_LIMIT = 3.0  # of |z|, for models with very few structures


@dataclass(frozen=True)
class Measure:
    """One number per scan.

    Attributes
    ----------
    title : str
        As shown to users, e.g. ``Left putamen volume``.
    values : (scans,) float array
        NaN where a scan has none.
    kind : str
        Measures of one kind have similar spreads, in the same unit.
    suspicious : {"both", "low", "high"}
        Which values can stand out: those below the median, above it, or both.
    """

    title: str
    values: npt.NDArray[np.float64]
    kind: str
    suspicious: Literal["both", "low", "high"] = "both"


@dataclass(frozen=True)
class Outlier:
    """How far a scan stands out.

    Attributes
    ----------
    score : float
        Its largest robust |z| as a share of the cohort's limit: scans above 1 stand out. NaN if
        the cohort is too small.
    why : tuple of str
        The measures beyond the limit, worst first, three at most.
    """

    score: float
    why: tuple[str, ...]


def robust_z(
    values: npt.NDArray[np.float64], kinds: Sequence[str], people: Sequence[str]
) -> npt.NDArray[np.float64]:
    """(x - median) / spread of every measure, over people.

    Each person counts once, with the mean of his or her scans. Spread is 1.4826 MAD, which in
    eight people may be far too small by chance: its logarithm is moved towards the mean of its
    kind, the more the larger its error is (empirical Bayes, after Smyth 2004,
    doi:10.2202/1544-6115.1027).

    Parameters
    ----------
    values : (scans, M) float array
    kinds : sequence of M str
        `Measure.kind` of each column.
    people : sequence of str
        The person of each scan.

    Returns
    -------
    z : (scans, M) float array
        NaN for a measure with numbers of fewer than 8 people or a spread of zero.

    Examples
    --------
    >>> values = np.array([[1.0], [2], [3], [4], [5], [6], [7], [100]])
    >>> z = robust_z(values, ["volume"], [f"sub-{i}" for i in range(8)])
    >>> z.shape, z[[0, -1], 0].round(1)
    ((8, 1), array([-1.2, 32.2]))
    """
    known = np.where(np.isfinite(values), values, np.nan)
    persons = pd.DataFrame(known).groupby(np.asarray(people)).mean().to_numpy()
    count = np.isfinite(persons).sum(axis=0)
    usable = count >= LEAST_PEOPLE
    z = np.full(values.shape, np.nan)
    spread = np.full(len(kinds), np.nan)
    spread[usable] = robust_sds(persons[:, usable])
    usable &= spread > 0
    if usable.any():
        kind = np.asarray(kinds)[usable]
        shared = _shared_spread(spread[usable], kind, int(count.max()))
        middle = np.nanmedian(persons[:, usable], axis=0)
        z[:, usable] = (known[:, usable] - middle) / shared
    return z


def _shared_spread(
    spread: npt.NDArray[np.float64], kinds: npt.NDArray[np.str_], people: int
) -> npt.NDArray[np.float64]:
    log = np.log(spread)
    by_chance = _LOG_SD_VARIANCE / people
    for kind in np.unique(kinds):
        same = kinds == kind
        if same.sum() >= _LEAST_TO_SHARE:
            real = max(0.0, float(log[same].var(ddof=1)) - by_chance)
            own = real / (real + by_chance)
            log[same] = own * log[same] + (1 - own) * log[same].mean()
    return np.exp(log)


def limit_of(largest: npt.NDArray[np.float64]) -> float:
    """The |z| that about 5 % of good scans exceed with their largest.

    Parameters
    ----------
    largest : (n,) float array
        The largest |z| of each person. Up to a fifth of them may come from bad scans; more bad
        scans raise the limit.

    Examples
    --------
    >>> limit_of(np.array([2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7])) < limit_of(np.full(8, 4.0))
    True
    """
    middle, bulk = np.quantile(np.log(np.maximum(largest, 1.0)), (0.5, _BULK))
    steps = _STEPS + _MORE_STEPS / len(largest)
    return max(_LEAST_LIMIT, float(np.exp(middle + steps * (bulk - middle))))


def find_outliers(measures: Sequence[Measure], people: Sequence[str]) -> list[Outlier]:
    """Score every scan on all measures.

    Parameters
    ----------
    measures : sequence of Measure
    people : sequence of str
        The person of each scan: repeated scans of one person aren't independent.

    Returns
    -------
    outliers : list of Outlier
        One per scan.

    Examples
    --------
    >>> size = np.array([1.0, 2, 3, 4, 5, 6, 7, 100])
    >>> people = [f"sub-{i}" for i in range(8)]
    >>> find_outliers([Measure("Brainstem volume", size, "volume")], people)[-1].why
    ('Brainstem volume (z = +32.2)',)
    """
    z = robust_z(np.stack([m.values for m in measures], axis=1), [m.kind for m in measures], people)
    for column, measure in zip(z.T, measures, strict=True):
        if measure.suspicious == "low":
            column[column > 0] = 0
        elif measure.suspicious == "high":
            column[column < 0] = 0
    size = np.nan_to_num(np.abs(z), nan=0.0)
    largest = np.where(np.isnan(z).all(axis=1), np.nan, size.max(axis=1))
    person = pd.Series(largest).groupby(np.asarray(people)).median().dropna().to_numpy()
    if len(person) < LEAST_PEOPLE:
        return [Outlier(float("nan"), ())] * len(largest)
    limit = limit_of(person)
    return [
        Outlier(float(worst / limit), _why(row, measures, limit) if worst > limit else ())
        for worst, row in zip(largest, z, strict=True)
    ]


def _why(z: npt.NDArray[np.float64], measures: Sequence[Measure], limit: float) -> tuple[str, ...]:
    size = np.nan_to_num(np.abs(z), nan=0.0)
    order = np.argsort(-size, kind="stable")[:_WORST]
    return tuple(f"{measures[i].title} (z = {z[i]:+.1f})" for i in order if size[i] > limit)
