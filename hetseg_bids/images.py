"""Opening NIfTI files and FreeSurfer's .mgz, and the grid they lie on."""

from __future__ import annotations

import logging
import struct
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
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError
from zlib_ng import gzip_ng, zlib_ng

from hetseg_bids import file_formats
from hetseg_bids.errors import ASIDE, HeaderError, ImageError

logging.getLogger("nibabel").setLevel(logging.CRITICAL)  # it raises errors beside logging them
_PART, _MOST_BYTES = 1 << 20, 8 << 30
_GZIP_BITS = 31  # zlib's way to say: with gzip's header
_BROKEN: tuple[type[Exception], ...] = (
    *(ImageFileError, HeaderDataError, OSError, EOFError, ValueError),
    *(zlib.error, zlib_ng.error),  # type: ignore[assignment]  # its stub says: an instance
)
_BAD_HEADER: tuple[type[Exception], ...] = (
    *(*_BROKEN, MGHError),
    *(KeyError, TypeError),  # of nibabel's reader of MGH
)
_ANNEX = b"/annex/objects/"  # what git-annex leaves in place of a file's content
_GOOD_RAS = slice(28, 30)  # in MGH headers: whether they have a place in space; nibabel hides it

SCANNER, ALIGNED = 1, 2  # NIfTI's codes of the spaces that a form leads to


@dataclass(frozen=True)
class Grid:
    """A voxel grid in scanner space.

    Attributes
    ----------
    shape : tuple of 3 int
    affine : (4, 4) float64 array
        Voxel to RAS, mm.
    codes : tuple of 2 int
        NIfTI's codes of qform and sform, which name the space of the millimetres: 1 scanner,
        2 aligned, 3 Talairach, 4 MNI152, 0 unknown.

    Examples
    --------
    >>> grid = Grid((256, 256, 180), np.diag([0.5, 0.5, 2, 1]))
    >>> grid.zooms
    array([0.5, 0.5, 2. ])
    >>> grid.voxel_volume
    0.5
    """

    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    codes: tuple[int, int] = (SCANNER, SCANNER)

    @property
    def zooms(self) -> npt.NDArray[np.float64]:
        """Voxel size along each axis, mm: (3,) float64 array."""
        return np.asarray(nib.affines.voxel_sizes(self.affine))

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel, mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def part(self, box: tuple[slice, slice, slice]) -> Grid:
        """The grid of a box of this one.

        Examples
        --------
        >>> grid = Grid((10, 10, 10), np.diag([2.0, 2, 2, 1]))
        >>> part = grid.part((slice(3, 5), slice(0, 10), slice(0, 10)))
        >>> part.shape, part.affine[:3, 3]
        ((2, 10, 10), array([6., 0., 0.]))
        """
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ np.array([s.start for s in box], dtype=float)
        i, j, k = (s.stop - s.start for s in box)
        return Grid((i, j, k), affine, self.codes)

    def matches(self, other: Grid) -> bool:
        """Whether two grids have one shape and affines that differ by less than 0.01.

        Examples
        --------
        >>> moved = np.eye(4)
        >>> moved[0, 3] = 0.5  # mm
        >>> Grid((9, 9, 9), np.eye(4)).matches(Grid((9, 9, 9), moved))
        False
        """
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=1e-2)


