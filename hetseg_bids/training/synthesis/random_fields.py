"""Smooth random fields, from which deformations, bias, texture and label noise are made."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hetseg_bids.preprocessing.transfer import CPU


def smooth_field(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    spacing: float,
    channels: int = 1,
    device: torch.device = CPU,
) -> Tensor:
    """A random field that varies over about `spacing` voxels.

    Normal values on a coarse lattice, interpolated linearly; the standard deviation
    is one at the lattice points.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of 3 int
        Size of the field in voxels.
    spacing : float
        Distance between lattice points in voxels.
    channels : int
        Independent fields to draw.
    device : torch.device
        Where to interpolate; the lattice is the same on all.

    Returns
    -------
    field : (channels, *shape) float32 tensor

    Examples
    --------
    >>> smooth_field(np.random.default_rng(0), (16, 20, 24), spacing=8, channels=3).shape
    torch.Size([3, 16, 20, 24])
    """
    lattice = tuple(max(2, round(size / spacing) + 1) for size in shape)
    values = torch.from_numpy(rng.standard_normal((1, channels, *lattice), dtype=np.float32))
    values = values.to(device)
    field = functional.interpolate(values, size=shape, mode="trilinear", align_corners=True)
    return field[0]


def white_noise(
    rng: np.random.Generator, shape: tuple[int, ...], device: torch.device = CPU
) -> Tensor:
    """Independent standard normal values; a GPU's differ from a CPU's.

    For millions of values numpy takes longer than a GPU for a whole volume.
    """
    if device.type == "cpu":
        return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    return torch.randn(shape, generator=generator, device=device)


def gaussian_blur(volume: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    """Blur a (X, Y, Z) volume with a Gaussian of `sigma` voxels along each axis.

    Examples
    --------
    >>> volume = torch.zeros(5, 1, 1)
    >>> volume[2] = 1
    >>> gaussian_blur(volume, (0.5, 0, 0)).flatten().numpy().round(2)
    array([0.  , 0.11, 0.79, 0.11, 0.  ], dtype=float32)
    """
    for axis, width in enumerate(sigma):
        if width < 0.15:
            continue
        radius = max(1, int(np.ceil(2.5 * width)))
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
        taps /= taps.sum()
        volume = _convolve(volume, axis, taps)
    return volume


def _convolve(volume: Tensor, axis: int, taps: np.ndarray) -> Tensor:
    radius = len(taps) // 2
    size = volume.shape[axis]
    out = volume * float(taps[radius])
    for offset in range(1, radius + 1):
        weight = float(taps[radius + offset])
        length = size - offset
        out.narrow(axis, 0, length).add_(volume.narrow(axis, offset, length), alpha=weight)
        out.narrow(axis, offset, length).add_(volume.narrow(axis, 0, length), alpha=weight)
        # replicate the border, as an image goes on beyond the field of view
        for i in range(offset):
            out.select(axis, i).add_(volume.select(axis, 0), alpha=weight)
            out.select(axis, size - 1 - i).add_(volume.select(axis, size - 1), alpha=weight)
    return out
