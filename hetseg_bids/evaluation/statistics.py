"""Comparison of systems: Wilcoxon signed rank tests with Holm's correction."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import wilcoxon

OVERALL = "mean_dice"
POOLED = "structures_pooled"


def wilcoxon_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Paired two-sided tests of Dice between all pairs of systems.

    Parameters
    ----------
    scores : DataFrame
        As `compare.score_systems` makes it, two systems or more.

    Returns
    -------
    table : DataFrame
        One row per measure and pair of systems: n, median of (first - second), W, p, and p after
        Holm's correction over the family.  The families are the pairs of ``mean_dice``, those of
        ``structures_pooled``, and all pairs x structures.  p is NaN where no values differ.

    Notes
    -----
    The unit is the participant: scans of a participant and runs (seeds) of a system are averaged
    first, because they aren't independent.  ``structures_pooled`` counts every structure of every
    participant, as papers often do; these aren't independent, so its p-values are too small.

    Examples
    --------
    >>> scores = pd.DataFrame({
    ...     "system": ["a"] * 6 + ["b"] * 6,
    ...     "participant": [f"sub-{i}" for i in range(6)] * 2,
    ...     "name": "thalamus",
    ...     "dice": np.linspace(0.8, 0.85, 6).tolist() + np.linspace(0.7, 0.76, 6).tolist(),
    ... })
    >>> wilcoxon_table(scores)[["measure", "first", "second", "n", "p"]].head(1)
         measure first second  n        p
    0  mean_dice     a      b  6  0.03125
    """
    dice = scores.groupby(["system", "participant", "name"], sort=False)["dice"].mean()
    wide = dice.unstack("system")[list(scores["system"].unique())]
    overall = wide.groupby("participant").mean()
    families = [
        {OVERALL: overall},
        {POOLED: wide},
        {name: _structure(wide, name) for name in dict.fromkeys(scores["name"])},
    ]
    return pd.concat([_family(measures) for measures in families], ignore_index=True)


def holm(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm's step-down adjustment (Holm 1979); NaN stays NaN and isn't counted.

    Parameters
    ----------
    p : (m,) float array

    Returns
    -------
    adjusted : (m,) float array
        In 0..1, in the order of `p`.

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03, np.nan]))
    array([0.03, 0.06, 0.06,  nan])
    """
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)
    order = order[~np.isnan(p[order])]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def _structure(wide: pd.DataFrame, name: str) -> pd.DataFrame:
    return wide[wide.index.get_level_values("name") == name]


def _family(measures: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = []
    for measure, table in measures.items():
        for first, second in combinations(table.columns, 2):
            both = table[[first, second]].dropna()
            rows.append(
                {"measure": measure, "first": first, "second": second}
                | _test((both[first] - both[second]).to_numpy())
            )
    family = pd.DataFrame(rows)
    family["p_holm"] = holm(family["p"].to_numpy(dtype=float))
    return family


def _test(difference: npt.NDArray[np.float64]) -> dict[str, float]:
    facts = {"n": len(difference), "median_difference": float(np.median(difference))}
    if not np.any(difference):
        return facts | {"statistic": float("nan"), "p": float("nan")}
    result = wilcoxon(difference)
    return facts | {"statistic": float(result.statistic), "p": float(result.pvalue)}