def open_image(path: Path) -> nib.nifti1.Nifti1Pair:
    """Open a NIfTI file, either half of a pair, or FreeSurfer's .mgz, without reading its voxels.

    Returns
    -------
    image : Nifti1Pair
        FreeSurfer's place in space is its sform.

    Raises
    ------
    ImageError
        If there is no file with content.
    HeaderError
        If it is neither NIfTI nor FreeSurfer's.
    """
    _check_file(path)
    try:
        image = nib.load(path)
    except FileNotFoundError:
        raise ImageError("no such file", path=path) from None
    except _BAD_HEADER as error:
        kind = "FreeSurfer" if file_formats.is_mgh_name(path) else "NIfTI"
        problem, remedy = f"not a readable {kind} image", file_formats.remedy(path)
        if not remedy:
            problem = f"{problem} ({one_line(error)})"
        raise HeaderError(problem, remedy, path=path, form=ASIDE) from None
    if isinstance(image, nib.MGHImage):
        return _as_nifti(path, image)
    if not isinstance(image, nib.nifti1.Nifti1Pair):  # NIfTI-2 and single files are pairs, too
        analyze = isinstance(image, nib.analyze.AnalyzeImage)
        remedy = file_formats.ANALYZE if analyze else file_formats.remedy(path)
        raise HeaderError("not a NIfTI image", remedy or "convert it", path=path, form=ASIDE)
    return image


def _as_nifti(path: Path, image: nib.MGHImage) -> nib.nifti1.Nifti1Pair:
    """FreeSurfer's image as NIfTI that isn't read yet, with the code that mri_convert gives it.

    A pair, because its voxels lie where the file has them and not behind a NIfTI header.
    """
    with nib.openers.ImageOpener(str(path)) as file:
        start = file.read(_GOOD_RAS.stop)
    (placed,) = struct.unpack(">h", start[_GOOD_RAS])
    pair = nib.nifti1.Nifti1Pair(image.dataobj, image.affine)
    pair.set_sform(image.affine, SCANNER if placed else 0)
    pair.header["qform_code"] = 0
    return pair


def _check_file(path: Path) -> None:
    """Refuse what could block for ever (a pipe) or give a misleading message."""
    if path.is_symlink() and not path.exists():
        raise ImageError("broken link", "fetch the file (datalad get) or remove it", path=path)
    if path.exists() and not path.is_file():
        raise ImageError("not a file", "put the image there or remove it", path=path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_ANNEX))
    except OSError:
        return  # nibabel will raise, and its message is good enough
    if start == _ANNEX:
        raise ImageError("git-annex pointer without content", "fetch it (datalad get)", path=path)


@contextmanager
def _readable(path: Path, remedy: str) -> Iterator[None]:
    """Turn what nibabel raises on bad voxels into one line."""
    try:
        yield
    except _BROKEN as error:
        raise ImageError(f"truncated or corrupt ({one_line(error)})", remedy, path=path) from None


def read_voxels(path: Path, image: nib.nifti1.Nifti1Pair) -> npt.NDArray[np.float32]:
    """Scaled voxels of an open image as float32.

    Raises
    ------
    ImageError
        If the file is truncated or corrupt.
    """
    return read_checked(path, image)[0]


