"""Volumes with error bars in a statistical model.

    python docs/examples/error_bars.py [GROUP_MORPH_TSV PARTICIPANTS_TSV COLUMN STRUCTURE]

Regresses a structure's volume on a column of participants.tsv (say, age) in three ways, and that
column on the volume in two. Without arguments it makes a cohort whose truth is known.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

SLOPE, PER_ML = -25.0, -1.2  # truth of the simulated cohort: mm3 a year, score points a ml


def main(arguments: list[str]) -> dict[str, float]:
    """Print the estimates and return them."""
    data = read(*arguments) if arguments else simulate(np.random.default_rng(7))
    x, volume, sd = (data[c].to_numpy(float) for c in ("x", "volume_mm3", "volume_sd_mm3"))
    sure = sd <= np.quantile(sd, 0.9)  # exclusion: the least certain tenth
    estimates = {
        "volume on x, ordinary": slope(x, volume, np.ones_like(x)),
        "volume on x, least certain left out": slope(x[sure], volume[sure], np.ones(sure.sum())),
        "volume on x, weighted": weighted_slope(x, volume, sd),
    }
    if "score" in data:
        score = data["score"].to_numpy(float)
        naive = slope(volume, score, np.ones_like(x))
        estimates["score on volume, ordinary"] = naive
        estimates["score on volume, error in variables"] = naive / reliability(volume, sd)
    for name, value in estimates.items():
        print(f"{name}: {value:.5g}")
    return estimates


def slope(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Weighted least squares with an intercept."""
    x = x - np.average(x, weights=weight)
    return float((weight * x * y).sum() / (weight * x * x).sum())


def weighted_slope(x: np.ndarray, y: np.ndarray, sd: np.ndarray) -> float:
    """Weights 1 / (variance between people + the scan's own variance), in two rounds.

    1 / sd^2 alone would forget that people differ: a tiny error bar makes nobody two people.
    """
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    between = max(0.0, residual.var(ddof=2) - (sd**2).mean())
    return slope(x, y, 1 / (between + sd**2))


def reliability(volume: np.ndarray, sd: np.ndarray) -> float:
    """Share of the observed variance that isn't measurement error.

    Error in a predictor pulls its slope to zero by this factor (Fuller, Measurement Error Models,
    1987, section 1.1), so that dividing by it undoes the pull.
    """
    observed = volume.var(ddof=1)
    return float(max(0.05, (observed - (sd**2).mean()) / observed))


def simulate(rng: np.random.Generator, n: int = 2000) -> pd.DataFrame:
    """A cohort measured with errors that differ from scan to scan."""
    age = rng.uniform(20, 80, n)
    true = 8000 + SLOPE * (age - 50) + rng.normal(0, 400, n)
    sd = rng.choice([100.0, 300.0, 1200.0], n, p=[0.6, 0.3, 0.1])
    measured = true + rng.normal(0, 1, n) * sd
    score = 100 + PER_ML * true / 1000 + rng.normal(0, 1, n)
    return pd.DataFrame({"x": age, "volume_mm3": measured, "volume_sd_mm3": sd, "score": score})


def read(morph: str, participants: str, column: str, structure: str) -> pd.DataFrame:
    """Join OUT/group_morph.tsv with participants.tsv."""
    volumes = pd.read_csv(morph, sep="\t", na_values="n/a", dtype={"participant_id": str})
    people = pd.read_csv(participants, sep="\t", na_values="n/a", dtype={"participant_id": str})
    rows = volumes[volumes["name"] == structure].merge(people, on="participant_id")
    return rows.assign(x=rows[column]).dropna(subset=["x", "volume_mm3", "volume_sd_mm3"])


if __name__ == "__main__":
    main(sys.argv[1:])
