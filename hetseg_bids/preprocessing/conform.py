"""The working grid: RAS, 1 mm, axes along the scanner's; and the way back."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from nibabel.spaces import vox2out_vox
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from hetseg_bids.images import ALIGNED, Grid
from hetseg_bids.preprocessing.transfer import CPU, to_device, to_host

_SAME_GRID_TOLERANCE = 0.01  # voxels
# mm: a target voxel midway between brain and background has exactly half of its weight in the mask,
# and no such voxel would count; shifted by this, those on one side of the brain do
_ASIDE = np.array([[0, 0, 0, 2e-3]] * 3 + [[0, 0, 0, 0]])
_PLACES = 31  # sampled along each axis; a prime, so that they do not coincide with source voxels
_SLAB = 16  # output slices resampled at a time, bounds memory


def working_grid(native: Grid) -> Grid:
    """The 1 mm RAS grid that covers a native grid.

    A grid that is 1 mm and unrotated already is only re-ordered, so that no voxel is
    interpolated.  It lies in the same space; where that is unknown it becomes "aligned".

    Examples
    --------
    >>> working = working_grid(Grid((10, 20, 30), np.diag([2.0, 2, 2, 1])))
    >>> working.shape, working.zooms
    ((19, 39, 59), array([1., 1., 1.]))
    >>> working_grid(Grid((10, 20, 30), np.diag([-1.0, 1, 1, 1]))).affine[0]  # LAS to RAS
    array([ 1.,  0.,  0., -9.])
    """
    codes = native.codes if any(native.codes) else (ALIGNED, ALIGNED)
    canonical = nib.as_closest_canonical(
        nib.Nifti1Image(np.broadcast_to(np.uint8(0), native.shape), native.affine)
    )
    rotation_zoom = canonical.affine[:3, :3]
    if np.abs((rotation_zoom - np.eye(3)) * np.array(canonical.shape)).max() < 0.5:
        return Grid(canonical.shape, np.asarray(canonical.affine), codes)
    shape, affine = vox2out_vox((native.shape, native.affine), (1.0, 1.0, 1.0))
    size = tuple(int(n) for n in shape)
    return Grid(size, np.asarray(affine), codes)  # type: ignore[arg-type]


def resample(volumes: Tensor, source: Grid, target: Grid, *, outside: float = 0.0) -> Tensor:
    """Trilinear resampling of a stack of volumes between grids.

    Parameters
    ----------
    volumes : (C, X, Y, Z) float tensor on `source`
    source, target : Grid
    outside : float
        Value beyond the source.

    Returns
    -------
    resampled : (C, *target.shape) float32 tensor
        On the device of the volumes.

    Examples
    --------
    >>> two_mm, one_mm = Grid((2, 1, 1), np.diag([2.0, 1, 1, 1])), Grid((3, 1, 1), np.eye(4))
    >>> volume = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1)
    >>> resample(volume, two_mm, one_mm).flatten()
    tensor([10., 15., 20.])
    """
    mapping = np.linalg.inv(source.affine) @ target.affine
    reordered = _reordered(volumes, mapping, target.shape)
    if reordered is not None:
        return reordered.float().contiguous()
    order = _followed_axes(mapping, target.shape)
    if order is not None:
        return _interpolate_axes(volumes, mapping, order, target.shape, outside)
    device = volumes.device
    out = torch.empty((len(volumes), *target.shape), dtype=torch.float32, device=device)
    everywhere = torch.ones((), device=device).expand(1, 1, *source.shape)
    for start in range(0, target.shape[0], _SLAB):
        stop = min(start + _SLAB, target.shape[0])
        grid = _sampling_grid(mapping, source.shape, target.shape, start, stop, device)
        part = functional.grid_sample(volumes.float()[None], grid, align_corners=True)[0]
        if outside:
            # grid_sample continues with zeros: the rest of each voxel is `outside`
            inside = functional.grid_sample(everywhere, grid, align_corners=True)[0]
            part += outside * (1 - inside)
        out[:, start:stop] = part
    return out


def resample_inside(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    source: Grid,
    target: Grid,
    *,
    outside: float,
    device: torch.device = CPU,
) -> tuple[Tensor, Tensor]:
    """Trilinear resampling of the voxels of a mask, from voxels of the mask only.

    Interpolated with the background, the rim of a stripped brain would look like fluid.

    Parameters
    ----------
    image : (I, J, K) float32 array on `source`
    mask : (I, J, K) bool array
    source, target : Grid
    outside : float
        Value beyond the mask.
    device : torch.device
        Which device interpolates.

    Returns
    -------
    resampled : (X, Y, Z) float32 tensor
        Means over voxels of the mask, weighted as for trilinear interpolation.
    inside : (X, Y, Z) bool tensor
        Where voxels of the mask have more than half of the weight.

    Examples
    --------
    >>> image = np.array([10, 99], np.float32).reshape(2, 1, 1)
    >>> mask = image < 99
    >>> source, target = Grid((2, 1, 1), np.eye(4)), Grid((3, 1, 1), np.diag([0.4, 1, 1, 1]))
    >>> values, inside = resample_inside(image, mask, source, target, outside=0)
    >>> values.flatten().round(), inside.flatten()  # at 0, 0.4 and 0.8 voxels: no share of the 99
    (tensor([10., 10.,  0.]), tensor([ True,  True, False]))
    """
    target = replace(target, affine=target.affine + _ASIDE)
    weight = resample(to_device(torch.from_numpy(mask)[None], device), source, target)[0]
    inside = weight > 0.5
    kept = to_device(torch.from_numpy(np.where(mask, image, np.float32(0))), device)
    values = resample(kept[None], source, target)[0].div_(weight)
    return to_host(torch.where(inside, values, torch.tensor(outside))), to_host(inside)


def interpolation_blur(source: Grid, target: Grid) -> tuple[float, float, float]:
    """How much trilinear resampling smooths on average, along each axis of the source.

    A value that lies a share f of the way between two voxels is a mean of both with the variance
    f (1 - f): 0 on a voxel, 1/4 halfway, 1/6 on average over places that have nothing to do with
    the grid.

    Returns
    -------
    variance : tuple of 3 float
        Of the kernel that averages neighbours, voxels squared.

    Examples
    --------
    >>> one, two = Grid((9, 9, 9), np.eye(4)), Grid((9, 9, 4), np.diag([1, 1, 2, 1.0]))
    >>> interpolation_blur(one, two)  # every second voxel is taken as it is
    (0.0, 0.0, 0.0)
    >>> fine = Grid((9, 9, 18), np.diag([1, 1, 0.5, 1]))
    >>> interpolation_blur(one, fine)  # every second voxel lies halfway: 1/4
    (0.0, 0.0, 0.125)
    """
    mapping = np.linalg.inv(source.affine) @ target.affine
    steps = [np.arange(0, n, max(1, n // _PLACES)) for n in target.shape]
    places = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    at = nib.affines.apply_affine(mapping, places)
    share = np.abs(at - np.rint(at))
    share[share < _SAME_GRID_TOLERANCE] = 0
    a, b, c = (share * (1 - share)).mean(axis=0)
    return float(a), float(b), float(c)


def nearest(labels: npt.NDArray[np.uint8], source: Grid, target: Grid) -> npt.NDArray[np.uint8]:
    """Nearest-neighbour resampling of a label image between grids.

    Parameters
    ----------
    labels : (I, J, K) uint8 array on `source`
    source, target : Grid

    Returns
    -------
    resampled : (X, Y, Z) uint8 array on `target`
        0 beyond the source.

    Examples
    --------
    >>> labels = np.array([10, 49], np.uint8).reshape(2, 1, 1)
    >>> source, target = Grid((2, 1, 1), np.eye(4)), Grid((3, 1, 1), np.diag([0.4, 1, 1, 1]))
    >>> nearest(labels, source, target).ravel()  # at 0, 0.4 and 0.8 voxels
    array([10, 10, 49], dtype=uint8)
    """
    mapping = np.linalg.inv(source.affine) @ target.affine
    reordered = _reordered(torch.from_numpy(labels)[None], mapping, target.shape)
    if reordered is not None:
        return np.asarray(reordered[0].contiguous().numpy())
    # "constant" would end at the centres of the outermost voxels, and cut off half of each
    how = {"order": 0, "mode": "grid-constant"}
    moved = ndimage.affine_transform(labels, mapping, output_shape=target.shape, **how)
    return np.asarray(moved, dtype=np.uint8)


def _followed_axes(
    mapping: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The source axis that each target axis follows, None if one is oblique."""
    linear = np.abs(mapping[:3, :3])
    order = tuple(int(axis) for axis in linear.argmax(axis=0))
    rest = linear.copy()
    rest[order, range(3)] = 0
    if sorted(order) != [0, 1, 2] or (rest * np.array(shape)).max() >= _SAME_GRID_TOLERANCE:
        return None
    return order


