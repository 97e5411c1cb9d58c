"""Smoothing of images before the network and of logits after it."""

from __future__ import annotations

import torch
from torch import Tensor

from hetseg_bids.preprocessing.normalisation import BACKGROUND

_NEIGHBOUR = 0.125  # weight: a standard deviation of half a voxel

SMOOTHED = 2 * _NEIGHBOUR
"""Variance of `smooth_` along each axis, voxels squared."""


def soften(image: Tensor, times: int) -> Tensor:
    """Smooth the image some times, but not its background.

    Networks trained on synthetic scans then label real ones a little better (measured, but not
    explained: docs/decisions.md, 30).

    Parameters
    ----------
    image : (x, y, z) float32 tensor
        Standard scores.
    times : int

    Returns
    -------
    softened : (x, y, z) float32 tensor

    Examples
    --------
    >>> image = torch.zeros(3, 1, 1)
    >>> image[1] = 8
    >>> soften(image, 1).flatten()  # 1:6:1
    tensor([1., 6., 1.])
    """
    softened = image[None].clone()
    for _ in range(times):
        smooth_(softened)
    return torch.where(image == BACKGROUND, image, softened[0])


def smooth_(volumes: Tensor, shares: Tensor | None = None) -> None:
    """Mix each voxel with its neighbours, 1:6:1 along each axis.

    The network labels each slice by itself, so borders of the logits are rougher than anatomy.

    Parameters
    ----------
    volumes : (S, x, y, z) float32 tensor
        Logits, or an image; changes.
    shares : (S, 3) float32 tensor, optional
        Of the neighbours' weight that counts along each axis, 0-1; 1 without it.

    Examples
    --------
    >>> volumes = torch.zeros(2, 3, 1, 1)
    >>> volumes[:, 1] = 8
    >>> smooth_(volumes, torch.tensor([[1.0, 1, 1], [0.5, 1, 1]]))
    >>> volumes.view(2, 3)
    tensor([[1.0000, 6.0000, 1.0000],
            [0.5000, 7.0000, 0.5000]])
    """
    if shares is None:
        shares = torch.ones(len(volumes), 3)
    weights = (_NEIGHBOUR * shares).to(volumes.device)[:, :, None, None, None]
    for axis, across in ((1, 2), (2, 1), (3, 1)):
        weight = weights[:, axis - 1]
        if not weight.any():
            continue
        for piece in volumes.split(1, across):  # a slice at a time stays in the cache
            step = piece.diff(dim=axis).mul_(weight)
            size = piece.shape[axis]
            piece.narrow(axis, 0, size - 1).add_(step)
            piece.narrow(axis, 1, size - 1).sub_(step)
