"""Opening NIfTI files, and the grid they lie on."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from zlib_ng import gzip_ng, zlib_ng

from hetseg_bids.errors import InputError

logging.getLogger("nibabel").setLevel(logging.CRITICAL)  # what matters is raised, too
_PART, _MOST_BYTES = 1 << 20, 8 << 30
_BROKEN: tuple[type[Exception], ...] = (
    *(ImageFileError, HeaderDataError, OSError, EOFError, ValueError),
    *(zlib.error, zlib_ng.error),  # type: ignore[assignment]  # its stub says: an instance
)
_ANNEX = b"/annex/objects/"  # what git-annex leaves in place of a file's content


@dataclass(frozen=True)
class Grid:
    """A voxel grid in scanner space.

    Attributes
    ----------
    shape : tuple of 3 int
    affine : (4, 4) float64 array
        Voxel to RAS, mm.
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]

    @property
    def voxel_volume(self) -> float:
        """The mm3 of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def matches(self, other: Grid) -> bool:
        """Whether two grids are one to a hundredth of a millimetre."""
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=1e-2)


def open_image(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI file without reading its voxels.

    Raises
    ------
    InputError
        If it isn't one.
    """
    _check_file(path)
    try:
        image = nib.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _BROKEN as error:
        raise InputError(f"{path}: not a readable NIfTI image ({one_line(error)})") from None
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one, too
        raise InputError(f"{path}: not a NIfTI image; convert it with dcm2niix")
    return image


def _check_file(path: Path) -> None:
    """Refuse what would be opened for ever, or with a misleading message."""
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: broken link; fetch the file (datalad get) or remove it")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a file; put the image there or remove it")
    try:
        with path.open("rb") as file:
            start = file.read(len(_ANNEX))
    except OSError:
        return  # nibabel's complaint will do
    if start == _ANNEX:
        raise InputError(f"{path}: git-annex pointer without content; fetch it (datalad get)")


@contextmanager
def _readable(path: Path, remedy: str) -> Iterator[None]:
    """Turn what nibabel raises on bad voxels into one line."""
    try:
        yield
    except _BROKEN as error:
        raise InputError(f"{path}: truncated or corrupt ({one_line(error)}); {remedy}") from None


def read_voxels(path: Path, image: nib.Nifti1Image) -> npt.NDArray[np.float32]:
    """Scaled voxels of an open image as float32.

    Raises
    ------
    InputError
        If the file is truncated or corrupt.
    """
    with _readable(path, "copy the file again"):
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        if path.name.endswith(".gz"):
            _check_sum(path)
    return voxels


def _check_sum(path: Path) -> None:
    """Read a gzip file to its end, where the checksum is: nibabel stops at the last voxel."""
    total = 0
    with gzip_ng.open(path) as file:
        while part := file.read(_PART):
            total += len(part)
            if total > _MOST_BYTES:
                raise ValueError("more than 8 GB")


def read_largest(path: Path) -> npt.NDArray[np.float32]:
    """Largest value over the volumes of a 4-D image, read one at a time: (X, Y, Z).

    Raises
    ------
    InputError
        If it can't be read or isn't 4-D.
    """
    image = open_image(path)
    if len(image.shape) != 4:
        raise InputError(f"{path}: shape {image.shape}, a 4-D image expected")
    scaled: Any = image.dataobj
    opened = gzip_ng.open if path.name.endswith(".gz") else open
    with _readable(path, "make it again"), opened(path, "rb") as file:
        if not scaled.slope > 0:
            raise ValueError("scl_slope below zero")
        # as stored, volume by volume from one stream: scaling and jumping cost the most
        stored = ArrayProxy(file, (image.shape, scaled.dtype, scaled.offset))
        largest = np.array(stored[..., 0])
        for i in range(1, image.shape[3]):
            np.maximum(largest, stored[..., i], out=largest)
    return np.asarray(largest * scaled.slope + scaled.inter, dtype=np.float32)


def read_labels(path: Path) -> tuple[npt.NDArray[np.int32], Grid]:
    """Read a 3-D label image.

    Raises
    ------
    InputError
        If it can't be read or isn't 3-D.
    """
    image = open_image(path)
    if len(image.shape) != 3:
        raise InputError(f"{path}: labels of shape {image.shape}, a 3-D image expected")
    return np.rint(read_voxels(path, image)).astype(np.int32), grid_of(image)


def grid_of(image: nib.Nifti1Image) -> Grid:
    """The spatial grid of an image."""
    i, j, k = image.shape[:3]
    return Grid((int(i), int(j), int(k)), np.asarray(image.affine, dtype=np.float64))


def one_line(error: BaseException) -> str:
    """An error's text on one short line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
