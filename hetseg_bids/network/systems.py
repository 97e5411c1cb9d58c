"""The systems: how a network is trained, and what its outputs mean.

Source: McKinley et al., section 2.2 (design section 1).  A network of T tasks gives T label
logits a; a heteroscedastic one gives T maps more, the second outputs, from which the flip
probability follows.  What that second output is depends on the system, and only its class knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from hetseg_bids.network import flip
from hetseg_bids.network.flip import (
    GAMMA,
    focal_of_probability,
    focal_with_logits,
    log_odds_kept,
    logistic,
    trained_flip,
)

SUREST = 12.0
"""Largest log-odds of one view: with more, one view could outvote all others."""

_LARGEST_LOG_VARIANCE = 20.0  # sigma = 22026: with it the sign of any label logit is chance
_LARGEST_FLIP_LOGIT = 20.0  # the flip probability has reached 0 and 0.5 there
_STEPS = 4001  # hundredths of a flip logit
_NOTHING = 1e-30  # makes a logit of 0 negative and changes no other
_LEAST = 1e-6  # flip probability: its log-odds are beyond `SUREST`


class Heteroscedastic(ABC):
    """The meaning of the second output beside each label logit.

    The methods take label logits a and second outputs as float tensors of one shape.
    """

    @abstractmethod
    def flip_probability(self, label_logits: Tensor, second_output: Tensor) -> Tensor:
        """The probability q that the yes or no of a label logit is wrong: same shape, 0-0.5."""

    @abstractmethod
    def _second_output(self, label_logits: Tensor, flip_probability: Tensor) -> Tensor:
        """Second outputs that have a flip probability."""

    def of_rows(self, rows: slice) -> Heteroscedastic:  # noqa: ARG002
        """The meaning of some rows alone, where it differs between structures."""
        return self

    def raised(self, label_logits: Tensor, second_output: Tensor, least: Tensor) -> Tensor:
        """Second outputs whose flip probability is no smaller than given.

        Parameters
        ----------
        label_logits, second_output : float tensors of one shape
        least : float tensor of the same shape
            Smallest flip probability, 0-0.5.

        Returns
        -------
        second_output : float tensor, same shape
            Unchanged where the flip probability is large enough.

        Examples
        --------
        >>> v = torch.zeros(2)  # flip probability 0.05
        >>> raised = LabelFlip().raised(torch.ones(2), v, torch.tensor([0.01, 0.3]))
        >>> LabelFlip().flip_probability(torch.ones(2), raised).round(decimals=2)
        tensor([0.0500, 0.3000])
        """
        q = self.flip_probability(label_logits, second_output)
        raised = self._second_output(label_logits, least)
        return torch.where(q < least, raised.to(second_output.dtype), second_output)

    def evidence(self, label_logits: Tensor, second_output: Tensor) -> Tensor:
        """Log-odds of one view for a structure (above 0) or against it, at most 12.

        Parameters
        ----------
        label_logits, second_output : float tensors of one shape
            Of one view.

        Returns
        -------
        log_odds : float32 tensor, same shape
            log((1 - q) / q), with the sign of the label logit.

        Examples
        --------
        >>> LabelFlip().evidence(torch.tensor([2.0, -2.0]), torch.zeros(2))  # yes and no
        tensor([ 2.9475, -2.9475])
        """
        a = label_logits.float()
        log_odds = self._log_odds_kept(a, second_output)
        # a logit of exactly 0, which occurs in bfloat16, means no
        return log_odds.clamp_max_(SUREST).copysign_(a - _NOTHING)

    def _log_odds_kept(self, label_logits: Tensor, second_output: Tensor) -> Tensor:
        q = self.flip_probability(label_logits, second_output.float())
        return -torch.logit(q, eps=_LEAST)


@dataclass(frozen=True, kw_only=True)
class System(ABC):
    """A way to train a network.

    Two systems are equal where their outputs mean the same: settings of the loss don't count.

    Attributes
    ----------
    name : str
        As in plan.json and after ``hetseg-train --system``.
    gamma : float
        Exponent of the focal loss.

    Examples
    --------
    >>> Plain().n_outputs(31), LabelFlip().n_outputs(31)
    (31, 62)
    """

    name: ClassVar[str]
    gamma: float = field(default=GAMMA, compare=False)

    @property
    def heteroscedastic(self) -> bool:
        """Whether there is a second output per task."""
        return isinstance(self, Heteroscedastic)

    def n_outputs(self, n_tasks: int) -> int:
        """Logit maps of a network: one per task, or two."""
        return (1 + self.heteroscedastic) * n_tasks

    @abstractmethod
    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Training loss of each pixel and task.

        Parameters
        ----------
        output : (B, `n_outputs`, H, W) tensor
            Label logits a first, then second outputs.
        labels : (B, T, H, W) tensor
            Weak labels of T tasks, 0 or 1.

        Returns
        -------
        loss : (B, T, H, W) tensor
        """


