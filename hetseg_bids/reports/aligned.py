"""Scans of one person side by side, aligned rigidly for the eye alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from hetseg_bids.errors import ImageError
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.preprocessing.conform import nearest, resample
from hetseg_bids.preprocessing.headers import read_t1w
from hetseg_bids.reports.mosaics import Picture, View, draw_side_by_side
from hetseg_bids.structures.alignment import centroids, rigid_affine
from hetseg_bids.structures.aseg import ASEG, is_whole
from hetseg_bids.structures.label_sets import LabelSet

_MARGIN = 5  # mm around the brain


def draw_aligned(scans: Sequence[tuple[Path, Path]], label_set: LabelSet) -> list[Picture]:
    """Slices through the same place of each scan.

    The first scan is turned upright by the centroids of its structures, and the others are laid
    over it by theirs.

    Parameters
    ----------
    scans : sequence of (Path, Path)
        T1w and dseg of each.
    label_set : LabelSet
        Labels of the dseg images.

    Raises
    ------
    ImageError
        If an image can't be read or aligned.
    """
    views: list[View] = []
    first: dict[str, npt.NDArray[np.float64]] = {}
    upright, target = np.eye(4), Grid((1, 1, 1), np.eye(4))
    for path, dseg in scans:
        labels, grid = read_labels(dseg)
        found = _places(labels, grid, label_set)
        if not views:
            standing = rigid_affine(found)  # None for structures that the template doesn't have
            upright = upright if standing is None else standing
            target = _around(labels, Grid(grid.shape, upright @ grid.affine))
            first = found
        move = rigid_affine(found, first)
        if move is None:
            raise ImageError("too few structures to align it with the others", path=dseg)
        t1w = read_t1w(path)
        there = upright @ move
        moved = nearest(labels.astype(np.uint8), Grid(grid.shape, there @ grid.affine), target)
        source = Grid(t1w.grid.shape, there @ t1w.grid.affine)
        image = resample(torch.from_numpy(t1w.data)[None], source, target)[0].numpy()
        views.append(View(image, moved, None, moved > 0, target.affine, label_set))
    middle = nib.affines.apply_affine(upright, np.mean(list(first.values()), axis=0))
    voxel = np.rint(middle - target.affine[:3, 3]).astype(int)
    return draw_side_by_side(views, voxel.clip(0, np.array(target.shape) - 1).tolist())


def _places(
    labels: npt.NDArray[np.int32], grid: Grid, label_set: LabelSet
) -> dict[str, npt.NDArray[np.float64]]:
    if is_whole(label_set.names):  # the template has whole structures
        labels, label_set = ASEG.collapse(labels).astype(np.int32), ASEG
    return centroids(labels, grid, label_set.structures)


def _around(labels: npt.NDArray[np.int32], grid: Grid) -> Grid:
    """A grid of 1 mm around what is labelled."""
    if not labels.any():
        raise ImageError("nothing is labelled")
    places = nib.affines.apply_affine(grid.affine, np.argwhere(labels > 0))
    low = np.floor(places.min(axis=0)) - _MARGIN
    high = np.ceil(places.max(axis=0)) + _MARGIN
    x, y, z = (int(n) + 1 for n in high - low)
    return Grid((x, y, z), nib.affines.from_matvec(np.eye(3), low))
