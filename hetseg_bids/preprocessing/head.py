"""The whole head at 2 mm, as the head model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.field import Box, box_of, head_box
from hetseg_bids.preprocessing.normalisation import BACKGROUND, CLIP, typical_high

_HIGHEST = 220  # mm from the crown to the lower end of the box
_MARGIN = 8  # mm of air around the head
_AIR = 0.15  # of the bright voxels' value; skull and fluid are mostly above it
_NEAR = 5  # voxels of 2 mm: bone and most of the scalp


def standardise_head(image: Tensor) -> Tensor:
    """Standard scores over all that isn't air, clipped; air has them, too.

    Parameters
    ----------
    image : (X, Y, Z) float32 tensor
        A whole head.

    Returns
    -------
    scores : (X, Y, Z) float32 tensor

    Raises
    ------
    ValueError
        If the image is constant.

    Examples
    --------
    >>> import torch
    >>> image = torch.tensor([0.0, 90, 110]).view(3, 1, 1)
    >>> standardise_head(image).flatten()
    tensor([-3., -1.,  1.])
    """
    # numpy: torch's sums depend on the number of threads
    values = image.numpy()
    inside = values[values > _AIR * typical_high(values)]
    spread = float(inside.std(dtype=np.float64)) if inside.size else 0.0
    if not spread > 0:
        raise ValueError("image is constant")
    mean = float(inside.mean(dtype=np.float64))
    return ((image - mean) / spread).clamp_(BACKGROUND, CLIP)


@dataclass(frozen=True)
class Head:
    """A whole head at 2 mm.

    Attributes
    ----------
    scores : (x, y, z) float32 tensor
        `standardise_head` of the box around the head, its upper 22 cm at most.
    grid : Grid
        RAS, 2 mm.
    """

    scores: Tensor
    grid: Grid


def find_head(
    conformed: Tensor, working: Grid, background: float = 0.0, around: Box | None = None
) -> Head:
    """The head of an image that isn't stripped.

    Parameters
    ----------
    conformed : (X, Y, Z) float32 tensor
        The T1w on the working grid.
    working : Grid
        RAS, 1 mm.
    background : float
        Value of the air.
    around : tuple of 3 slice, optional
        Its `head_box`, where that is known.

    Raises
    ------
    ValueError
        If the image is constant.

    Examples
    --------
    >>> import torch
    >>> image = torch.zeros(64, 64, 64)
    >>> image[16:48, 16:48, 16:48] = 100 + torch.rand(32, 32, 32)
    >>> head = find_head(image, Grid((64, 64, 64), np.eye(4)))
    >>> head.scores.shape, head.grid.zooms, head.grid.affine[:3, 3]
    (torch.Size([24, 24, 24]), array([2., 2., 2.]), array([8.5, 8.5, 8.5]))
    """
    a, b, c = around or head_box(conformed.numpy())
    # shoulders would take time and change the scores
    c = slice(max(c.start, c.stop - _HIGHEST), c.stop)
    box = tuple(
        slice(max(0, s.start - _MARGIN), min(n, s.stop + _MARGIN))
        for s, n in zip((a, b, c), working.shape, strict=True)
    )
    part = working.part((box[0], box[1], box[2]))
    inside = conformed[box] - background
    odd = [n % 2 for n in inside.shape]
    whole = functional.pad(inside[None, None], (0, odd[2], 0, odd[1], 0, odd[0]), mode="replicate")
    halved = functional.avg_pool3d(whole, 2)[0, 0]
    into = np.diag([2.0, 2.0, 2.0, 1.0])
    into[:3, 3] = 0.5  # the middle of the first two voxels
    i, j, k = halved.shape
    return Head(standardise_head(halved), Grid((i, j, k), part.affine @ into, part.codes))


def near_skull(head: Head, inside: Tensor) -> tuple[Head, tuple[slice, slice, slice]]:
    """The head without face, neck and whatever else is far from the inside of the skull.

    The network's norms see a whole slice, so that a face which was taken off would move all of the
    border a little.

    Parameters
    ----------
    head : Head
    inside : (x, y, z) bool tensor
        Roughly the inside of the skull; not empty.

    Returns
    -------
    near : Head
        The box around what is left, with standard scores of its own.
    box : tuple of 3 slice
        Where it lies in the head.

    Raises
    ------
    ValueError
        If all that is left has one value.
    """
    near = within(inside, _NEAR)
    box = box_of(near.numpy())
    assert box is not None  # noqa: S101 (`inside` isn't empty)
    part = head.scores[box] - head.scores.min()
    part[~near[box]] = 0
    return Head(standardise_head(part), head.grid.part(box)), box


def within(mask: Tensor, reach: int) -> Tensor:
    """Voxels at most `reach` from a (x, y, z) bool mask along each axis.

    Examples
    --------
    >>> import torch
    >>> within(torch.tensor([0, 0, 0, 1, 0]).bool().view(5, 1, 1), 2).int().flatten().tolist()
    [0, 1, 1, 1, 1]
    """
    for axis, size in enumerate(mask.shape):
        wide = mask.clone()
        for step in range(1, min(reach, size - 1) + 1):
            rest = size - step
            wide.narrow(axis, step, rest).logical_or_(mask.narrow(axis, 0, rest))
            wide.narrow(axis, 0, rest).logical_or_(mask.narrow(axis, step, rest))
        mask = wide
    return mask
