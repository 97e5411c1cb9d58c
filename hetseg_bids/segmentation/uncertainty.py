"""What the flip logits mean: q, p, expected Dice, expected volume.

q of a structure is the probability that its label at a voxel disagrees with the
reference (paper section 2.2).  The network is trained on 0.5 sigmoid(v) by a focal loss,
whose minimiser is not the probability itself but a known function of it; `flip_probability`
undoes that function.  The ensemble's q is that of the mean of the views' v: the flip
logits are fused exactly as the label logits are.  A view's v forecasts the errors of that view,
though, and the ensemble makes fewer: a model whose plan has a `Pooling` gets a q of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Errors are not independent from voxel to voxel: boundaries move together over about this much
# (the training noise: 7 mm along a sheet one or two voxels thick) ...
_CORRELATED_MM3 = 50.0
# ... and a part of a structure's errors has the same sign everywhere: with this share the 95 %
# intervals held 95 % of the true volumes of synthetic scans (benchmarks/intervals.py)
_SHARED = 0.5
_LARGEST_LOG_VARIANCE = 20.0  # sigma = 22026 already makes any label logit a toss-up
_NOTHING = 1e-30  # leaves every other logit as it is
_SMALLEST = 1e-6  # below it the probability is less than 1e-17, and log(0) is near

SUREST = 12.0
"""Log-odds: no view says more, or one view would outvote all others."""

POOLED = "pooled"
"""The system whose second output is the ensemble's log-odds of each structure (`Pooling`)."""


def evidence(system: str, label_logits: Tensor, second: Tensor) -> Tensor:
    """What one view says for a structure (above 0) or against it: log-odds, at most 12.

    Parameters
    ----------
    system, label_logits, second
        As `flip_map` takes them, of one view.

    Returns
    -------
    log_odds : float32 tensor, same shape
        log((1 - q) / q), with the sign of the label logit.
    """
    a = label_logits.float()
    if system == "label-flip":  # the odds themselves: half the time of q and its logit
        kept, flipped = _slopes(logistic(second.float()).mul_(0.5).clamp_min_(_SMALLEST))
        log_odds = flipped.div_(kept).log_()
    else:
        log_odds = -torch.logit(flip_map(system, a, second.float()), eps=_SMALLEST)
    # a logit of exactly 0, which bfloat16 has, is a no
    return log_odds.clamp_max_(SUREST).copysign_(a - _NOTHING)


def flip_map(system: str, label_logits: Tensor, second: Tensor) -> Tensor:
    """The probability q of a flip from the second output of a heteroscedastic system.

    Parameters
    ----------
    system : {"label-flip", "predictive-variance", "pooled"}
    label_logits, second : float tensors of one shape
        a, and v, log sigma^2 or the ensemble's log-odds.

    Returns
    -------
    q : float tensor, same shape
        For predictive variance the probability that a + sigma eps has another sign than a.
        For pooled log-odds that of the answer which a did not give, at most 0.5.
    """
    if system == POOLED:
        return logistic(torch.where(label_logits > 0, -second, second)).clamp_max_(0.5)
    if system == "predictive-variance":
        return torch.special.ndtr(-label_logits.abs() / spread(second))
    return flip_probability(second)


def raise_flip(system: str, label_logits: Tensor, second: Tensor, least: Tensor) -> Tensor:
    """Second outputs whose q is no smaller than given, as far as 0.5: see `flip_map`.

    Parameters
    ----------
    system, label_logits, second
        As `flip_map` takes them.
    least : float tensor of the same shape
        Smallest q, 0-0.5.

    Returns
    -------
    second : float tensor, same shape
        Unchanged where q is large enough.
    """
    q = flip_map(system, label_logits, second)
    if system == POOLED:
        raised = torch.log1p(-least).sub_(least.log()).copysign_(label_logits)
    elif system == "predictive-variance":
        sigma = label_logits.abs() / torch.special.ndtri(1 - least)
        raised = 2 * sigma.log().clamp_max(_LARGEST_LOG_VARIANCE / 2)
    else:
        steps = torch.linspace(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE, 4001)
        place = torch.searchsorted(flip_probability(steps), least.contiguous())
        raised = steps[place.clamp_max(len(steps) - 1)]
    return torch.where(q < least, raised.to(second.dtype), second)


