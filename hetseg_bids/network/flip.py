"""The focal loss, and the flip probability that follows from the output of a network it trained.

The second output v of a label-flip network is trained as ``0.5 sigmoid(v)`` by a focal loss, whose
minimiser is not the probability itself but a known function of it; `flip_probability` undoes that
function.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

GAMMA = 2.0
"""Exponent of the focal loss; `flip_probability` holds for this one."""

# of `trained_flip`: for smaller values the probability is less than 1e-17, and log(0) is near
_SMALLEST = 1e-6


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

    Examples
    --------
    >>> focal_with_logits(torch.zeros(2), torch.tensor([0.0, 1.0]))  # 0.5^2 log 2
    tensor([0.1733, 0.1733])
    """
    bce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (target - torch.sigmoid(logits)).abs().pow(gamma) * bce


def focal_of_probability(
    probability: Tensor, target: Tensor, log_probability: Tensor, gamma: float = GAMMA
) -> Tensor:
    """`focal_with_logits` for a probability below one whose logarithm is known exactly.

    Parameters
    ----------
    probability, target, log_probability : tensors of one shape
    gamma : float

    Returns
    -------
    loss : tensor, same shape
    """
    bce = -(target * log_probability + (1 - target) * torch.log1p(-probability))
    return (target - probability).abs().pow(gamma) * bce


def logistic(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), without gradients, the same bits for any number of threads.

    `torch.sigmoid` of a CPU computes the last few values of each thread's share, and all that
    don't lie side by side in memory, by another formula: they differ in the last bit.

    Examples
    --------
    >>> logistic(torch.tensor([-1.0, 0, 1]))
    tensor([0.2689, 0.5000, 0.7311])
    """
    return x.neg().exp_().add_(1).reciprocal_()


def flip_focal(flip_logits: Tensor, rate: Tensor, gamma: float = GAMMA) -> Tensor:
    """The focal loss of a flip logit that is expected where labels flip at a rate.

    It is least where `flip_probability` is the rate.

    Parameters
    ----------
    flip_logits, rate : float tensors of one shape
        v, and the probability of a flip, 0-0.5.

    Returns
    -------
    loss : float tensor, same shape

    Examples
    --------
    >>> v = torch.linspace(-6, 6, 1201)
    >>> best = v[flip_focal(v, torch.full_like(v, 0.2)).argmin()]
    >>> round(flip_probability(best).item(), 2)
    0.2
    """
    s = trained_flip(flip_logits)
    log_s = functional.logsigmoid(flip_logits) + torch.log(flip_logits.new_tensor(0.5))
    flipped = focal_of_probability(s, torch.ones_like(s), log_s, gamma)
    kept = focal_of_probability(s, torch.zeros_like(s), log_s, gamma)
    return rate * flipped + (1 - rate) * kept


def trained_flip(flip_logits: Tensor) -> Tensor:
    """The value that the label-flip loss is computed from: 0.5 sigmoid(v), in (0, 0.5).

    Examples
    --------
    >>> trained_flip(torch.tensor([-5.0, 0, 5]))
    tensor([0.0033, 0.2500, 0.4967])
    """
    return 0.5 * torch.sigmoid(flip_logits)


def flip_probability(flip_logits: Tensor) -> Tensor:
    """The probability q that a label is flipped, in (0, 0.5).

    Parameters
    ----------
    flip_logits : float tensor
        v.

    Notes
    -----
    Where labels flip with probability r, the focal loss with gamma = 2 is least at a value
    s of `trained_flip` that is nearer to 0.5 than r.  Setting the derivative of
    ``r (1 - s)^2 (-log s) + (1 - r) s^2 (-log(1 - s))`` to zero and solving for r gives the
    answer in closed form (Charoenphakdee et al. 2021, "On focal loss for class-posterior
    probability estimation").

    Examples
    --------
    >>> v = torch.tensor([-1.0, 0, 5])
    >>> flip_probability(v).round(decimals=3)
    tensor([0.0070, 0.0500, 0.4910])
    >>> trained_flip(v).round(decimals=3)  # nearer to 0.5
    tensor([0.1340, 0.2500, 0.4970])
    """
    s = logistic(flip_logits).mul_(0.5)
    kept, flipped = _slopes(s)
    return torch.where(s > _SMALLEST, kept / (kept + flipped), 0)


def log_odds_kept(flip_logits: Tensor) -> Tensor:
    """log((1 - q) / q) of `flip_probability`, in half the time of q and its logit.

    Parameters
    ----------
    flip_logits : float32 tensor
        v.

    Returns
    -------
    log_odds : float32 tensor, same shape
        Finite for any v.

    Examples
    --------
    >>> v = torch.tensor([-1.0, 0, 1])
    >>> torch.allclose(log_odds_kept(v), -torch.logit(flip_probability(v)), atol=1e-5)
    True
    """
    kept, flipped = _slopes(logistic(flip_logits).mul_(0.5).clamp_min_(_SMALLEST))
    return flipped.div_(kept).log_()


def _slopes(s: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes of the focal losses of a kept (rising) and of a flipped label (falling) at s."""
    rest = 1 - s
    kept = torch.log1p(-s).mul_(s).mul_(-2).add_(s * s / rest)
    flipped = torch.log(s).mul_(rest).mul_(-2).add_(rest * rest / s)
    return kept, flipped
