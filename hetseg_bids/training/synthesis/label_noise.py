"""Weakened labels: the known noise from which the network learns its flip map.

Design section 2: the boundaries of each structure move smoothly, and a few places are completely
wrong (sporadic errors).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hetseg_bids.structures.aseg import ASEG, STRUCTURES
from hetseg_bids.training.synthesis.random_fields import smooth_field

_MIRRORED = ASEG.mirror_labels()
_CORTEX_AND_LARGER = (2, 41, 3, 42, 7, 8, 46, 47)
_SMALL = tuple(i for s in STRUCTURES for i in s.members if i not in _CORTEX_AND_LARGER)
_SMALL_LATERAL = tuple(s.label for s in STRUCTURES if s.hemisphere and s.label in _SMALL)


@dataclass(frozen=True)
class LabelNoiseConfig:
    """How far labels are weakened.

    Attributes
    ----------
    jitter : tuple of 2 float
        Range of the standard deviation by which boundaries move, voxels; drawn for each structure.
        Up to 0.9 voxels closed many sulci, and the network learned a cortex that is too large.
    correlation : float
        Distance over which the displacement changes, voxels.
    sporadic_rate : float
        Expected number of wrong blobs per volume.
    sporadic_radius : tuple of 2 float
        Their radius in voxels.
    missing_rate : float
        Probability that a volume lacks one whole structure.
    swap_rate : float
        Probability that a volume has the two sides of one structure exchanged.
    """

    jitter: tuple[float, float] = (0.0, 0.5)
    correlation: float = 7.0
    sporadic_rate: float = 0.7
    sporadic_radius: tuple[float, float] = (3.0, 8.0)
    missing_rate: float = 0.03
    swap_rate: float = 0.0


CLEAN = LabelNoiseConfig(jitter=(0.0, 0.0), sporadic_rate=0.0, missing_rate=0.0)
"""No noise."""


def weaken(rng: np.random.Generator, labels: Tensor, config: LabelNoiseConfig) -> Tensor:
    """A corrupted copy of a label map.

    Parameters
    ----------
    rng : numpy.random.Generator
    labels : (X, Y, Z) uint8 tensor
        aseg ids.
    config : LabelNoiseConfig

    Returns
    -------
    weak : (X, Y, Z) uint8 tensor

    Examples
    --------
    >>> labels = torch.zeros(16, 16, 16, dtype=torch.uint8)
    >>> labels[4:12, 4:12, 4:12] = 10
    >>> bool((weaken(np.random.default_rng(0), labels, CLEAN) == labels).all())
    True
    """
    weak = displace(rng, labels, config)
    add_sporadic_errors_(rng, weak, config)
    return weak


def add_sporadic_errors_(
    rng: np.random.Generator, labels: Tensor, config: LabelNoiseConfig
) -> None:
    """The part of `weaken` that isn't boundaries: blobs, a lost structure, swapped sides."""
    for _ in range(rng.poisson(config.sporadic_rate)):
        _add_blob_(rng, labels, config.sporadic_radius)
    if rng.random() < config.missing_rate:
        labels[labels == int(rng.choice(_SMALL))] = 0
    if config.swap_rate and rng.random() < config.swap_rate:
        here = int(rng.choice(_SMALL_LATERAL))
        there = int(_MIRRORED[here])
        left, right = labels == here, labels == there
        labels[left], labels[right] = there, here


def displace(rng: np.random.Generator, labels: Tensor, config: LabelNoiseConfig) -> Tensor:
    """The boundary part of `weaken`: weak(x) = label(x + s[label(x)] field(x)).

    Parameters
    ----------
    rng : numpy.random.Generator
    labels : (X, Y, Z) uint8 tensor
        aseg ids.
    config : LabelNoiseConfig
        Its `jitter` and `correlation`.

    Returns
    -------
    weak : (X, Y, Z) uint8 tensor

    Examples
    --------
    >>> labels = torch.zeros(16, 16, 16, dtype=torch.uint8)
    >>> labels[4:12, 4:12, 4:12] = 10
    >>> weak = displace(np.random.default_rng(0), labels, LabelNoiseConfig(jitter=(0.5, 0.5)))
    >>> weak.unique(), bool((weak == labels).all())
    (tensor([ 0, 10], dtype=torch.uint8), False)
    """
    device = labels.device
    scale = torch.from_numpy(rng.uniform(*config.jitter, 256).astype(np.float32)).to(device)
    shape = tuple(labels.shape)
    index = labels.to(torch.int32)
    strength = scale[index]
    flat = torch.zeros(shape, dtype=torch.int32, device=device)
    for axis, size in enumerate(shape):
        field = smooth_field(rng, shape, config.correlation, device=device)[0]
        view = [1, 1, 1]
        view[axis] = size
        position = torch.arange(size, dtype=torch.int32, device=device).view(view)
        shift = field.mul_(strength).round_().to(torch.int32)
        flat.mul_(size).add_(shift.add_(position).clamp_(0, size - 1))
    return labels.view(-1)[flat.view(-1)].view(shape)


def _add_blob_(rng: np.random.Generator, labels: Tensor, radius: tuple[float, float]) -> None:
    """Inside a ball, turn one structure into its neighbour, background or other side."""
    structure = STRUCTURES[rng.integers(len(STRUCTURES))]
    places = torch.nonzero(labels == structure.label)
    if not len(places):
        return
    centre = places[rng.integers(len(places))].tolist()
    r = rng.uniform(*radius)
    low = [max(0, int(c - r)) for c in centre]
    high = [min(n, int(c + r) + 2) for c, n in zip(centre, labels.shape, strict=True)]
    box = labels[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    axes = [
        torch.arange(a, b, device=labels.device) - c
        for a, b, c in zip(low, high, centre, strict=True)
    ]
    dx, dy, dz = torch.meshgrid(*axes, indexing="ij")
    inside = (dx * dx + dy * dy + dz * dz <= r * r) & (box == structure.label)
    kind = rng.integers(3)
    if kind == 0:
        target = 0
    elif kind == 1:
        target = int(_MIRRORED[structure.label])
    else:
        others = box[box != structure.label]
        target = int(others[rng.integers(len(others))]) if len(others) else 0
    box[inside] = target
