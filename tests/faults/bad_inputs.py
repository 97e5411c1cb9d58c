"""At least 60 kinds of input that goes wrong in labs, each made by code.

Every kind is a participant of one dataset; `tests/faults/test_bad_inputs.py` segments the dataset
in one run, checks what became of each, and writes docs/bad-inputs.md from it.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from conftest import centred_affine, small_brain

Make = Callable[[Path], None]
REFUSED, SEGMENTED, ABSENT = "refused", "segmented", "not found"
_DIM, _DATATYPE, _BITPIX, _PIXDIM, _OFFSET, _SLOPE, _MAGIC = 40, 70, 72, 76, 108, 112, 344


@dataclass(frozen=True)
class Kind:
    """One way for an input to be bad.

    Attributes
    ----------
    label : str
        Participant label.
    what : str
        For people.
    fate : {"refused", "segmented", "not found"}
    words : str
        Part of the message: of the refusal, or of the warning on the report.
    make : callable
        Given the path of the T1w (.nii.gz), makes what should be there.
    """

    label: str
    what: str
    fate: str
    words: str
    make: Make


def brain() -> np.ndarray:
    """A stripped brain of 62 x 76 x 56 mm."""
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
    """Store an array, by default as 1 mm voxels around the origin."""
    nib.save(nib.Nifti1Image(data, centred_affine(data.shape) if affine is None else affine), path)


def stored(data: np.ndarray | None = None) -> bytearray:
    """The bytes of an uncompressed NIfTI file."""
    data = brain() if data is None else data
    return bytearray(nib.Nifti1Image(data, centred_affine(data.shape)).to_bytes())


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
        image.header.set_sform(affine(centred_affine(data.shape)), 1)
        image.header["qform_code"] = 0
        nib.save(image, path)

    return make


def forms(qform: np.ndarray | None, sform: np.ndarray | None) -> Make:
    """Set or drop both transforms; arrays are added to the centred affine."""

    def make(path: Path) -> None:
        data = brain()
        image = nib.Nifti1Image(data, None)
        base = centred_affine(data.shape)
        image.header.set_qform(None if qform is None else base + qform, 0 if qform is None else 1)
        image.header.set_sform(None if sform is None else base + sform, 0 if sform is None else 1)
        nib.save(image, path)

    return make


def sized(shape: tuple[int, ...]) -> Make:
    """A header with this shape over an empty file."""

    def make(path: Path) -> None:
        content = stored()[:352]
        dim = [len(shape), *shape, *[1] * (7 - len(shape))]
        struct.pack_into("<8h", content, _DIM, *dim)
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


def renamed(ending: str) -> Make:
    """The good image under a name that BIDS doesn't know."""

    def make(path: Path) -> None:
        good(path)
        path.rename(path.with_name(path.name.replace("_T1w", ending)))

    return make


