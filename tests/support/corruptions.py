"""Ways to spoil an image: functions that make a file, or that make such functions."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np

from support.phantoms import centred_affine, small_brain

Make = Callable[[Path], None]
ZOOM = 1.35
_CHECKSUM = -8  # of a gzip file: the first byte of it
DIM, DATATYPE, PIXDIM, OFFSET, SLOPE, MAGIC, FORMS = 40, 70, 76, 108, 112, 344, 252


def brain() -> np.ndarray:
    """A stripped brain of 84 x 103 x 76 mm: small, for speed, but one that is accepted."""
    return _brain().copy()


@lru_cache
def _brain() -> np.ndarray:
    values = np.zeros(256, np.float32)
    values[[2, 41]], values[[3, 42, 8, 47]], values[[4, 43]] = 1000, 650, 280
    values[[12, 51]], values[[10, 49]], values[16] = 790, 840, 900
    labels = small_brain()
    noise = np.random.default_rng(0).normal(0, 15, labels.shape)
    return np.where(labels > 0, values[labels] + noise, 0).clip(0).astype(np.float32)


def good(path: Path) -> None:
    """The image that all kinds are made from."""
    save(path, brain())


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    """Store an array as it is, by default around the origin."""
    affine = centred_affine(data.shape, ZOOM) if affine is None else affine
    nib.save(nib.Nifti1Image(data, affine, dtype=data.dtype), path)


def stored(data: np.ndarray | None = None) -> bytearray:
    """The bytes of an uncompressed NIfTI file."""
    data = brain() if data is None else data
    return bytearray(nib.Nifti1Image(data, centred_affine(data.shape, ZOOM)).to_bytes())


def patched(offset: int, layout: str, *values: float) -> Make:
    """Overwrite header fields of the good image."""

    def make(path: Path) -> None:
        content = stored()
        struct.pack_into(f"<{layout}", content, offset, *values)
        path.write_bytes(gzip.compress(bytes(content), 1))

    return make


def raw(content: Callable[[], bytes]) -> Make:
    """Put these bytes where the image should be."""
    return lambda path: path.write_bytes(content())  # type: ignore[func-returns-value]


def voxels(change: Callable[[np.ndarray], np.ndarray]) -> Make:
    """Change the voxels of the good image."""
    return lambda path: save(path, change(brain()))


def stored_as(dtype: str) -> Make:
    """The good image with another data type, in whole numbers from 0 to 120."""
    return voxels(lambda data: (data * (120 / data.max())).round().astype(dtype))


def placed(affine: Callable[[np.ndarray], np.ndarray]) -> Make:
    """The good image with another affine, as its sform."""

    def make(path: Path) -> None:
        data = brain()
        image = nib.Nifti1Image(data, None)
        image.header.set_sform(affine(centred_affine(data.shape, ZOOM)), 1)
        image.header["qform_code"] = 0
        nib.save(image, path)

    return make


def broken_form(name: str) -> Make:
    """NaN in one form beside a good other one."""

    def make(path: Path) -> None:
        content = bytearray(nib.Nifti1Image(brain(), None, _both_coded()).to_bytes())
        struct.pack_into("<f", content, {"qform": 256, "sform": 280}[name], float("nan"))
        path.write_bytes(gzip.compress(bytes(content), 1))

    return make


def turned(linear: np.ndarray) -> Make:
    """A qform turned or mirrored about the first voxel, relative to the sform."""

    def make(path: Path) -> None:
        header = _both_coded()
        header.set_qform(header.get_sform() @ nib.affines.from_matvec(linear), 1)
        nib.save(nib.Nifti1Image(brain(), None, header), path)

    return make


def _both_coded() -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    data = brain()
    header.set_data_shape(data.shape)
    affine = centred_affine(data.shape, ZOOM)
    header.set_qform(affine, 1)
    header.set_sform(affine, 1)
    return header


def forms(qform: np.ndarray | None, sform: np.ndarray | None) -> Make:
    """Set or drop both transforms; arrays are added to the centred affine."""

    def make(path: Path) -> None:
        data = brain()
        image = nib.Nifti1Image(data, None)
        base = centred_affine(data.shape, ZOOM)
        image.header.set_zooms([ZOOM] * 3)
        image.header.set_qform(None if qform is None else base + qform, 0 if qform is None else 1)
        image.header.set_sform(None if sform is None else base + sform, 0 if sform is None else 1)
        nib.save(image, path)

    return make


def no_zooms(path: Path) -> None:
    """Neither voxel sizes nor transforms."""
    content = stored()
    struct.pack_into("<4f", content, PIXDIM, 1, 0, 0, 0)
    struct.pack_into("<2h", content, FORMS, 0, 0)
    path.write_bytes(gzip.compress(bytes(content), 1))


def sized(shape: tuple[int, ...]) -> Make:
    """A header with this shape over an empty file."""

    def make(path: Path) -> None:
        content = stored()[:352]
        dim = [len(shape), *shape, *[1] * (7 - len(shape))]
        struct.pack_into("<8h", content, DIM, *dim)
        path.write_bytes(gzip.compress(bytes(content)))

    return make


def instead(make_it: Callable[[Path], object]) -> Make:
    """Something that isn't a regular file."""
    return lambda path: (make_it(path), None)[1]


def beside(name: str, content: str) -> Make:
    """The good image with a file next to it."""

    def make(path: Path) -> None:
        good(path)
        (path.parent / path.name.replace("_T1w.nii.gz", name)).write_text(content)

    return make


