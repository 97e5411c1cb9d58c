"""How well a system forecasts its disagreement with labels of known noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from noise import LEVELS
from torch import Tensor

from hetseg_bids.evaluation.metrics import boundary_band
from hetseg_bids.files import atomic_path
from hetseg_bids.segmentation.inference import Logits
from hetseg_bids.structures.aseg import STRUCTURES
from hetseg_bids.training.synthesis.label_noise import weaken

BINS = np.linspace(0, 0.5, 16)
_DRAWS = 8
_BAND = 2  # voxels on both sides of the true boundary
_SEED = 7


def forecast_of(logits: Logits) -> Tensor:
    """Each system's own probability that its label is wrong, (28, x, y, z).

    Plain networks have no second map: theirs is min(p, 1 - p).
    """
    if logits.second_output is None or logits.system is None:
        return torch.sigmoid(-logits.label.abs())
    return logits.system.flip_probability(logits.label, logits.second_output)


def reliability(
    says: Tensor, forecast: Tensor, clean: np.ndarray, noisy: np.ndarray
) -> pd.DataFrame:
    """Counts, mean forecast and true rate in bins of the forecast.

    Parameters
    ----------
    says : (28, x, y, z) bool tensor
        The system's labels.
    forecast : (28, x, y, z) float tensor
    clean : (x, y, z) uint8 array
        True aseg ids.
    noisy : (28, x, y, z) float array
        See `noisy_rates`.

    Returns
    -------
    table : DataFrame
        One row per structure, region (brain or band) and bin: voxels, forecast and rate summed.
    """
    brain = clean > 0
    rows = []
    for i, structure in enumerate(STRUCTURES):
        mask = np.isin(clean, structure.members)
        box, band = boundary_band(mask, _BAND)
        wrong = np.where(says[i].numpy(), 1 - noisy[i], noisy[i])
        q = forecast[i].numpy()
        for region, forecasts, rates in (
            ("brain", q[brain], wrong[brain]),
            ("band", q[box][band], wrong[box][band]),
        ):
            index = np.clip(np.digitize(forecasts, BINS) - 1, 0, len(BINS) - 2)
            sums = [np.bincount(index, w, len(BINS) - 1) for w in (None, forecasts, rates)]
            for number, (count, *totals) in enumerate(zip(*sums, strict=True)):
                if count:
                    rows.append((structure.name, region, number, int(count), *totals))
    columns = ["name", "region", "bin", "voxels", "forecast_sum", "rate_sum"]
    return pd.DataFrame(rows, columns=columns)


def noisy_rates(truth: Tensor, level: str, kept: Path) -> np.ndarray:
    """How often corrupted labels show each structure at each voxel: (28, X, Y, Z), Monte Carlo.

    The same for every system: drawn once, then read from the .npz file `kept`.
    """
    if not kept.exists():
        with atomic_path(kept) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, counts=draw_counts(truth, level))
    with np.load(kept) as stored:
        return stored["counts"].astype(np.float32) / _DRAWS


def draw_counts(truth: Tensor, level: str) -> np.ndarray:
    """Of `_DRAWS` corrupted copies, how many show each structure at each voxel."""
    rng = np.random.default_rng(_SEED)
    counts = np.zeros((len(STRUCTURES), *truth.shape), np.uint8)
    table = np.full(256, len(STRUCTURES), np.int64)
    for i, structure in enumerate(STRUCTURES):
        table[list(structure.members)] = i
    voxels = np.arange(truth.numel())
    for _ in range(_DRAWS):
        index = table[weaken(rng, truth, LEVELS[level]).numpy().ravel()]
        shown = index < len(STRUCTURES)
        counts.reshape(len(STRUCTURES), -1)[index[shown], voxels[shown]] += 1
    return counts