def _interpolate_axes(
    volumes: Tensor,
    mapping: npt.NDArray[np.float64],
    order: tuple[int, ...],
    shape: tuple[int, ...],
    outside: float,
) -> Tensor:
    """Trilinear interpolation axis by axis, many times faster than point by point."""
    # (x, y, z, C): logits lie so in memory
    out = volumes.float().permute(*(1 + axis for axis in order), 0)
    for j, axis in enumerate(order):
        places = mapping[axis, 3] + mapping[axis, j] * np.arange(shape[j])
        out = _interpolate_axis(out, j, places, outside)
    return out.permute(3, 0, 1, 2)


def _interpolate_axis(
    volume: Tensor, axis: int, places: npt.NDArray[np.float64], outside: float
) -> Tensor:
    """Linear interpolation along one axis, towards `outside` beyond the first and last voxel."""
    size = volume.shape[axis]
    low = np.floor(places).astype(int)
    view = [1] * volume.ndim
    view[axis] = -1
    out, known = torch.zeros(()), np.zeros(len(places))
    device = volume.device
    for index, share in ((low, 1 - (places - low)), (low + 1, places - low)):
        weight = np.where((index >= 0) & (index < size), share, 0)
        part = volume.index_select(axis, torch.from_numpy(index.clip(0, size - 1)).to(device))
        out = part.mul_(torch.from_numpy(weight).float().view(view).to(device)).add_(out)
        known += weight
    if outside and (known < 1).any():
        out += outside * torch.from_numpy(1 - known).float().view(view).to(device)
    return out


