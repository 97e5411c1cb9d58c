"""Reading a T1w image and refusing, in one line, what can't be segmented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from hetseg_bids.errors import HeaderError, ImageError
from hetseg_bids.images import Grid, open_image, read_checked
from hetseg_bids.preprocessing.field import Box, find_field
from hetseg_bids.preprocessing.forms import find_place
from hetseg_bids.preprocessing.normalisation import typical_high

MAX_EXTENT_MM = 600.0
_MIN_EXTENT_MM = 60.0
_SPIKE = 20.0
_SOME = 1_000_000  # voxels: a sample as large as that represents the image
_MAX_VOXELS = 600_000_000


@dataclass(frozen=True)
class T1w:
    """A checked image as stored.

    Attributes
    ----------
    path : Path
    data : (I, J, K) float32 array
        Finite: NaN and infinite voxels were set to zero, extreme values clipped.
    grid : Grid
        Where its voxels lie.
    background : float
        Value around the head or brain.
    content : tuple of 3 slice
        The box of all that isn't background; padding was set to `background`.
    warnings : tuple of str
        What was unusual but could be used.
    """

    path: Path
    data: npt.NDArray[np.float32]
    grid: Grid
    background: float
    content: Box
    warnings: tuple[str, ...] = ()

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """Voxel to RAS, mm."""
        return self.grid.affine


def read_t1w(path: Path) -> T1w:
    """Read and check a T1w image.

    Parameters
    ----------
    path : Path
        NIfTI file.

    Returns
    -------
    scan : T1w

    Raises
    ------
    ImageError
        If the file can't be read or holds no signal.
    HeaderError
        If it isn't NIfTI or one 3-D scalar volume, or has an unusable geometry.

    Examples
    --------
    >>> x, y, z = np.ogrid[-40:40, -40:40, -40:40]
    >>> voxels = np.where(x**2 + y**2 + z**2 < 30**2, 100.0 + x, 0)
    >>> path = getfixture("tmp_path") / "sub-01_T1w.nii.gz"
    >>> nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    >>> scan = read_t1w(path)
    >>> scan.data.shape, scan.background, scan.content[0]
    ((80, 80, 80), 0.0, slice(11, 70, None))
    """
    image = open_image(path)
    _check_shape(path, image)
    grid, doubts = find_place(path, image)
    if (grid.zooms * grid.shape < _MIN_EXTENT_MM).any():
        raise _no_head(path, grid.zooms * grid.shape)
    data, more = read_checked(path, image)
    data = data.reshape(grid.shape)
    warnings = [*doubts, *more]
    bad = ~np.isfinite(data)
    share = float(bad.mean())
    if share == 1:
        raise ImageError("every voxel is NaN or infinite", "convert the scan again", path=path)
    if share > 0:
        data[bad] = 0
        warnings.append(f"{share:.2%} of the voxels are NaN or infinite and were set to 0")
    low, high = float(data.min()), float(data.max())
    if low == high:
        what = "zero" if low == 0 else f"{low:g}"
        raise ImageError(f"every voxel is {what}", "convert or transfer the scan again", path=path)
    background, content = find_field(data)
    extent = grid.zooms * grid.part(content).shape
    if (extent > MAX_EXTENT_MM).any():
        raise _no_head(path, extent)
    _fill_around_(data, content, background)
    warnings += _clip_spikes_(data[content], background)
    if _is_mask(data):
        raise ImageError("only two values, a mask or label image", "give the T1w itself", path=path)
    return T1w(path, data, grid, background, content, tuple(warnings))


def _fill_around_(data: npt.NDArray[np.float32], content: Box, background: float) -> None:
    """Give everything outside the content the background's value."""
    for axis, inner in enumerate(content):
        for outer in (slice(0, inner.start), slice(inner.stop, None)):
            where = [slice(None)] * 3
            where[axis] = outer
            data[tuple(where)] = background


def _clip_spikes_(data: npt.NDArray[np.float32], background: float) -> list[str]:
    """Clip extreme values: a single one would leave no contrast in the brain."""
    # .flat: reshape would copy all of an image whose x runs fastest, as in a NIfTI file
    some = np.abs(data.flat[:: max(1, data.size // _SOME)] - background)
    limit = _SPIKE * typical_high(some)
    low, high = background - limit, background + limit
    if not limit or (low <= data.min() and data.max() <= high):
        return []
    count = int((data > high).sum()) + int((data < low).sum())
    np.clip(data, low, high, out=data)
    return [f"{count} voxels over {_SPIKE:g} times the 99th percentile were clipped"]


def _is_mask(data: npt.NDArray[np.float32]) -> bool:
    """Whether there are two values only; all voxels are read only if a sample has two."""
    stored = data.ravel(order="K")  # in the order of memory, so that nothing is copied
    low, high = stored.min(), stored.max()
    return all(
        bool(((part == low) | (part == high)).all())
        for part in (stored[:: max(1, data.size // _SOME)], stored)
    )


def _check_shape(path: Path, image: nib.nifti1.Nifti1Pair) -> None:
    shape = image.shape
    spatial = shape[:3]
    if len(shape) < 3 or any(n < 1 for n in shape):
        raise HeaderError(f"shape {shape} is not a 3-D volume", path=path)
    if len(shape) > 3 and any(n != 1 for n in shape[3:]):
        raise HeaderError(
            f"{len(shape)}-D image of shape {shape}",
            "store one 3-D T1w volume a file (average or split the frames)",
            path=path,
        )
    if np.prod([int(n) for n in spatial]) > _MAX_VOXELS:
        raise HeaderError(
            f"shape {shape} is too large for a head scan", "check the header", path=path
        )
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise HeaderError(f"voxels are {dtype}, not plain numbers", "export a grey T1w", path=path)


def _no_head(path: Path, extent: npt.NDArray[np.float64]) -> HeaderError:
    text = " x ".join(f"{e:.0f}" for e in extent)
    return HeaderError(f"field of view of {text} mm doesn't hold one whole head", path=path)
