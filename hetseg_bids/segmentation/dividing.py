"""All labels of an aseg from the logits of structures and their parts.

On the grid of the results, so that what is left of a structure and its part meet without a gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.images import Grid
from hetseg_bids.network.systems import Heteroscedastic
from hetseg_bids.segmentation.islands import most_probable
from hetseg_bids.structures.divisions import Division

OUTSIDE_LOGIT = -20.0
"""Logit, and second output of any system, where a structure certainly isn't."""


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
    def across(cls, points: npt.NDArray[np.float64], count: int) -> Cuts:
        """Cuts between `count` parts of a structure.

        Parameters
        ----------
        points : (N, 3) float array
            Its voxels, scanner mm (RAS); without any there is nothing to cut.
        count : int

        Examples
        --------
        >>> cuts = Cuts.across(np.array([(0.0, y, 0.1 * y) for y in range(11)]), 5)
        >>> bool(cuts.direction[1] > 0.99), cuts.places.round(1)
        (True, array([2., 4., 6., 8.]))
        """
        if len(points) < 2:
            return cls(np.array([0.0, 1.0, 0.0]), np.zeros(count - 1))
        direction = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
        direction = direction if direction[1] > 0 else -direction
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
        places = np.argwhere((most_probable(label) == row + 1).numpy())
        points = places @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        return cls(division, Cuts.across(points, len(division.fifths)))

    def divided(
        self,
        label: Tensor,
        second_output: Tensor | None,
        system: Heteroscedastic | None,
        grid: Grid,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits and second outputs of the written labels.

        A part lies where both it and its structure do, the rest where the structure does and the
        part doesn't. Both compete with other structures as the whole does, so that together they
        are the whole; the second output is that of the less likely of the two statements.

        Parameters
        ----------
        label, second_output : (R, x, y, z) float tensor, or None for the second
        system : Heteroscedastic or None
            What the second output means.
        grid : Grid
            Of the voxels.
        """
        if not self.division.of_parts:
            count = len(self.division.rows)
            return label[:count], None if second_output is None else second_output[:count]
        rows = torch.tensor(self.division.rows)
        label = label[rows]
        second = None if second_output is None else second_output[rows]
        for left, part in self.division.split:
            whole, inner = label[left].clone(), label[part].clone()
            within, beyond = inner < whole, -inner < whole
            label[part] = torch.where((inner <= 0) & within, inner, whole)
            label[left] = torch.where((inner > 0) & beyond, -inner, whole)
            if second is not None and system is not None:
                of_whole, of_part = second[left].clone(), second[part].clone()
                second[part] = torch.where(within, of_part, of_whole)
                second[left] = torch.where(beyond, system.opposite(of_part), of_whole)
        if self.cuts is not None:
            fifth = self.cuts.part_of(grid)
            for number, place in enumerate(self.division.fifths):
                elsewhere = fifth != number
                label[place].masked_fill_(elsewhere, OUTSIDE_LOGIT)
                if second is not None:
                    second[place].masked_fill_(elsewhere, OUTSIDE_LOGIT)
        return label, second