def read_checked(
    path: Path, image: nib.nifti1.Nifti1Pair
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Scaled voxels of an open image, and warnings about how they are stored.

    Raises
    ------
    ImageError
        If the file is truncated or corrupt, or doesn't say where its voxels begin.
    """
    held = Path(image.file_map["image"].filename or path)  # of a pair, the other half
    with _readable(path, file_formats.remedy(held) or "copy the file again"):
        stored, doubts = _stored_voxels(held, image)
        voxels = np.asarray(stored, dtype=np.float32)
        if held.name.lower().endswith((".gz", ".mgz")) and _unpacked(held)[1]:
            doubts += (
                "bytes that aren't gzip follow the compressed image and were left out; "
                "gunzip the file and gzip it again",
            )
    return voxels, doubts


def _stored_voxels(path: Path, image: nib.nifti1.Nifti1Pair) -> tuple[Any, tuple[str, ...]]:
    """The voxels to be read, and warnings; a single file's voxels begin after its header.

    With an offset of 0 in the header, nibabel would read the header itself as the first voxels.
    """
    header = image.header
    stored: Any = image.dataobj
    first = header.single_vox_offset
    if header["magic"].item() != header.single_magic or stored.offset >= first:
        return stored, ()
    length = _unpacked(path)[0] if path.name.endswith(".gz") else path.stat().st_size
    if length != first + stored.dtype.itemsize * int(np.prod(stored.shape)):
        raise ValueError(f"vox_offset {stored.offset}, and the length doesn't say what is right")
    spec = (stored.shape, stored.dtype, first, stored.slope, stored.inter)
    return ArrayProxy(path, spec), (
        f"vox_offset is {stored.offset}, but a single file can't hold voxels before byte {first}: "
        f"they were read from there; other programs may shift or refuse this image",
    )


def _unpacked(path: Path) -> tuple[int, bool]:
    """Length of what a gzip file holds, and whether anything but zeros follows it.

    Reads it to its end, where the checksum is: nibabel stops at the last voxel.
    """
    decoder, total = zlib_ng.decompressobj(_GZIP_BITS), 0
    with path.open("rb") as file:
        packed = file.read(_PART)
        while packed:
            total += len(decoder.decompress(packed, _PART))
            if total > _MOST_BYTES:
                raise ValueError("more than 8 GB")
            packed = decoder.unconsumed_tail
            if decoder.eof:
                packed = decoder.unused_data.lstrip(b"\0")
                while not packed and (more := file.read(_PART)):
                    packed = more.lstrip(b"\0")
                if packed and not packed.startswith(file_formats.GZIP_MAGIC):
                    return total, True
                if packed:
                    decoder = zlib_ng.decompressobj(_GZIP_BITS)
            elif not packed:
                packed = file.read(_PART)
    if not decoder.eof:
        raise EOFError("the compressed data end too early")
    return total, False


def read_largest(path: Path) -> npt.NDArray[np.float32]:
    """Largest value over the volumes of a 4-D image, read one at a time: (X, Y, Z).

    Raises
    ------
    ImageError
        If it can't be read or isn't 4-D.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "sub-01_probseg.nii.gz"
    >>> volumes = np.array([0.25, 0.5], np.float32) * np.ones((4, 5, 6, 1), np.float32)
    >>> nib.save(nib.Nifti1Image(volumes, np.eye(4)), path)
    >>> largest = read_largest(path)
    >>> largest.shape, float(largest[0, 0, 0])
    ((4, 5, 6), 0.5)
    """
    image = open_image(path)
    if len(image.shape) != 4:
        raise HeaderError(f"shape {image.shape}, a 4-D image expected", path=path)
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

    Returns
    -------
    labels : (X, Y, Z) int32 array
        As stored, rounded to whole numbers.
    grid : Grid

    Raises
    ------
    ImageError
        If it can't be read or isn't 3-D.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "sub-01_dseg.nii.gz"
    >>> voxels = np.full((4, 5, 6), 17, np.uint8)
    >>> nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2, 2, 1])), path)
    >>> labels, grid = read_labels(path)
    >>> labels.dtype, labels.shape, grid.zooms
    (dtype('int32'), (4, 5, 6), array([2., 2., 2.]))
    """
    image = open_image(path)
    if len(image.shape) != 3:
        raise HeaderError(f"labels of shape {image.shape}, a 3-D image expected", path=path)
    return np.rint(read_voxels(path, image)).astype(np.int32), grid_of(image)


def grid_of(image: nib.nifti1.Nifti1Pair) -> Grid:
    """The spatial grid of an image.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.diag([1, 1, 3, 1]))
    >>> grid_of(image).shape, grid_of(image).zooms
    ((4, 5, 6), array([1., 1., 3.]))
    """
    i, j, k = image.shape[:3]
    return Grid((int(i), int(j), int(k)), np.asarray(image.affine, dtype=np.float64))


def one_line(error: BaseException) -> str:
    """An error's text on one short line.

    Examples
    --------
    >>> one_line(ValueError("bad   header")), one_line(ValueError())
    ('bad header', 'ValueError')
    """
    return " ".join(str(error).split())[:160] or type(error).__name__