def moved(folder: str) -> Make:
    """The good image in another folder of its participant."""

    def make(path: Path) -> None:
        target = path.parents[1] / folder
        target.mkdir(parents=True)
        good(target / path.name)

    return make


def renamed(ending: str) -> Make:
    """The good image under a name that BIDS doesn't know."""

    def make(path: Path) -> None:
        good(path)
        path.rename(path.with_name(path.name.replace("_T1w", ending)))

    return make


def bomb(path: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte."""
    content = stored()[:352]
    struct.pack_into("<8h", content, DIM, 3, 800, 800, 800, 1, 1, 1, 1)
    struct.pack_into("<hh", content, DATATYPE, 2, 8)
    struct.pack_into("<4f", content, PIXDIM, 1, 0.3, 0.3, 0.3)
    struct.pack_into("<12f", content, 280, 0.3, 0, 0, 0, 0, 0.3, 0, 0, 0, 0, 0.3, 0)
    with gzip.open(path, "wb", 1) as file:
        file.write(content)
        for _ in range(800):
            file.write(bytes(800 * 800))


def trailing(path: Path) -> None:
    """The good image, then 200 MB of zeros in the same gzip stream."""
    with gzip.open(path, "wb", 1) as file:
        file.write(stored())
        for _ in range(200):
            file.write(bytes(1_000_000))


def junk_behind(path: Path) -> None:
    """Bytes that aren't gzip after a sound gzip stream."""
    good(path)
    path.write_bytes(path.read_bytes() + b"junk" * 100)


def half_of_a_pair(path: Path) -> None:
    """The .hdr of a NIfTI pair, compressed, under the name of an image."""
    content = stored()[:348]
    struct.pack_into("<4s", content, MAGIC, b"ni1\0")
    path.write_bytes(gzip.compress(bytes(content)))


def named_as_nifti(path: Path) -> None:
    """FreeSurfer's format under NIfTI's name."""
    renamed_mgz(path)
    path.with_name(path.name.replace(".nii.gz", ".mgz")).rename(path)


def padded(path: Path) -> None:
    """The good image amid zeros, in a field of view of 0.2 m; half a metre takes a minute."""
    save(path, np.pad(brain(), int(os.environ.get("HETSEG_PADDING", "40"))))


def both_forms(path: Path) -> None:
    """The same scan as .nii.gz and as .nii."""
    good(path)
    path.with_suffix("").write_bytes(stored())


def cyclic(path: Path) -> None:
    """Two links that point at each other."""
    other = path.with_name("other")
    path.symlink_to(other)
    other.symlink_to(path)


def flipped_byte(path: Path) -> None:
    """Voxels that don't agree with the checksum of the gzip stream."""
    good(path)
    content = bytearray(path.read_bytes())
    content[_CHECKSUM] ^= 0xFF
    path.write_bytes(bytes(content))


def truncated(path: Path) -> None:
    """The first half of the file."""
    good(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(data: np.ndarray) -> np.ndarray:
    """A block of NaN in the brain."""
    data[30:34, 40:44, 30:34] = np.nan
    return data


def half(data: np.ndarray) -> np.ndarray:
    """The left hemisphere only."""
    data[data.shape[0] // 2 :] = 0
    return data


def big_endian(path: Path) -> None:
    """Header and voxels in the other byte order."""
    data = brain()
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    nib.save(nib.Nifti1Image(data, centred_affine(data.shape, ZOOM), header), path)


def nifti2(path: Path) -> None:
    """NIfTI-2 under the same ending."""
    data = brain()
    nib.save(nib.Nifti2Image(data, centred_affine(data.shape, ZOOM)), path)


def resampled(step: tuple[int, int, int], zoom: tuple[float, float, float]) -> Make:
    """Every step-th voxel, with zooms that keep the brain's size."""

    def make(path: Path) -> None:
        data = brain()[tuple(slice(None, None, n) for n in step)]
        save(path, data, centred_affine(data.shape, ZOOM) @ np.diag([*zoom, 1.0]))

    return make


def zoomed(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    """An affine with other zooms."""
    return lambda affine: affine @ np.diag([factor, factor, factor, 1])


def nested(depth: int) -> str:
    """JSON that recursive readers can't read."""
    return "[" * depth + "]" * depth


def with_spike(data: np.ndarray) -> np.ndarray:
    """One absurdly bright voxel."""
    data[37, 45, 35] = 1e9
    return data


def stored_mask() -> Make:
    """Zeros and ones."""
    return voxels(lambda data: (data > 0).astype(np.uint8))


def finer(path: Path) -> None:
    """Every voxel split in eight."""
    data = brain().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    save(path, data, centred_affine(data.shape, ZOOM / 2))


def renamed_mgz(path: Path) -> None:
    """The good image in FreeSurfer's format."""
    data = brain()
    image = nib.MGHImage(data, centred_affine(data.shape, ZOOM))
    nib.save(image, path.with_name(path.name.replace(".nii.gz", ".mgz")))


SHIFT = np.zeros((4, 4))
SHIFT[2, 3] = 30
LEANING = np.eye(4)
LEANING[0, 1], LEANING[1, 2] = 0.15, 0.08
TURN = np.array([[0.94, -0.342, 0], [0.342, 0.94, 0], [0, 0, 1]])  # 20 degrees
MIRROR = np.diag([-1.0, 1, 1])
SHEAR = np.array([[1, 0.999, 0, 0], [0, 0.02, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
POINTER = "/annex/objects/MD5E-s11--0123456789abcdef0123456789abcdef.nii.gz\n"
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
