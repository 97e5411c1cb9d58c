"""A lesion that somebody outlined: reading its mask, and what the network sees in its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from torch import Tensor

from hetseg_bids.errors import HeaderError, ImageError, MaskError
from hetseg_bids.images import Grid, open_image, read_voxels
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.preprocessing.forms import find_place

_RIM = 2  # voxels around the lesion that may be lesion in part, so that none is copied from them
_SMOOTHING = 3.0  # voxels: without it, the network finds the covered structures less well
_MOST_OF_THE_BRAIN = 0.5
_LEAST_NEAR = 0.5  # of the lesion, in the brain's bounding box
_LEAST_INSIDE = 0.8  # of the lesion, in the brain mask
_MM3_PER_ML = 1000.0

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lesion:
    """A lesion mask on the grid on which it is stored.

    Attributes
    ----------
    mask : (I, J, K) uint8 array
        1 in the lesion.
    grid : Grid

    Examples
    --------
    >>> lesion = Lesion(np.array([0, 1], np.uint8).reshape(2, 1, 1), Grid((2, 1, 1), np.eye(4)))
    >>> lesion.ml, lesion.on(Grid((3, 1, 1), np.diag([0.4, 1, 1, 1]))).ravel()
    (0.001, array([False, False,  True]))
    """

    mask: npt.NDArray[np.uint8]
    grid: Grid

    @property
    def ml(self) -> float:
        """Its volume, ml."""
        return float(np.count_nonzero(self.mask)) * self.grid.voxel_volume / _MM3_PER_ML

    def on(self, target: Grid) -> Mask:
        """Its voxels on another grid, by the nearest of its own: (X, Y, Z) bool array."""
        return nearest(self.mask, self.grid, target) > 0


def read_lesion(path: Path) -> Lesion:
    """Read a lesion mask; a voxel of more than 0.5 is lesion.

    Raises
    ------
    MaskError
        If it can't be read, isn't 3-D or has no place in space.
    """
    try:
        image = open_image(path)
        if any(n != 1 for n in image.shape[3:]) or len(image.shape) < 3:
            raise HeaderError(f"shape {image.shape}, a 3-D lesion mask expected", path=path)
        grid, _ = find_place(path, image)  # as for the T1w, whose header it shares mostly
        voxels = read_voxels(path, image).reshape(grid.shape)
    except ImageError as error:
        raise MaskError(error.problem, error.remedy, path=error.path, form=error.form) from None
    return Lesion((voxels > 0.5).astype(np.uint8), grid)


def place_lesion(lesion: Lesion, brain: Mask, working: Grid, path: Path) -> tuple[Mask, list[str]]:
    """A lesion on the working grid, and warnings.

    Parameters
    ----------
    lesion : Lesion
        Not empty.
    brain : (X, Y, Z) bool array
        Brain mask on the working grid.
    working : Grid
    path : Path
        Of the mask, for the messages.

    Returns
    -------
    inside : (X, Y, Z) bool array
        Without what lies beyond the bounding box of the brain.
    warnings : list of str

    Raises
    ------
    MaskError
        If it doesn't lie in this brain, or covers most of it.
    """
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    inside = np.zeros(brain.shape, bool)
    inside[box] = lesion.on(working.part(box))
    near_ml, both_ml, brain_ml = (
        float(part.sum()) / _MM3_PER_ML for part in (inside, inside & brain, brain)
    )
    if both_ml > _MOST_OF_THE_BRAIN * brain_ml:
        raise MaskError(
            f"the lesion mask of {lesion.ml:.0f} ml covers most of the brain "
            f"({both_ml:.0f} of {brain_ml:.0f} ml)",
            "give a mask that is 1 in the lesion and 0 elsewhere",
            path=path,
        )
    if near_ml < _LEAST_NEAR * lesion.ml or not near_ml:
        raise MaskError(
            f"only {near_ml / lesion.ml:.0%} of the lesion mask ({lesion.ml:.1f} ml) lie at the "
            "brain",
            "it must be in the space of the T1w, and not of a template",
            path=path,
        )
    share = both_ml / near_ml
    if share >= _LEAST_INSIDE:
        return inside, []
    return inside, [
        f"{1 - share:.0%} of the lesion mask lie outside the brain mask; look at both contours"
    ]


def fill_lesion(image: Tensor, lesion: Mask, brain: Mask) -> Tensor:
    """An image in whose lesion each voxel has the value of the nearest healthy brain, smoothed.

    The network was trained on brains without lesions: what it sees there changes its labels
    around the lesion and on the other side of the brain (docs/lesions.md).

    Parameters
    ----------
    image : (X, Y, Z) float32 tensor
    lesion, brain : (X, Y, Z) bool array

    Returns
    -------
    filled : (X, Y, Z) float32 tensor
        The image itself where no brain is left.

    Examples
    --------
    >>> import torch
    >>> image = torch.tensor([5.0, 6, 7, 0, 0]).view(5, 1, 1)
    >>> lesion = (image == 0).numpy()
    >>> fill_lesion(image, lesion, np.ones((5, 1, 1), bool)).flatten()  # 6 and 7 are its rim
    tensor([5., 6., 7., 5., 5.])
    """
    box = ndimage.find_objects((brain | lesion).astype(np.uint8))[0]
    there = lesion[box]
    healthy = brain[box] & ~ndimage.binary_dilation(there, iterations=_RIM)
    if not healthy.any():
        return image
    places = ndimage.distance_transform_edt(~healthy, return_distances=False, return_indices=True)
    part = image.numpy()[box]
    filled = image.clone()
    filled.numpy()[box][there] = ndimage.gaussian_filter(part[tuple(places)], _SMOOTHING)[there]
    return filled
