"""Losses of the systems.

Source: McKinley et al., section 2.2 (design section 1).  Shapes: logits and targets are
(B, T, H, W) with T tasks; a heteroscedastic network gives (B, 2 T, H, W), the first half
the label logits a, the second half the uncertainty maps v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hetseg_bids.config import SYSTEMS
from hetseg_bids.segmentation.uncertainty import spread, trained_flip
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet

GAMMA = 2.0


def focal_with_logits(logits: Tensor, target: Tensor, gamma: float = GAMMA) -> Tensor:
    """|t - p|^gamma BCE(p, t) with p = sigmoid(logits) and soft targets, elementwise.

    Parameters
    ----------
    logits, target : tensors of one shape
        Targets in [0, 1].
    gamma : float

    Returns
    -------
    loss : tensor, same shape
    """
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (target - torch.sigmoid(logits)).abs().pow(gamma) * bce


def focal_of_probability(p: Tensor, target: Tensor, log_p: Tensor, gamma: float = GAMMA) -> Tensor:
    """The same loss for a probability below one whose logarithm is known exactly."""
    bce = -(target * log_p + (1 - target) * torch.log1p(-p))
    return (target - p).abs().pow(gamma) * bce


class Loss(Protocol):
    """Elementwise loss of a system: network output and weak labels to (B, T, H, W)."""

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        """Loss of each pixel and task."""
        ...


@dataclass(frozen=True)
class PlainLoss:
    """Focal loss on the label logits; a second half of the output is ignored."""

    gamma: float = GAMMA

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        """Loss of each pixel and task."""
        return focal_with_logits(output[:, : labels.shape[1]], labels, self.gamma)


@dataclass(frozen=True)
class PredictiveVarianceLoss:
    """Mean focal loss over Monte-Carlo samples a + sigma eps, v = log sigma^2.

    Source: Kendall & Gal 2017, as the paper uses it (design section 1, system 2).

    Attributes
    ----------
    samples : int
        T, Monte-Carlo samples.
    gamma : float

    Notes
    -----
    eps comes from torch's global generator; the trainer seeds it anew at every step.
    """

    samples: int = 10
    gamma: float = GAMMA

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        """Loss of each pixel and task."""
        a, v = output.chunk(2, dim=1)
        sigma = spread(v)
        total = torch.zeros_like(a)
        for _ in range(self.samples):
            noisy = a + sigma * torch.randn_like(a)
            total = total + focal_with_logits(noisy, labels, self.gamma)
        return total / self.samples


@dataclass(frozen=True)
class LabelFlipLoss:
    """L(p, (1 - x) q + x (1 - q)) + L(q, z), z = [(p > 0.5) != x] detached.

    Attributes
    ----------
    gamma : float
    detach_q : bool
        Whether the first term sends no gradient to q.  True keeps q a pure forecast of
        disagreement; False also lets q rise wherever that makes the target easier.
    """

    gamma: float = GAMMA
    detach_q: bool = True

    def __call__(self, output: Tensor, labels: Tensor) -> Tensor:
        """Loss of each pixel and task."""
        a, v = output.chunk(2, dim=1)
        q = trained_flip(v)
        softening = q.detach() if self.detach_q else q
        target = (1 - labels) * softening + labels * (1 - softening)
        disagrees = ((a > 0) != (labels > 0.5)).to(q.dtype)
        log_q = functional.logsigmoid(v) + torch.log(v.new_tensor(0.5))
        fit = focal_with_logits(a, target, self.gamma)
        return fit + focal_of_probability(q, disagrees, log_q, self.gamma)


def loss_of(system: str, *, detach_q: bool = True, monte_carlo: int = 10) -> Loss:
    """The loss of a system by name.

    Raises
    ------
    ValueError
        If the system isn't one of `SYSTEMS`.
    """
    if system == "plain":
        return PlainLoss()
    if system == "predictive-variance":
        return PredictiveVarianceLoss(samples=monte_carlo)
    if system == "label-flip":
        return LabelFlipLoss(detach_q=detach_q)
    raise ValueError(f"unknown system {system!r}; choose one of {', '.join(SYSTEMS)}")


def n_outputs_of(system: str, label_set: LabelSet = ASEG) -> int:
    """Logit maps a system's network has: one a task, or two."""
    return (1 if system == "plain" else 2) * len(label_set.tasks)


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
