"""The background of a scan, and the box that holds everything else."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hetseg_bids.preprocessing.normalisation import typical_high

Box = tuple[slice, slice, slice]

_FAINT = 1e-3  # share of the bright voxels' value: smaller differences are rounding errors
_COMMON = 0.01  # share of the border's voxels: no single value of noise in floats reaches it
_BLOCK = 4  # edge of a block in voxels: the mean over a block holds little noise
_AIR = 25.0  # percentile of the border: a head may cover the other three quarters of it
_HEAD = 0.15  # of the way from air to the bright voxels: skin and fat are far brighter
_PIECE = 0.1  # of the largest piece: skin and brain are larger, a capsule of vitamin E isn't
_ROUNDS = 3


def find_field(image: npt.NDArray[np.float32]) -> tuple[float, Box]:
    """Background value, and the box of everything else.

    Layers of one value are removed until none is left, because padding may lie around a
    background of another value.

    Parameters
    ----------
    image : (X, Y, Z) float32 array

    Returns
    -------
    background : float
        The value around the content: the most frequent one on the faces of the image. Where air
        is noise and no value is frequent, the median of the darkest face.
    content : tuple of 3 slice
        All voxels that differ from the background; the whole image where nothing does.

    Examples
    --------
    >>> image = np.zeros((9, 9, 9), np.float32)  # padding
    >>> image[1:8, 1:8, 1:8] = 7  # background
    >>> image[2:7, 4, 4] = image[4, 3:6, 4] = 100
    >>> find_field(image)
    (7.0, (slice(2, 7, None), slice(3, 6, None), slice(4, 5, None)))
    """
    content = _whole(image)
    while True:
        background = _border_value(image[content])
        inner = box_of(image[content] != background)
        if inner is None or inner == _whole(image[content]):
            return background, content
        content = _within(content, inner)


def foreground(image: npt.NDArray[np.float32], background: float) -> npt.NDArray[np.bool_]:
    """Voxels that differ from the background by more than a rounding error.

    Parameters
    ----------
    image : (X, Y, Z) float32 array
    background : float

    Returns
    -------
    mask : (X, Y, Z) bool array

    Examples
    --------
    >>> foreground(np.array([[[0, 0.01, 100]]], np.float32), 0.0)
    array([[[False, False,  True]]])
    """
    mask = np.zeros_like(image, dtype=bool)
    box = box_of(image != background)  # a difference of the whole image would be much memory
    if box is not None:
        difference = image[box] - background
        np.abs(difference, out=difference)
        mask[box] = difference > _FAINT * typical_high(difference)
    return mask


def head_box(image: npt.NDArray[np.float32]) -> Box:
    """The box around a head; the amount of air, noise or padding around it doesn't change it.

    Parameters
    ----------
    image : (X, Y, Z) float32 array
        1 mm.

    Returns
    -------
    box : tuple of 3 slice

    Examples
    --------
    >>> image = np.zeros((40, 40, 40), np.float32)
    >>> image[8:24, 8:24, 8:24] = 100
    >>> head_box(image)[0]
    slice(8, 24, None)
    """
    background, box = find_field(image)
    coarse = _block_means(np.abs(image[box] - background))
    faces = np.concatenate([f.ravel() for f in _faces(coarse)])
    air = float(np.percentile(faces, _AIR))
    inner = _whole(coarse)
    for _ in range(_ROUNDS):  # what counts as bright must not depend on how much air there is
        limit = air + _HEAD * (typical_high(coarse[inner]) - air)
        found = box_of(_large_pieces(coarse > limit))
        if found is None or found == inner:
            break
        inner = found
    a, b, c = (slice(i.start * _BLOCK, i.stop * _BLOCK) for i in inner)
    return _within(box, (a, b, c))


def _border_value(image: npt.NDArray[np.float32]) -> float:
    faces = [face.ravel() for face in _faces(image)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    if counts.max() >= _COMMON * counts.sum():
        return float(values[np.argmax(counts)])
    return float(min(np.median(face) for face in faces))


def _faces(image: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    # views: take() would copy all of an image whose x runs fastest, as in a NIfTI file
    return [np.moveaxis(image, axis, 0)[place] for axis in range(3) for place in (0, -1)]


def box_of(mask: npt.NDArray[np.bool_]) -> Box | None:
    """Bounding box of a mask, None if it is empty."""
    box = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        places = np.nonzero(mask.any(axis=others))[0]
        if not len(places):
            return None
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return box[0], box[1], box[2]


def _whole(image: npt.NDArray[np.generic]) -> Box:
    i, j, k = image.shape
    return slice(0, i), slice(0, j), slice(0, k)


def _within(outer: Box, inner: Box) -> Box:
    """A box inside another one, as a box of the whole."""
    a, b, c = (
        slice(o.start + i.start, min(o.start + i.stop, o.stop))
        for o, i in zip(outer, inner, strict=True)
    )
    return a, b, c


def _block_means(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Means over blocks; voxels beyond the last whole block repeat the last one."""
    image = np.pad(image, [(0, -n % _BLOCK) for n in image.shape], mode="edge")
    i, j, k = (n // _BLOCK for n in image.shape)
    blocks = image.reshape(i, _BLOCK, j, _BLOCK, k, _BLOCK)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), dtype=np.float32)


def largest_piece(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest piece of a mask whose voxels touch by their faces; an empty one stays.

    Examples
    --------
    >>> largest_piece(np.array([True, False, True, True]))
    array([False, False,  True,  True])
    """
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _large_pieces(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= _PIECE * sizes.max())[labels])
