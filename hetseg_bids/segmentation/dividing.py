"""All labels of an aseg from the logits of structures and their parts.

On the grid of the results, so that what is left of a structure and its part meet without a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.images import Grid
from hetseg_bids.segmentation.islands import most_probable
from hetseg_bids.segmentation.views import OUTSIDE_LOGIT
from hetseg_bids.structures.divisions import Division


@dataclass(frozen=True)
class Cuts:
    """Planes across the long axis of the corpus callosum, at equal distances.

    Source: FreeSurfer's mri_cc cuts it so into five parts.

    Attributes
    ----------
    direction : (3,) float array
        Unit vector from its back to its front, scanner mm.
    places : (4,) float array
        Where the planes are, mm along the direction.
    """

    direction: npt.NDArray[np.float64]
    places: npt.NDArray[np.float64]

    @classmethod
    def across(
        cls,
        points: npt.NDArray[np.float64],
        count: int,
        front: Sequence[float] | npt.NDArray[np.float64] = (0.0, 1.0, 0.0),
    ) -> Cuts:
        """Cuts between `count` parts of a structure.

        Parameters
        ----------
        points : (N, 3) float array
            Its voxels, scanner mm (RAS); without any there is nothing to cut.
        count : int
        front : (3,) float array
            Direction of the head's front.

        Examples
        --------
        >>> cuts = Cuts.across(np.array([(0.0, y, 0.1 * y) for y in range(11)]), 5)
        >>> bool(cuts.direction[1] > 0.99), cuts.places.round(1)
        (True, array([2., 4., 6., 8.]))
        """
        if len(points) < 2:
            return cls(np.array([0.0, 1.0, 0.0]), np.zeros(count - 1))
        direction = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
        direction = direction if direction @ np.asarray(front) > 0 else -direction
        along = points @ direction
        return cls(direction, np.linspace(along.min(), along.max(), count + 1)[1:-1])

    def part_of(self, grid: Grid) -> Tensor:
        """Number of the part, from 0 at the back, in which each voxel lies: (x, y, z) tensor."""
        steps = self.direction @ grid.affine[:3, :3]
        start = self.direction @ grid.affine[:3, 3]
        x, y, z = (step * np.arange(n) for step, n in zip(steps, grid.shape, strict=True))
        along = start + x[:, None, None] + y[:, None] + z
        return torch.from_numpy(np.searchsorted(self.places, along))


@dataclass(frozen=True)
class Divider:
    """Makes the logits of written labels from those of a model.

    Attributes
    ----------
    division : Division
    cuts : Cuts or None
        None where nothing is cut into fifths.
    """

    division: Division
    cuts: Cuts | None

    @classmethod
    def of(cls, division: Division, label: Tensor, grid: Grid) -> Divider:
        """The divider of a scan.

        Parameters
        ----------
        division : Division
        label : (R, x, y, z) float tensor
            Logits of the model's structures and parts.
        grid : Grid
            Where they lie.
        """
        if not division.fifths:
            return cls(division, None)
        row = division.rows[division.fifths[0]]
        places = np.argwhere((most_probable(label) == row + 1).cpu().numpy())
        points = places @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        # the second axis of the working grid, and of an upright one, points to the front
        return cls(division, Cuts.across(points, len(division.fifths), grid.affine[:3, 1]))

    def divided(self, label: Tensor, p: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Logits and probabilities of the written labels.

        A part lies where both it and its structure do, the rest where the structure does and the
        part doesn't: the smaller of the two probabilities counts. Both compete with other
        structures as the whole does, so that together they are the whole.

        Parameters
        ----------
        label, p : (R, x, y, z) float tensor
            Logits and probabilities (`uncertainty.probability_map`) of the model's structures and
            parts.
        grid : Grid
            Of the voxels.
        """
        rows = torch.tensor(self.division.rows, device=label.device)
        label, p = label[rows], p[rows]
        for left, part in self.division.split:
            whole, inner = label[left].clone(), label[part].clone()
            label[part] = torch.where(inner > 0, whole, torch.minimum(whole, inner))
            label[left] = torch.where(inner > 0, torch.minimum(whole, -inner), whole)
            whole, inner = p[left].clone(), p[part].clone()
            p[part], p[left] = torch.minimum(whole, inner), torch.minimum(whole, 1 - inner)
        if self.cuts is not None:
            fifth = self.cuts.part_of(grid).to(label.device)
            for number, place in enumerate(self.division.fifths):
                label[place].masked_fill_(fifth != number, OUTSIDE_LOGIT)
                p[place].masked_fill_(fifth != number, 0.0)
        return label, p
