"""A first look at logits: which structure wins at every second voxel, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from hetseg_bids.images import Grid
from hetseg_bids.segmentation.inference import Logits
from hetseg_bids.segmentation.islands import most_probable
from hetseg_bids.structures.alignment import centroids
from hetseg_bids.structures.label_sets import LabelSet

STRIDE = 2  # voxels


@dataclass(frozen=True)
class CoarseLook:
    """Every second voxel of the logits' box.

    Attributes
    ----------
    winner : (X, Y, Z) uint8 array
        Number of the structure with the largest logit, from 1; 0 where all say no.
    grid : Grid
        Where its voxels lie.
    label_set : LabelSet
        The structures.
    """

    winner: npt.NDArray[np.uint8]
    grid: Grid
    label_set: LabelSet

    @classmethod
    def of(
        cls, logits: Logits, grid: Grid, unknown: npt.NDArray[np.bool_] | None = None
    ) -> CoarseLook:
        """Look at logits.

        Parameters
        ----------
        logits : Logits
            With or without parts.
        grid : Grid
            The grid of which they have a box.
        unknown : (x, y, z) bool array, optional
            Voxels of the box, such as those of a lesion, in which nothing wins.
        """
        whole = logits.of_structures()
        winner = most_probable(whole.label[:, ::STRIDE, ::STRIDE, ::STRIDE]).cpu()
        if unknown is not None:
            winner[torch.from_numpy(unknown[::STRIDE, ::STRIDE, ::STRIDE])] = 0
        affine = grid.part(logits.box).affine @ np.diag([STRIDE, STRIDE, STRIDE, 1.0])
        i, j, k = winner.shape
        return cls(winner.numpy().astype(np.uint8), Grid((i, j, k), affine), whole.label_set)

    def centroids(self) -> dict[str, npt.NDArray[np.float64]]:
        """See `structures.alignment.centroids`."""
        structures = self.label_set.structures
        values = np.array([0, *(s.label for s in structures)])
        return centroids(values[self.winner], self.grid, structures)