def _sampling_grid(
    mapping: npt.NDArray[np.float64],
    source: tuple[int, ...],
    target: tuple[int, ...],
    start: int,
    stop: int,
    device: torch.device,
) -> Tensor:
    matrix = torch.from_numpy(mapping).float().to(device)
    ends = ((start, stop), (0, target[1]), (0, target[2]))
    axes = [torch.arange(*end, device=device) for end in ends]
    points = matrix[:3, 3].expand(stop - start, target[1], target[2], 3).clone()
    for i, axis in enumerate(axes):
        view = [1, 1, 1, 1]
        view[i] = -1
        points += axis.float().view(view) * matrix[:3, i]
    size = [max(n - 1, 1) for n in source]
    last = torch.tensor(size, dtype=torch.float32, device=device)
    return (2 * points / last - 1).flip(-1)[None]


def _reordered(
    volumes: Tensor, mapping: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> Tensor | None:
    """The volumes re-ordered, where grids differ only by axis order, flips and whole voxels."""
    linear = mapping[:3, :3]
    signs = np.round(linear).astype(int)
    span = np.array(shape)
    shift = np.round(mapping[:3, 3]).astype(int)
    exact = (
        (np.abs(signs).sum(axis=0) == 1).all()
        and (np.abs(signs).sum(axis=1) == 1).all()
        and np.abs((linear - signs) * span).max() < _SAME_GRID_TOLERANCE
        and np.abs(mapping[:3, 3] - shift).max() < _SAME_GRID_TOLERANCE
    )
    if not exact:
        return None
    order = [int(np.argmax(np.abs(signs[:, j]))) for j in range(3)]  # target axis j -> source
    out = volumes.permute(0, *(1 + axis for axis in order))
    for j, axis in enumerate(order):
        first, last = shift[axis], signs[axis, j] * (shape[j] - 1) + shift[axis]
        low, high = min(first, last), max(first, last)
        if low < 0 or high >= out.shape[1 + j]:
            return None
        out = out.narrow(1 + j, int(low), int(high - low + 1))
    turned = [1 + j for j, axis in enumerate(order) if signs[axis, j] < 0]
    return out.flip(turned) if turned else out  # one copy for all axes
