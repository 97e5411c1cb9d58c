"""Deep structures that are made larger or smaller than in the label map.

Twenty maps show little of the variety of people: of two real scans, one had pallida that were 3-4
standard deviations of the maps larger than expected for its size, and one accumbens 2.5 larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from hetseg_bids.structures.aseg import ASEG

_NAMES = (
    "thalamus",
    "caudate",
    "putamen",
    "pallidum",
    "accumbens",
    "hippocampus",
    "amygdala",
    "ventral_dc",
    "third_ventricle",
    "fourth_ventricle",
)
# aseg ids, left and right together
RESIZED = tuple(
    tuple(i for s in ASEG.structures if s.bare_name == name for i in s.members) for name in _NAMES
)
_WIDTH = 1.2  # standard deviation of the Gaussian window, in radii of the structure
_REACH = 2.5  # standard deviations; beyond them nothing moves
_OWN = 0.5  # spread of each side by itself, as a share of the spread of both together
_SLACK = 12.0  # voxels; the smooth warp moves no structure further


@dataclass(frozen=True)
class Place:
    """Where a structure of a map lies.

    Attributes
    ----------
    centre : (3,) float array
        Voxels of the map.
    radius : float
        Of a ball of the same volume, voxels.
    """

    centre: npt.NDArray[np.float64]
    radius: float


def find_places(labels: Tensor) -> dict[int, Place]:
    """Centre and radius of each structure of `RESIZED` that the map holds.

    Parameters
    ----------
    labels : (X, Y, Z) uint8 tensor
        aseg ids.

    Returns
    -------
    places : dict of int to Place
        By aseg id.

    Examples
    --------
    >>> labels = torch.zeros(16, 16, 16, dtype=torch.uint8)
    >>> labels[4:8, 4:8, 6:10] = 10
    >>> place = find_places(labels)[10]
    >>> place.centre, round(place.radius, 2)
    (array([5.5, 5.5, 7.5]), 2.48)
    """
    ids = [label for sides in RESIZED for label in sides]
    array = labels.cpu().numpy()
    volumes = np.bincount(array.reshape(-1), minlength=256)
    present = [label for label in ids if volumes[label]]
    centres = ndimage.center_of_mass(array > 0, array, present) if present else []
    return {
        label: Place(np.array(centre), float(np.cbrt(0.75 * volumes[label] / np.pi)))
        for label, centre in zip(present, centres, strict=True)
    }


def resize_(
    rng: np.random.Generator,
    positions: Sequence[Tensor],
    places: dict[int, Place],
    spread: float,
    guess: npt.NDArray[np.float64],
) -> None:
    """Draw a size for each structure and move the positions around it.

    A position p near the centre c becomes c + (p - c) (1 + s w(|p - c|)), where w is a Gaussian:
    neighbours move out of the way, and distant structures don't move.

    Parameters
    ----------
    rng : numpy.random.Generator
    positions : 3 (X, Y, Z) float32 tensors
        Voxel of the map from which each voxel of the frame is taken; change.
    places : dict of int to Place
    spread : float
        Standard deviation of the log of the factor on lengths at the centre.
    guess : (3, 4) float array
        Map voxels to frame voxels without the warp; says where to look.
    """
    shape = positions[0].shape
    for sides in RESIZED:
        common = rng.normal(0, spread)
        for label in sides:
            strength = float(np.exp(-common - rng.normal(0, _OWN * spread))) - 1
            place = places.get(label)
            if place is None:
                continue
            sigma = _WIDTH * place.radius
            middle = guess[:, :3] @ place.centre + guess[:, 3]
            box = tuple(
                slice(max(0, int(m - _REACH * sigma - _SLACK)), int(m + _REACH * sigma + _SLACK))
                for m in middle
            )
            if all(
                part.start < min(part.stop, size) for part, size in zip(box, shape, strict=True)
            ):
                _scale_([p[box] for p in positions], place.centre, sigma, strength)


def _scale_(
    positions: Sequence[Tensor], centre: npt.NDArray[np.float64], sigma: float, strength: float
) -> None:
    offsets = [p - float(c) for p, c in zip(positions, centre, strict=True)]
    x, y, z = offsets
    square = (x * x + y * y + z * z) / (sigma * sigma)
    weight = torch.exp(-0.5 * square).mul_(square < _REACH * _REACH).mul_(strength)
    for position, offset in zip(positions, offsets, strict=True):
        position.add_(offset.mul_(weight))