def probability_map(label_logits: Tensor, q: Tensor | None) -> Tensor:
    """The probability p of each structure.

    Parameters
    ----------
    label_logits : float tensor
        a: a structure is there where a > 0, yes or no, before structures compete for voxels.
    q : float tensor of the same shape, or None
        Probability that this yes or no is wrong; None for a system without it.

    Returns
    -------
    p : float tensor, same shape
        ``1 - q`` for yes and ``q`` for no.  Without q it is the sigmoid of a, which a focal loss
        leaves nearer to 0.5 along borders than the rate at which the reference holds the
        structure (the model card measures both).

    Examples
    --------
    >>> q = torch.tensor([0.1, 0.1])
    >>> probability_map(torch.tensor([2.0, -2.0]), q)  # yes and no, both wrong with 0.1
    tensor([0.9000, 0.1000])
    """
    if q is None:
        return logistic(label_logits)
    return torch.where(label_logits > 0, 1 - q, q)


@dataclass(frozen=True)
class StructureUncertainty:
    """Sums over one structure, in voxels of the grid they were computed on.

    Attributes
    ----------
    size : float
        Voxels labelled as the structure.
    mean_q : float
        Mean flip probability inside it (NaN if it is empty).
    expected_dice : float
        Ratio of expectations, see `FlipSums.summaries`.
    expected_size : float
        Expected number of voxels in the reference.
    flip_variance : float
        Sum of q (1 - q): the variance of that number if voxels were independent.
    """

    size: float
    mean_q: float
    expected_dice: float
    expected_size: float
    flip_variance: float

    def without(self, surplus: float) -> StructureUncertainty:
        """Expected size and Dice where more is wrong than q can express, which is 0.5 at most.

        Parameters
        ----------
        surplus : float
            Voxels of the segment that the reference lacks, beyond those that q counts. The
            variance stays the same.

        Examples
        --------
        >>> found = FlipSums.of(np.array([1, 1, 1, 1]), np.full((1, 4), 0.25)).summaries()[0]
        >>> found.expected_size, found.without(1.0).expected_size
        (3.0, 2.0)
        """
        if not surplus or not self.size:
            return self
        agreed = max(0.0, self.size * (1 - self.mean_q) - surplus)
        reference = max(0.0, self.expected_size - surplus)
        dice = 2 * agreed / (self.size + reference)
        return replace(self, expected_dice=dice, expected_size=reference)


def spread(log_variance: Tensor) -> Tensor:
    """Sigma of a predictive variance v = log sigma^2, finite with a finite gradient for any v."""
    return torch.exp(0.5 * log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE))


def logistic(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), without gradients, the same bits for any number of threads.

    `torch.sigmoid` of a CPU computes the last few values of each thread's share, and all that
    don't lie side by side in memory, by another formula: they differ in the last bit.
    """
    return x.neg().exp_().add_(1).reciprocal_()


def trained_flip(flip_logits: Tensor) -> Tensor:
    """What the label-flip loss is trained on: 0.5 sigmoid(v), in (0, 0.5)."""
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
    """
    s = logistic(flip_logits).mul_(0.5)
    kept, flipped = _slopes(s)
    return torch.where(s > _SMALLEST, kept / (kept + flipped), 0)


def _slopes(s: Tensor) -> tuple[Tensor, Tensor]:
    """How fast the focal losses of a kept and of a flipped label rise and fall with s."""
    rest = 1 - s
    kept = torch.log1p(-s).mul_(s).mul_(-2).add_(s * s / rest)
    flipped = torch.log(s).mul_(rest).mul_(-2).add_(rest * rest / s)
    return kept, flipped