@dataclass(frozen=True, kw_only=True)
class Plain(System):
    """No second output: the focal loss of the label logits."""

    name = "plain"

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """As in `System`; a second half of the output is ignored."""
        return focal_with_logits(output[:, : labels.shape[1]], labels, self.gamma)


@dataclass(frozen=True, kw_only=True)
class PredictiveVariance(System, Heteroscedastic):
    """The second output is v = log sigma^2 of a Gaussian around the label logit.

    Source: Kendall & Gal 2017, as the paper uses it (design section 1, system 2).

    Attributes
    ----------
    samples : int
        Monte-Carlo samples a + sigma eps of the loss, which is their mean focal loss.

    Notes
    -----
    eps comes from torch's global generator; the trainer seeds it anew at every step.
    """

    name = "predictive-variance"
    samples: int = field(default=10, compare=False)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """As in `System`."""
        a, v = output.chunk(2, dim=1)
        sigma = spread(v)
        total = torch.zeros_like(a)
        for _ in range(self.samples):
            noisy = a + sigma * torch.randn_like(a)
            total = total + focal_with_logits(noisy, labels, self.gamma)
        return total / self.samples

    def flip_probability(self, label_logits: Tensor, second_output: Tensor) -> Tensor:
        """The probability that a + sigma eps has another sign than a.

        Examples
        --------
        >>> a, v = torch.tensor([1.0, -1.0, 0.0]), torch.zeros(3)  # sigma = 1
        >>> PredictiveVariance().flip_probability(a, v)
        tensor([0.1587, 0.1587, 0.5000])
        """
        return torch.special.ndtr(-label_logits.abs() / spread(second_output))

    def _second_output(self, label_logits: Tensor, flip_probability: Tensor) -> Tensor:
        sigma = label_logits.abs() / torch.special.ndtri(1 - flip_probability)
        return 2 * sigma.log().clamp_max(_LARGEST_LOG_VARIANCE / 2)


@dataclass(frozen=True, kw_only=True)
class LabelFlip(System, Heteroscedastic):
    """The second output is the flip logit v, a forecast of whether the label is wrong.

    Attributes
    ----------
    detach_q : bool
        Whether the first term of the loss sends no gradient to q.  True keeps q a pure forecast of
        disagreement; False also lets q rise wherever that makes the target easier.
    """

    name = "label-flip"
    detach_q: bool = field(default=True, compare=False)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """L(p, (1 - x) q + x (1 - q)) + L(q, z), z = [(p > 0.5) != x] detached.

        Examples
        --------
        >>> output = torch.zeros(1, 2 * 31, 8, 8)
        >>> LabelFlip().loss(output, torch.zeros(1, 31, 8, 8)).shape
        torch.Size([1, 31, 8, 8])
        """
        a, v = output.chunk(2, dim=1)
        q = trained_flip(v)
        # a free q could rise where that makes its own target easier; detached, it only forecasts
        softening = q.detach() if self.detach_q else q
        target = (1 - labels) * softening + labels * (1 - softening)
        disagrees = ((a > 0) != (labels > 0.5)).to(q.dtype)
        log_q = functional.logsigmoid(v) + torch.log(v.new_tensor(0.5))
        fit = focal_with_logits(a, target, self.gamma)
        return fit + focal_of_probability(q, disagrees, log_q, self.gamma)

    def flip_probability(self, label_logits: Tensor, second_output: Tensor) -> Tensor:  # noqa: ARG002
        """The probability that follows from v alone."""
        return flip.flip_probability(second_output)

    def _second_output(self, label_logits: Tensor, flip_probability: Tensor) -> Tensor:  # noqa: ARG002
        ends, device = (-_LARGEST_FLIP_LOGIT, _LARGEST_FLIP_LOGIT), flip_probability.device
        steps = torch.linspace(*ends, _STEPS, device=device)
        known = flip.flip_probability(steps)
        place = torch.searchsorted(known, flip_probability.contiguous())
        return steps[place.clamp_max(len(steps) - 1)]

    def _log_odds_kept(self, label_logits: Tensor, second_output: Tensor) -> Tensor:  # noqa: ARG002
        if second_output.dtype != torch.bfloat16:
            return log_odds_kept(second_output.float())
        # looking up 2^16 values is four times as fast as computing them
        place = second_output.view(torch.uint16).long().flatten()
        table = _log_odds_table(second_output.device)
        return table.index_select(0, place).view(second_output.shape)


