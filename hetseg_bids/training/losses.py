"""The loss that all systems share; their own ones are in `network.systems`."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_dice_loss(
    logits: Tensor, labels: Tensor, kept: Tensor | None = None, smooth: float = 1.0
) -> Tensor:
    """1 - soft Dice, mean over the tasks present in the batch.

    Parameters
    ----------
    logits, labels : (B, T, H, W) tensors
        Labels of 0 or 1.
    kept : (B, T, H, W) float tensor, optional
        0 where a label is left out.
    smooth : float
        Added to both sides of the fraction, in pixels.

    Returns
    -------
    loss : scalar tensor
        Zero if no task is present.

    Examples
    --------
    >>> labels = torch.tensor([1.0, 0]).view(1, 1, 1, 2)
    >>> soft_dice_loss(20 * labels - 10, labels) < 0.01
    tensor(True)
    """
    p = torch.sigmoid(logits)
    if kept is not None:
        p, labels = p * kept, labels * kept
    overlap = (p * labels).sum(dim=(0, 2, 3))
    size = (p + labels).sum(dim=(0, 2, 3))
    present = (labels.amax(dim=(0, 2, 3)) > 0.5).to(p.dtype)
    dice = (2 * overlap + smooth) / (size + smooth)
    return ((1 - dice) * present).sum() / present.sum().clamp_min(1)