@dataclass(frozen=True)
class FlipSums:
    """Sums over voxels for each of S structures; the sums of parts of a scan can be added.

    Attributes
    ----------
    size : (S,) float64 array
        Voxels labelled as the structure.
    flips_inside : (S,) float64 array
        Sum of q over these voxels.
    flips : (S,) float64 array
        Sum of q over all voxels.
    squares : (S,) float64 array
        Sum of q^2 over all voxels.

    Examples
    --------
    >>> winner = np.array([1, 1, 0])  # two voxels of the only structure, one of none
    >>> q = np.array([[0.1, 0.2, 0.3]])
    >>> found = FlipSums.of(winner, q).summaries()[0]
    >>> round(found.expected_size, 3), round(found.expected_dice, 3)  # 0.9 + 0.8 + 0.3
    (2.0, 0.85)
    """

    size: npt.NDArray[np.float64]
    flips_inside: npt.NDArray[np.float64]
    flips: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, winner: npt.NDArray[np.integer | np.bool_], q: npt.NDArray[np.floating]
    ) -> FlipSums:
        """Sums over some voxels.

        Parameters
        ----------
        winner : (...) int array
            1 + the number of the structure that a voxel is labelled as, 0 for none.
        q : (S, ...) float array
            Probability that the reference disagrees.
        """
        # numpy: torch's sums depend on the number of threads
        count = len(q)
        q, winner = q.reshape(count, -1), winner.reshape(-1)
        places = np.flatnonzero(winner)
        structure = winner[places].astype(np.intp) - 1
        inside = np.bincount(structure, weights=q[structure, places], minlength=count)
        return cls(
            size=np.bincount(structure, minlength=count).astype(np.float64),
            flips_inside=inside.astype(np.float64),  # of nothing, they are integers
            flips=q.sum(axis=1, dtype=np.float64),
            squares=(q * q).sum(axis=1, dtype=np.float64),
        )

    def __add__(self, other: FlipSums) -> FlipSums:
        """Sums over the voxels of both.

        Examples
        --------
        >>> one = FlipSums.of(np.array([1, 0]), np.array([[0.1, 0.2]]))
        >>> (one + one).size
        array([2.])
        """
        return FlipSums(
            self.size + other.size,
            self.flips_inside + other.flips_inside,
            self.flips + other.flips,
            self.squares + other.squares,
        )

    def summaries(self) -> tuple[StructureUncertainty, ...]:
        """Uncertainty of each structure."""
        sums = (self.size, self.flips_inside, self.flips, self.squares)
        return tuple(_summarise(*map(float, one)) for one in zip(*sums, strict=True))


def _summarise(
    size: float, flips_inside: float, flips: float, squares: float
) -> StructureUncertainty:
    """Uncertainty of one structure.

    With S the segment, the reference is expected to hold ``sum_S (1 - q)`` voxels of S
    and ``sum_notS q`` voxels beyond it; expected Dice is the ratio of expectations
    ``2 sum_S (1 - q) / (|S| + sum_S (1 - q) + sum_notS q)``.
    """
    agreed = size - flips_inside
    missed = flips - flips_inside
    reference = agreed + missed
    return StructureUncertainty(
        size=size,
        mean_q=flips_inside / size if size else float("nan"),
        expected_dice=2 * agreed / (size + reference) if size + reference > 0 else float("nan"),
        expected_size=reference,
        flip_variance=flips - squares,
    )


def volume_sd(flip_variance_mm3: float) -> float:
    """Standard deviation of a volume, mm3.

    Parameters
    ----------
    flip_variance_mm3 : float
        `StructureUncertainty.flip_variance` times the volume of a voxel.

    Examples
    --------
    >>> round(volume_sd(100.0), 1)  # mm3
    86.6
    """
    patches = _CORRELATED_MM3 * flip_variance_mm3
    return float((patches + (_SHARED * flip_variance_mm3) ** 2) ** 0.5)


@dataclass(frozen=True)
class RepeatNoise:
    """How much a volume differs from scan to scan of one person.

    Voxels along an uncertain border change their label independently, up to a distance; gain,
    gradients and contrast move a whole structure by a share of its size.  Noise makes more of
    both, and q hardly rises with it.  The constants were fitted to people scanned twice and to
    noisy copies of scans (`benchmarks/repeat.py`), one set for all structures.

    Attributes
    ----------
    border_mm3 : float
        Volume over which a border moves together from scan to scan.
    share : float
        Standard deviation of the part that is proportional to the volume.
    noise : float
        `ImageQuality.noise` at which the variance is twice that of an image without noise.
    """

    border_mm3: float
    share: float
    noise: float

    def sd(
        self, volume_mm3: float, flip_variance_mm3: float, image_noise: float = float("nan")
    ) -> float:
        """Standard deviation of a volume over scans, mm3.

        Parameters
        ----------
        volume_mm3 : float
            `StructureUncertainty.size` times the volume of a voxel.
        flip_variance_mm3 : float
            `StructureUncertainty.flip_variance` times the volume of a voxel.
        image_noise : float
            `ImageQuality.noise`; NaN if it isn't known: then an image without noise is taken.

        Examples
        --------
        >>> round(REPEAT_NOISE.sd(4000.0, 400.0), 1), round(REPEAT_NOISE.sd(4000.0, 400.0, 0.12), 1)
        (37.9, 53.6)
        """
        quiet = self.border_mm3 * flip_variance_mm3 + (self.share * volume_mm3) ** 2
        louder = 0.0 if np.isnan(image_noise) else (image_noise / self.noise) ** 2
        return float((quiet * (1 + louder)) ** 0.5)


REPEAT_NOISE = RepeatNoise(border_mm3=1.8, share=0.0067, noise=0.12)
"""As fitted to the rescans of three people and to copies of other scans."""