def bomb(path: Path) -> None:
    """Half a gigabyte of zeros in half a megabyte."""
    content = stored()[:352]
    struct.pack_into("<8h", content, _DIM, 3, 800, 800, 800, 1, 1, 1, 1)
    struct.pack_into("<hh", content, _DATATYPE, 2, 8)
    struct.pack_into("<4f", content, _PIXDIM, 1, 0.3, 0.3, 0.3)
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
    """One wrong byte in the compressed voxels."""
    good(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
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
    nib.save(nib.Nifti1Image(data, centred_affine(data.shape), header), path)


def nifti2(path: Path) -> None:
    """NIfTI-2 under the same ending."""
    data = brain()
    nib.save(nib.Nifti2Image(data, centred_affine(data.shape)), path)


def resampled(step: tuple[int, int, int], zoom: tuple[float, float, float]) -> Make:
    """Every step-th voxel, with zooms that keep the brain's size."""

    def make(path: Path) -> None:
        data = brain()[tuple(slice(None, None, n) for n in step)]
        save(path, data, centred_affine(data.shape) @ np.diag([*zoom, 1.0]))

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
    save(path, data, centred_affine(data.shape, 0.5))


def renamed_mgz(path: Path) -> None:
    """The good image in FreeSurfer's format."""
    data = brain()
    image = nib.MGHImage(data, centred_affine(data.shape))
    nib.save(image, path.with_name(path.name.replace(".nii.gz", ".mgz")))


SHIFT = np.zeros((4, 4))
SHIFT[2, 3] = 30
SHEAR = np.array([[1, 0.999, 0, 0], [0, 0.02, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
POINTER = "/annex/objects/MD5E-s11--0123456789abcdef0123456789abcdef.nii.gz\n"
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])

KINDS = (
    # --- the file
    Kind("empty", "empty file", REFUSED, "readable", raw(bytes)),
    Kind("text", "text named .nii.gz", REFUSED, "readable", raw(lambda: b"no image\n" * 99)),
    Kind("truncated", "half of the file is missing", REFUSED, "copy the file again", truncated),
    Kind("corrupt", "one wrong byte in the gzip stream", REFUSED, "corrupt", flipped_byte),
    Kind(
        "headeronly",
        "gzip ends inside the header",
        REFUSED,
        "readable",
        raw(lambda: gzip.compress(bytes(stored()[:100]))),
    ),
    Kind(
        "novoxels",
        "gzip ends after the header",
        REFUSED,
        "copy the file again",
        raw(lambda: gzip.compress(bytes(stored()[:352]))),
    ),
    Kind(
        "plain",
        "an uncompressed NIfTI named .nii.gz",
        REFUSED,
        "readable",
        raw(lambda: bytes(stored())),
    ),
    Kind(
        "dicom",
        "a DICOM file named .nii.gz",
        REFUSED,
        "readable",
        raw(lambda: bytes(128) + b"DICM" + bytes(999)),
    ),
    Kind(
        "analyze",
        "an Analyze header, without NIfTI's magic",
        REFUSED,
        "NIfTI",
        patched(_MAGIC, "4s", b"\0\0\0\0"),
    ),
    Kind("magic", "wrong magic", REFUSED, "", patched(_MAGIC, "4s", b"nope")),
    Kind("hdrsize", "wrong header size", REFUSED, "", patched(0, "i", 999)),
    Kind("bomb", "gzip bomb: 512 million zeros in 0.5 MB", REFUSED, "every voxel is zero", bomb),
    Kind("trailing", "200 MB of zeros behind the image", SEGMENTED, "", trailing),
    Kind(
        "annex",
        "git-annex pointer, content not fetched",
        REFUSED,
        "datalad get",
        raw(POINTER.encode),
    ),
    Kind(
        "dangling",
        "broken link",
        REFUSED,
        "broken link",
        instead(lambda path: path.symlink_to("/nowhere/x.nii.gz")),
    ),
    Kind("cyclic", "links in a circle", REFUSED, "link", cyclic),
    Kind(
        "folder",
        "a folder named like an image",
        REFUSED,
        "not a file",
        instead(lambda path: path.mkdir()),
    ),
    Kind("pipe", "a named pipe", REFUSED, "not a file", instead(os.mkfifo)),
    # --- shape and type
    Kind("huge", "shape of 32767 cubed", REFUSED, "too large", sized((32767, 32767, 32767))),
    Kind("negative", "negative dimension", REFUSED, "", sized((75, -90, 70))),
    Kind("zerodim", "dimension of zero", REFUSED, "", sized((75, 0, 70))),
    Kind("nodims", "no dimension at all", REFUSED, "", patched(_DIM, "h", 0)),
    Kind("manydims", "99 dimensions", REFUSED, "", patched(_DIM, "h", 99)),
    Kind("oned", "1-D", REFUSED, "not a 3-D volume", sized((9999,))),
    Kind("twod", "2-D", REFUSED, "not a 3-D volume", sized((200, 200))),
    Kind(
        "fourd",
        "4-D, five frames",
        REFUSED,
        "one 3-D T1w volume",
        voxels(lambda data: np.stack([data] * 5, -1)),
    ),
    Kind(
        "fived",
        "5-D",
        REFUSED,
        "one 3-D T1w volume",
        voxels(lambda data: np.stack([data] * 3, -1)[..., None, :]),
    ),
    Kind("oneframe", "4-D with one frame", SEGMENTED, "", voxels(lambda data: data[..., None])),
    Kind(
        "tiny",
        "4 x 4 x 4 voxels",
        REFUSED,
        "field of view",
        voxels(lambda d: d[30:34, 40:44, 30:34]),
    ),
    Kind("slab", "a slab of 20 mm", REFUSED, "field of view", voxels(lambda d: d[:, :, 25:45])),
    Kind("datatype", "unknown data type", REFUSED, "", patched(_DATATYPE, "h", 9999)),
    Kind(
        "complex",
        "complex numbers",
        REFUSED,
        "plain numbers",
        voxels(lambda data: data.astype(np.complex64)),
    ),
    Kind("rgb", "RGB", REFUSED, "plain numbers", voxels(lambda data: np.zeros(data.shape, RGB))),
    Kind(
        "offset",
        "voxels said to begin behind the end",
        REFUSED,
        "copy the file again",
        patched(_OFFSET, "f", 1e8),
    ),
    Kind("bigendian", "big-endian", SEGMENTED, "", big_endian),
    Kind("nifti2", "NIfTI-2", SEGMENTED, "", nifti2),
    *(
        Kind(name, f"{name} voxels", SEGMENTED, "", stored_as(name))
        for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
    ),
    Kind("float64", "float64 voxels", SEGMENTED, "", stored_as("float64")),
    # --- where it is
    Kind("nanaffine", "NaN in the affine", REFUSED, "affine", patched(280, "f", float("nan"))),
    Kind("infaffine", "infinity in the affine", REFUSED, "affine", patched(280, "f", float("inf"))),
    Kind("singular", "singular affine", REFUSED, "affine", patched(280, "4f", 0, 0, 0, 0)),
    Kind(
        "sheared",
        "affine with a shear of nearly 90 degrees",
        REFUSED,
        "affine",
        placed(lambda affine: SHEAR @ affine),
    ),
    Kind(
        "zeropixdim",
        "voxel sizes of zero, no sform",
        REFUSED,
        "affine",
        patched(_PIXDIM, "4f", 1, 0, 0, 0),
    ),
    Kind("micrometres", "voxel sizes in micrometres", REFUSED, "units", placed(zoomed(1000))),
    Kind("metres", "voxel sizes in metres", REFUSED, "units", placed(zoomed(0.001))),
    Kind("noforms", "neither qform nor sform", SEGMENTED, "orientation", forms(None, None)),
    Kind("onlyqform", "qform only", SEGMENTED, "", forms(np.zeros((4, 4)), None)),
    Kind("onlysform", "sform only", SEGMENTED, "", forms(None, np.zeros((4, 4)))),
    Kind("disagree", "qform and sform 30 mm apart", SEGMENTED, "qform", forms(SHIFT, SHIFT * 0)),
    Kind(
        "upside",
        "upside down under a header that says otherwise",
        SEGMENTED,
        "",
        voxels(lambda data: data[:, :, ::-1]),
    ),
    Kind(
        "farorigin",
        "origin two metres away",
        SEGMENTED,
        "",
        placed(lambda affine: affine + SHIFT * 70),
    ),
    # --- what is in it
    Kind("zero", "all zero", REFUSED, "every voxel is zero", voxels(np.zeros_like)),
    Kind(
        "constant", "all the same value", REFUSED, "every voxel is 7", voxels(lambda d: d * 0 + 7)
    ),
    Kind("allnan", "NaN everywhere", REFUSED, "NaN", voxels(lambda data: data * np.nan)),
    Kind("mask", "a mask instead of a T1w", REFUSED, "mask", stored_mask()),
    Kind(
        "infslope", "scl_slope infinite", REFUSED, "scl_slope", patched(_SLOPE, "f", float("inf"))
    ),
    Kind("nanslope", "scl_slope NaN", SEGMENTED, "", patched(_SLOPE, "f", float("nan"))),
    Kind("zeroslope", "scl_slope zero", SEGMENTED, "", patched(_SLOPE, "f", 0)),
    Kind("somenan", "NaN in some voxels", SEGMENTED, "NaN", voxels(with_nan)),
    Kind(
        "someinf",
        "infinite voxels",
        SEGMENTED,
        "infinite",
        voxels(lambda data: np.where(data > 1030, np.inf, data)),
    ),
    Kind(
        "minus",
        "negative values: everything shifted by -2000",
        SEGMENTED,
        "",
        voxels(lambda data: np.where(data > 0, data - 2000, 0)),
    ),
    Kind("large", "values of 1e30", SEGMENTED, "", voxels(lambda data: data * np.float32(1e27))),
    Kind("small", "values of 1e-30", SEGMENTED, "", voxels(lambda data: data * np.float32(1e-33))),
    Kind("spike", "one voxel of 1e9", SEGMENTED, "", voxels(with_spike)),
    Kind("half", "half a brain", SEGMENTED, "", voxels(half)),
    Kind("stripped", "skull-stripped", SEGMENTED, "", good),
    Kind("t2w", "contrast of a T2w", SEGMENTED, "", voxels(lambda d: np.where(d > 0, 1200 - d, 0))),
    Kind(
        "noise",
        "nothing but noise",
        SEGMENTED,
        "",
        voxels(lambda data: np.random.default_rng(1).normal(100, 9, data.shape).astype(np.float32)),
    ),
    Kind("thick", "slices of 5 mm", SEGMENTED, "", resampled((1, 1, 5), (1, 1, 5))),
    Kind("finer", "voxels of 0.5 mm", SEGMENTED, "", finer),
    # --- names and neighbours
    Kind("twice", "the same scan as .nii and .nii.gz", SEGMENTED, "", both_forms),
    Kind("brokenjson", "broken sidecar", SEGMENTED, "", beside("_T1w.json", "{")),
    Kind(
        "nestedjson",
        "sidecar nested 100,000 deep",
        SEGMENTED,
        "",
        beside("_T1w.json", nested(10**5)),
    ),
    Kind(
        "hugejson",
        "sidecar of 20 MB",
        SEGMENTED,
        "",
        beside("_T1w.json", json.dumps({"x": "y" * 20_000_000})),
    ),
    Kind("copy", "a name with a space and a bracket", ABSENT, "", renamed(" copy (1)_T1w")),
    Kind("newline", "a name with a line break", ABSENT, "", renamed("\n_T1w")),
    Kind("markup", "a name with HTML in it", ABSENT, "", renamed("_<img src=x onerror=alert(1)>")),
    Kind(
        "dash",
        "a name that begins with dashes",
        ABSENT,
        "",
        lambda path: (good(path), path.rename(path.with_name("--overwrite_T1w.nii.gz")), None)[2],
    ),
    Kind("mgz", "FreeSurfer's .mgz", ABSENT, "", renamed_mgz),
)
