"""How well a system forecasts its disagreement with labels of known noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from noise import LEVELS
from scipy import ndimage
from torch import Tensor

from hetseg_bids.inference import Logits
from hetseg_bids.structures import STRUCTURES
from hetseg_bids.training.label_noise import weaken
from hetseg_bids.uncertainty import flip_map

BINS = np.linspace(0, 0.5, 16)
_DRAWS = 32
_BAND = 2  # voxels on both sides of the true boundary
_SEED = 7


def forecast_of(logits: Logits) -> Tensor:
    """Each system's own probability that its label is wrong, (28, x, y, z).

    Plain networks have no second map: theirs is min(p, 1 - p).
    """
    if logits.second is None:
        return torch.sigmoid(-logits.label.abs())
    return flip_map(logits.system, logits.label, logits.second)


def reliability(
    says: Tensor, forecast: Tensor, truth: Tensor, box: tuple[slice, slice, slice], level: str
) -> pd.DataFrame:
    """Counts, mean forecast and true rate in bins of the forecast.

    Parameters
    ----------
    says : (28, x, y, z) bool tensor
        The system's labels, in `box`.
    forecast : (28, x, y, z) float tensor
    truth : (X, Y, Z) uint8 tensor
        Clean aseg ids.
    box : tuple of 3 slice
    level : str
        Key of `noise.LEVELS`.

    Returns
    -------
    table : DataFrame
        A row a structure, region (brain or band) and bin: voxels, forecast and rate summed.
    """
    noisy = noisy_rates(truth, level)[(slice(None), *box)]
    clean = truth[box].numpy()
    rows = []
    for i, structure in enumerate(STRUCTURES):
        mask = np.isin(clean, structure.members)
        rate = np.where(says[i].numpy(), 1 - noisy[i], noisy[i])
        grown = ndimage.binary_dilation(mask, iterations=_BAND)
        band = grown & ~ndimage.binary_erosion(mask, iterations=_BAND)
        for region, inside in (("brain", clean > 0), ("band", band)):
            q, z = forecast[i].numpy()[inside], rate[inside]
            index = np.clip(np.digitize(q, BINS) - 1, 0, len(BINS) - 2)
            sums = [np.bincount(index, w, minlength=len(BINS) - 1) for w in (None, q, z)]
            for number, (count, forecasts, rates) in enumerate(zip(*sums, strict=True)):
                if count:
                    rows.append((structure.name, region, number, int(count), forecasts, rates))
    columns = ["name", "region", "bin", "voxels", "forecast_sum", "rate_sum"]
    return pd.DataFrame(rows, columns=columns)


def noisy_rates(truth: Tensor, level: str) -> np.ndarray:
    """How often corrupted labels show each structure at each voxel: (28, X, Y, Z), Monte Carlo."""
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
    return counts.astype(np.float32) / _DRAWS
