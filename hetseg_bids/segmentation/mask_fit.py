"""Whether a brain mask fits its head: inside the skull, and without a part of the brain missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.conform import resample
from hetseg_bids.preprocessing.transfer import to_host

# deepbet's masks of 17 heads: 1.8 % and 0.9 % at most (docs/outputs.md)
_MOST_OUTSIDE = 0.08
_MOST_MISSED = 0.06
_REMEDY = "look at its contour, and give another one with --brain-extraction mask"


@dataclass(frozen=True)
class MaskFit:
    """A brain mask against what the head model sees.

    Attributes
    ----------
    outside : float
        Share of the mask that lies outside the skull.
    missed : float
        Share of the head model's brain that the mask leaves out.
    """

    outside: float
    missed: float

    @classmethod
    def of(
        cls, mask: Tensor, working: Grid, inside: Tensor, brain: Tensor, coarse: Grid
    ) -> MaskFit:
        """Compare a mask with the head model's.

        Parameters
        ----------
        mask : (X, Y, Z) bool tensor
            On `working`, not empty.
        working : Grid
        inside, brain : (x, y, z) float32 tensors
            Logits of the inside of the skull and of the brain, on `coarse`.
        coarse : Grid

        Examples
        --------
        >>> import torch
        >>> grid = Grid((8, 1, 1), np.eye(4))
        >>> mask = torch.arange(8).view(8, 1, 1) > 3
        >>> skull = torch.tensor([-1.0, 1, 1, 1, 1, 1, 1, -1]).view(8, 1, 1)
        >>> MaskFit.of(mask, grid, skull, skull, grid)
        MaskFit(outside=0.25, missed=0.5)
        """
        share = to_host(resample(mask.float()[None], working, coarse)[0]).numpy()
        ratio = coarse.voxel_volume / working.voxel_volume
        skull, there = inside.numpy() > 0, brain.numpy() > 0
        within = ratio * float(share[skull].sum(dtype=np.float64)) / float(mask.sum())
        held = float(share[there].mean(dtype=np.float64)) if there.any() else 1.0
        return cls(outside=max(0.0, 1 - within), missed=1 - held)

    @property
    def doubts(self) -> tuple[str, ...]:
        """One warning for a mask that doesn't fit, none for others.

        Examples
        --------
        >>> MaskFit(outside=0.02, missed=0.01).doubts
        ()
        >>> MaskFit(outside=0.02, missed=0.3).doubts[0].split(";")[0]
        'the brain mask leaves out 30% of the brain'
        """
        found = []
        if self.missed > _MOST_MISSED:
            found.append(f"leaves out {self.missed:.0%} of the brain")
        if self.outside > _MOST_OUTSIDE:
            found.append(f"has {self.outside:.0%} of its volume outside the skull")
        return (f"the brain mask {' and '.join(found)}; {_REMEDY}",) if found else ()
