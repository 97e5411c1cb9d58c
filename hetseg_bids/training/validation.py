"""Dice on scans that aren't trained on, measured during a run (the paper's Fig. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import functional_call

from hetseg_bids.errors import DatasetError
from hetseg_bids.files import write_tsv
from hetseg_bids.network.architecture import HetsegNet, StackDepth
from hetseg_bids.network.devices import autocast
from hetseg_bids.planes import PLANES
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.training.augmentation import StackTransform
from hetseg_bids.training.paired import PairedSource
from hetseg_bids.training.samples import Cut, resample_stacks
from hetseg_bids.training.volumes import LabelledVolume

VALIDATION_NAME = "validation.tsv"
_STACKS_PER_VIEW = 16
_BATCH = 8
_DIGITS = 5
_AS_IT_IS = StackTransform(np.eye(3), False, np.zeros(2), 1.0, 0.0)


@dataclass(frozen=True)
class ValidationScan:
    """Evenly spaced stacks of one scan, all three planes.

    Attributes
    ----------
    participant : str
    images : (N, 1, D, H, W) float16 tensor
    labels : (N, H, W) uint8 tensor
        aseg ids of the middle slice.
    """

    participant: str
    images: Tensor
    labels: Tensor


def read_validation_scans(
    folder: Path, patch: tuple[int, int], slices: int
) -> list[ValidationScan]:
    """Cut the validation stacks of a folder of T1w + dseg pairs.

    Raises
    ------
    DatasetError
        If there is no pair, or one without any label.
    ImageError, MaskError
        If one can't be used.
    """
    source = PairedSource(folder)
    scans = []
    for pair, volume in zip(source.pairs, source.volumes(), strict=True):
        if not volume.labels.any():
            raise DatasetError("no label in it", "leave that scan out", path=pair.dseg)
        name = pair.t1w.name.split("_T1w")[0]
        scans.append(ValidationScan(name, *even_stacks(volume, patch, slices)))
    return scans


def even_stacks(
    volume: LabelledVolume, patch: tuple[int, int], slices: int = StackDepth.slices
) -> tuple[Tensor, Tensor]:
    """Images and labels of evenly spaced stacks, 16 per plane: see `ValidationScan`."""
    cuts = []
    for plane in PLANES.values():
        axis = plane.axes[0]
        filled = np.flatnonzero(volume.presence[axis][:, 1:].any(axis=1))
        for place in np.linspace(filled[0], filled[-1], _STACKS_PER_VIEW + 2)[1:-1]:
            centre = (np.array(volume.labels.shape) - 1) / 2
            centre[axis] = round(place)
            cuts.append(Cut(plane, centre, _AS_IT_IS))
    block = resample_stacks(volume, cuts, patch, depth=StackDepth(slices))
    return block.images, block.labels[:, 0]


@torch.no_grad()
def structure_dice(
    network: HetsegNet,
    weights: Mapping[str, Tensor],
    scan: ValidationScan,
    label_set: LabelSet,
    *,
    amp: bool,
) -> dict[str, float]:
    """Dice of each structure's and part's binary task over all stacks of a scan.

    Parameters
    ----------
    network : HetsegNet
    weights : mapping of str to tensor
        Used instead of the network's own.
    scan : ValidationScan
    label_set : LabelSet
    amp : bool
        bfloat16 autocast.

    Returns
    -------
    dice : dict of str to float, by name
        NaN where neither has the structure. Parts that the labels lack are left out: labels
        without a part say nothing of it.
    """
    told = torch.tensor([t not in label_set.auxiliary for t in label_set.tasks])
    names = (*label_set.names, *(part.name for part in label_set.parts))
    device = next(iter(weights.values())).device
    membership = torch.from_numpy(label_set.membership())[:, told].to(device)
    tasks = len(label_set.tasks)
    overlap = torch.zeros(len(names), device=device)
    size = torch.zeros(len(names), device=device)
    found = torch.zeros(len(names), device=device)
    for images, labels in zip(scan.images.split(_BATCH), scan.labels.split(_BATCH), strict=True):
        with autocast(device, enabled=None if amp else False):
            output = functional_call(network, dict(weights), (images.to(device).float(),))
        says = output[:, :tasks][:, told] > 0
        truth = membership[labels.to(device).int()].permute(0, 3, 1, 2)
        overlap += (says & truth).sum(dim=(0, 2, 3))
        size += says.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
        found += truth.sum(dim=(0, 2, 3))
    dice = dict(zip(names, (2 * overlap / size).tolist(), strict=True))
    lacking = {n for n, size in zip(names, found.tolist(), strict=True) if not size}
    return {n: d for n, d in dice.items() if n in label_set.names or n not in lacking}


class ValidationLog:
    """``validation.tsv`` of a run: samples, participant, name, dice.

    Parameters
    ----------
    path : Path
    seen : int
        Samples that the run has seen: later rows are dropped, as their steps come again.
    """

    def __init__(self, path: Path, seen: int) -> None:
        self.path = path
        self._rows: list[dict[str, object]] = []
        if path.exists():
            table = pd.read_csv(path, sep="\t", na_values="n/a")
            self._rows = table[table["samples"] <= seen].to_dict("records")

    def add(self, samples: int, participant: str, dice: Mapping[str, float]) -> None:
        """Append a scan's figures, by structure name."""
        for name, value in dice.items():
            row = {"samples": samples, "participant": participant, "name": name}
            self._rows.append({**row, "dice": round(value, _DIGITS)})

    def save(self) -> None:
        """Write the whole table, atomically."""
        write_tsv(self.path, pd.DataFrame(self._rows))
