"""Labels and flip probabilities in a lesion that was given: nobody knows what is there.

The network saw healthy tissue in its place (`preprocessing.lesions`), so its answer there says
which structures the lesion covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

UNKNOWN = 0.5
"""Probability, and flip probability, of a structure in a lesion that may hold it."""


@dataclass(frozen=True)
class Covered:
    """Voxels of each of S structures in a lesion, and beyond it; those of parts can be added.

    Attributes
    ----------
    inside : (S,) float64 array
        Voxels of the lesion that are most probably the structure's.
    outside : (S,) float64 array
        Voxels labelled as the structure outside the lesion.

    Examples
    --------
    >>> covered = Covered(np.array([10.0, 0.0]), np.array([30.0, 0.0]))
    >>> covered.share
    array([0.25, 0.  ])
    """

    inside: npt.NDArray[np.float64]
    outside: npt.NDArray[np.float64]

    def __add__(self, other: Covered) -> Covered:
        """Voxels of both."""
        return Covered(self.inside + other.inside, self.outside + other.outside)

    @property
    def share(self) -> npt.NDArray[np.float64]:
        """Share of each structure that the lesion covers, 0-1: (S,) float64 array."""
        return self.inside / np.maximum(self.inside + self.outside, 1)


def doubt_lesion_(
    label: Tensor, maps: Iterable[Tensor], winner: Tensor, lesion: Tensor, *, keep: bool = False
) -> Covered:
    """Set probabilities in a lesion to 0.5, for the structures that may be there; drop labels.

    These are all to which the network says yes, or else the most probable one. For other
    structures, far away, they stay what they were: with 0.5 everywhere, half a lesion would be
    expected of each of them.

    Parameters
    ----------
    label : (S, x, y, z) float tensor
        Logits.
    maps : iterable of (S, x, y, z) float tensor
        Flip probabilities, probabilities; they change.
    winner : (x, y, z) int tensor
        1 + the number of the structure that a voxel is labelled as, 0 for none; changes.
    lesion : (x, y, z) bool tensor
    keep : bool
        Leave labels in the lesion as they are; otherwise they become 0.

    Returns
    -------
    covered : Covered

    Examples
    --------
    >>> label = torch.tensor([[3.0, -1], [-4, -2]]).view(2, 2, 1, 1)  # 2 structures, 2 voxels
    >>> q, winner = torch.full((2, 2, 1, 1), 0.1), torch.tensor([1, 0]).view(2, 1, 1)
    >>> doubt_lesion_(label, [q], winner, torch.ones(2, 1, 1) > 0).inside
    array([2., 0.])
    >>> q[:, :, 0, 0]
    tensor([[0.5000, 0.5000],
            [0.1000, 0.1000]])
    """
    answers = label[:, lesion]
    count = len(label)
    best = answers.argmax(dim=0)
    possible = answers > 0
    possible[best, torch.arange(len(best), device=best.device)] = True
    for probability in maps:
        probability[:, lesion] = probability[:, lesion].masked_fill(possible, UNKNOWN)
    outside = winner[~lesion].cpu().numpy()
    if not keep:
        winner[lesion] = 0
    return Covered(
        inside=np.bincount(best.cpu().numpy(), minlength=count).astype(np.float64),
        outside=np.bincount(outside, minlength=count + 1)[1:].astype(np.float64),
    )


@dataclass(frozen=True)
class GivenLesion:
    """What the sidecars say of a lesion that was given.

    Attributes
    ----------
    source : str
        BIDS URI of its mask.
    ml : float
        Volume of the mask, ml.
    structures : tuple of str
        Those that it covers in part, by `lesion_mm3` of the table of volumes.
    """

    source: str
    ml: float
    structures: tuple[str, ...] = ()

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> GivenLesion | None:
        """From a sidecar; None where no lesion was given.

        Raises
        ------
        ValueError
            If its entry has another form.

        Examples
        --------
        >>> lesion = GivenLesion("bids:raw:x", 31.25, ("left_putamen",))
        >>> GivenLesion.of_record({"HetsegLesion": lesion.for_record()}) == lesion
        True
        >>> GivenLesion.of_record({}) is None
        True
        """
        found = record.get("HetsegLesion")
        if found is None:
            return None
        try:
            names = tuple(str(name) for name in found["structures"])
            return cls(str(found["source"]), float(found["volume_ml"]), names)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"HetsegLesion {found!r:.80}: not understood") from None

    def for_record(self) -> dict[str, Any]:
        """As JSON values for a sidecar."""
        return {
            "source": self.source,
            "volume_ml": round(self.ml, 3),
            "structures": list(self.structures),
        }
