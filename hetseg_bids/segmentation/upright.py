"""Heads that lie far from upright are looked at a second time, turned upright.

The network has seen heads that were turned by 12 degrees at most. How far a head is turned follows
from the places of its structures, which are found well enough for that even when it lies on its
side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation
from torch import Tensor

from hetseg_bids.images import Grid
from hetseg_bids.network.models import Model
from hetseg_bids.preprocessing.conform import interpolation_blur, resample_inside
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.pipeline import PreparedImage
from hetseg_bids.preprocessing.transfer import volume_device
from hetseg_bids.segmentation.coarse import STRIDE, CoarseLook
from hetseg_bids.segmentation.inference import Logits, predict
from hetseg_bids.structures.alignment import MOST_MISFIT_MM, misfit, rigid_affine

# sub-swmribbon turned to 12.9 degrees: Dice .880, upright .874; to 16.6: .843 and .863
UPRIGHT_DEG = 15.0
_MARGIN = 2 * STRIDE  # mm around the brain


@dataclass(frozen=True)
class Predicted:
    """What the network says of a scan.

    Attributes
    ----------
    logits : Logits
    grid : Grid
        The grid of which they have a box: the working grid, or an upright one.
    extent : Grid
        The box of the working grid that holds the brain.
    turned_deg : float
        How far the head was turned for it, degrees; 0 if it wasn't.
    """

    logits: Logits
    grid: Grid
    extent: Grid
    turned_deg: float = 0.0


def predict_upright(
    model: Model,
    prepared: PreparedImage,
    output: Grid,
    *,
    views: Sequence[str],
    mirror: bool = True,
    parts: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Predicted:
    """Logits of a scan; if its head is turned by more than 15 degrees, of the upright head.

    Parameters
    ----------
    model, views, mirror, parts, progress
        See `predict`. `progress` begins anew for a second look.
    prepared : PreparedImage
    output : Grid
        Where the logits are resampled to afterwards.
    """

    def look(image: Tensor, mask: Tensor, grid: Grid) -> Logits:
        return predict(
            model,
            image,
            mask,
            views=views,
            mirror=mirror,
            blur=interpolation_blur(grid, output),
            parts=parts,
            progress=progress,
        )

    logits = look(prepared.image, prepared.mask, prepared.working)
    extent = prepared.working.part(logits.box)
    rotation, degrees = rotation_to_template(CoarseLook.of(logits, prepared.working))
    if degrees <= UPRIGHT_DEG:
        return Predicted(logits, prepared.working, extent)
    del logits  # before there are others
    grid = upright_grid(prepared.mask.numpy(), prepared.working, rotation)
    image, mask = prepared.image.numpy(), prepared.mask.numpy()
    there = volume_device(model.device)
    turned = resample_inside(image, mask, prepared.working, grid, outside=BACKGROUND, device=there)
    return Predicted(look(*turned, grid), grid, extent, degrees)


def rotation_to_template(look: CoarseLook) -> tuple[npt.NDArray[np.float64], float]:
    """Rotation from scanner space to the template: (3, 3) float array, and its angle, degrees.

    None where the structures don't have the places of a brain's. The fit is rigid: a free affine of
    structures that the network named by their side of the image may be a reflection.
    """
    found = look.centroids()
    affine = rigid_affine(found)
    if affine is None or misfit(found, affine) > MOST_MISFIT_MM:
        return np.eye(3), 0.0
    rotation = affine[:3, :3]
    return rotation, float(np.degrees(Rotation.from_matrix(rotation).magnitude()))


def upright_grid(
    mask: npt.NDArray[np.bool_], grid: Grid, rotation: npt.NDArray[np.float64]
) -> Grid:
    """A grid of 1 mm around a brain whose axes are those of the template.

    Parameters
    ----------
    mask : (X, Y, Z) bool array on `grid`
    grid : Grid
    rotation : (3, 3) float array
        From directions in scanner space to those of the template.

    Examples
    --------
    >>> mask = np.zeros((20, 20, 20), bool)
    >>> mask[2:19, 6:11, 8:11] = True
    >>> quarter = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # y of the scanner is x upright
    >>> upright = upright_grid(mask, Grid(mask.shape, np.eye(4)), quarter)
    >>> upright.shape
    (13, 25, 11)
    """
    places = np.argwhere(mask[::STRIDE, ::STRIDE, ::STRIDE]) * STRIDE
    along = nib.affines.apply_affine(grid.affine, places) @ rotation.T
    first = np.floor(along.min(axis=0)) - _MARGIN
    i, j, k = (np.ceil(along.max(axis=0)) + _MARGIN - first + 1).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = rotation.T
    affine[:3, 3] = rotation.T @ first
    return Grid((int(i), int(j), int(k)), affine, grid.codes)
