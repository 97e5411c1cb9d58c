"""What flip probabilities mean for a structure: probability, expected Dice, expected volume.

The flip probability q of a structure is the probability that its label at a voxel disagrees with
the reference (paper section 2.2); `network.systems` says how it follows from the outputs of a
network.  The ensemble's q is that of the mean of the views' second outputs, which are fused
exactly as the label logits are.  A view forecasts the errors of that view, though, and the ensemble
makes fewer: a model whose plan has a `Pooling` gets a q of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.network.flip import logistic

# Errors of neighbouring voxels aren't independent: a boundary moves together over about this much
# (the training noise: 7 mm along a sheet one or two voxels thick) ...
_CORRELATED_MM3 = 50.0
# ... and a part of a structure's errors has the same sign everywhere: with this share the 95 %
# intervals held 96 % of FreeSurfer's volumes in four real scans (docs/uncertainty.md)
_SHARED = 0.8
NORMAL_975 = 1.959964
"""Standard deviations on each side of a 95 % interval."""


def probability_map(label_logits: Tensor, flip_probability: Tensor | None) -> Tensor:
    """The probability p of each structure.

    Parameters
    ----------
    label_logits : float tensor
        a: a structure is there where a > 0, yes or no, before structures compete for voxels.
    flip_probability : float tensor of the same shape, or None
        q: the probability that this yes or no is wrong; None for a system without it.

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
    if flip_probability is None:
        return logistic(label_logits)
    return torch.where(label_logits > 0, 1 - flip_probability, flip_probability)


def sums_of_maps(maps: Tensor) -> npt.NDArray[np.float64]:
    """Sum over the voxels of each map, in double precision, made on their device.

    Parameters
    ----------
    maps : (S, ...) float tensor

    Returns
    -------
    sums : (S,) float64 array

    Examples
    --------
    >>> sums_of_maps(torch.ones(2, 3, 4, 5))
    array([60., 60.])
    """
    if maps.device.type == "cpu":  # numpy: torch's sums depend on the number of threads
        found = maps.numpy().sum(axis=tuple(range(1, maps.ndim)), dtype=np.float64)
        return np.asarray(found)
    return np.asarray(maps.flatten(1).sum(dim=1, dtype=torch.float64).cpu().numpy())


@dataclass(frozen=True)
class StructureUncertainty:
    """Sums over one structure, in voxels of the grid they were computed on.

    Attributes
    ----------
    size : float
        Voxels labelled as the structure.
    mean_flip_probability : float
        Mean flip probability inside it (NaN if it is empty).
    expected_dice : float
        Ratio of expectations, see `FlipSums.summaries`.
    expected_size : float
        Expected number of voxels in the reference.
    flip_variance : float
        Sum of q (1 - q): the variance of that number if voxels were independent.
    """

    size: float
    mean_flip_probability: float
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
        agreed = max(0.0, self.size * (1 - self.mean_flip_probability) - surplus)
        reference = max(0.0, self.expected_size - surplus)
        dice = 2 * agreed / (self.size + reference)
        return replace(self, expected_dice=dice, expected_size=reference)


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
        cls,
        winner: npt.NDArray[np.integer | np.bool_],
        flip_probability: npt.NDArray[np.floating],
    ) -> FlipSums:
        """Sums over some voxels.

        Parameters
        ----------
        winner : (...) int array
            1 + the number of the structure that a voxel is labelled as, 0 for none.
        flip_probability : (S, ...) float array
            q: the probability that the reference disagrees.
        """
        # numpy: torch's sums depend on the number of threads
        count = len(flip_probability)
        q, winner = flip_probability.reshape(count, -1), winner.reshape(-1)
        places = np.flatnonzero(winner)
        structure = winner[places].astype(np.intp) - 1
        inside = np.bincount(structure, weights=q[structure, places], minlength=count)
        return cls(
            size=np.bincount(structure, minlength=count).astype(np.float64),
            flips_inside=inside.astype(np.float64),  # of nothing, they are integers
            flips=q.sum(axis=1, dtype=np.float64),
            squares=(q * q).sum(axis=1, dtype=np.float64),
        )

    @classmethod
    def of_tensors(cls, winner: Tensor, flip_probability: Tensor) -> FlipSums:
        """Sums over some voxels, made on the device where they are.

        Parameters
        ----------
        winner : (...) int tensor
        flip_probability : (S, ...) float tensor
            As for `of`.
        """
        if winner.device.type == "cpu":
            return cls.of(winner.numpy(), flip_probability.numpy())
        # one structure after the other: CUDA's weighted counts differ from run to run
        q, place = flip_probability.flatten(1), winner.flatten()
        of_winner = q.gather(0, (place - 1).clamp_min(0)[None])[0].double()
        inside = [place == number for number in range(1, len(q) + 1)]
        flips = [torch.where(there, of_winner, 0).sum() for there in inside]
        return cls(
            size=torch.stack([there.sum() for there in inside]).double().cpu().numpy(),
            flips_inside=torch.stack(flips).cpu().numpy(),
            flips=sums_of_maps(q),
            squares=sums_of_maps(q * q),
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
        mean_flip_probability=flips_inside / size if size else float("nan"),
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
    106.8
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
        (53.8, 76.1)
        """
        quiet = self.border_mm3 * flip_variance_mm3 + (self.share * volume_mm3) ** 2
        louder = 0.0 if np.isnan(image_noise) else (image_noise / self.noise) ** 2
        return float((quiet * (1 + louder)) ** 0.5)


REPEAT_NOISE = RepeatNoise(border_mm3=4.8, share=0.0078, noise=0.12)
"""As fitted to the rescans of three people, the noise to copies of other scans."""