@lru_cache
def _log_odds_table(device: torch.device) -> Tensor:
    """`log_odds_kept` of every bfloat16, in the order of their bits: (65536,) float32 tensor."""
    bits = torch.arange(1 << 16, dtype=torch.int32, device=device).to(torch.int16)
    return log_odds_kept(bits.view(torch.bfloat16).float())


@dataclass(frozen=True)
class PooledEnsemble(Heteroscedastic):
    """The second output is the ensemble's log-odds of each structure; see `fitted.Pooling`.

    Attributes
    ----------
    answer : float
        What is added to the log-odds in favour of the answer that the label logit gives.
    structures : tuple of float
        What is added to `answer` in each row of the tensors, their first axis; empty for nothing.
    """

    answer: float = 0.0
    structures: tuple[float, ...] = ()

    def of_rows(self, rows: slice) -> PooledEnsemble:
        """The meaning of some rows alone.

        Examples
        --------
        >>> PooledEnsemble(0.8, (0.1, -0.2, 0.3)).of_rows(slice(1, 3))
        PooledEnsemble(answer=0.8, structures=(-0.2, 0.3))
        """
        return replace(self, structures=self.structures[rows])

    def flip_probability(self, label_logits: Tensor, second_output: Tensor) -> Tensor:
        """Probability that the sign of a is wrong, at most 0.5.

        Examples
        --------
        >>> log_odds = torch.tensor([2.0, 2.0])  # for the structure
        >>> PooledEnsemble().flip_probability(torch.tensor([1.0, -1.0]), log_odds)  # yes, no
        tensor([0.1192, 0.5000])
        """
        against = torch.where(label_logits > 0, -second_output, second_output)
        return logistic(against.sub_(self._answer(against))).clamp_max_(0.5)

    def _second_output(self, label_logits: Tensor, flip_probability: Tensor) -> Tensor:
        right = torch.log1p(-flip_probability).sub_(flip_probability.log())
        right.sub_(self._answer(right))
        return right.mul_(torch.where(label_logits > 0, 1.0, -1.0))

    def _answer(self, like: Tensor) -> Tensor | float:
        """What is added, in each row of a tensor."""
        if not self.structures:
            return self.answer
        rows = torch.tensor(self.structures, dtype=like.dtype, device=like.device)
        return rows.add_(self.answer).view(-1, *(1,) * (like.dim() - 1))


def spread(log_variance: Tensor) -> Tensor:
    """Sigma of a predictive variance v = log sigma^2, finite with a finite gradient for any v."""
    return torch.exp(0.5 * log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE))


def system_named(name: str, *, detach_q: bool = True, monte_carlo: int = 10) -> System:
    """The system of a name: the only place where names become classes.

    Parameters
    ----------
    name : {"plain", "predictive-variance", "label-flip"}
    detach_q : bool
        See `LabelFlip`.
    monte_carlo : int
        Samples of `PredictiveVariance`.

    Raises
    ------
    ValueError
        If there is no such system.

    Examples
    --------
    >>> system_named("label-flip")
    LabelFlip(gamma=2.0, detach_q=True)
    """
    systems = (Plain(), PredictiveVariance(samples=monte_carlo), LabelFlip(detach_q=detach_q))
    known = {system.name: system for system in systems}
    if name not in known:
        raise ValueError(f"unknown system {name!r}; choose one of {', '.join(known)}")
    return known[name]
