"""What a file is that isn't the image it should be, and what to do about it."""

from __future__ import annotations

import struct
from pathlib import Path

from zlib_ng import zlib_ng

GZIP_MAGIC = b"\x1f\x8b"
_START = 1024  # bytes that tell formats apart
_GZIP_BITS = 31  # zlib's way to say: with gzip's header
_HEADER_SIZE = 348
_MAGIC = slice(344, 348)
_DICOM = slice(128, 132)
_MGH_VERSION, _MGH_MOST = 1, 4096  # its header begins with this number and the four dimensions

_BY_ENDING = {
    (".mnc",): "MINC; convert it: mnc2nii IN.mnc OUT.nii",
    (".brik", ".head"): "AFNI's format; convert it: 3dAFNItoNIFTI -prefix OUT.nii.gz IN+orig",
}
ANALYZE = (
    "Analyze, which doesn't say which side is left; make NIfTI of the DICOM files with dcm2niix"
)
PAIR = "one half of a NIfTI pair (.hdr and .img); make one file of them: nib-convert IN.img OUT.nii"


def is_mgh_name(path: Path) -> bool:
    """Whether a file is named as FreeSurfer's images are, ``.mgz`` or ``.mgh``."""
    return path.name.lower().endswith((".mgz", ".mgh"))


def remedy(path: Path) -> str:
    """What a file that can't be read is and how to convert it; empty if that isn't known.

    Examples
    --------
    >>> remedy(Path("brain.mnc"))
    'MINC; convert it: mnc2nii IN.mnc OUT.nii'
    >>> remedy(Path("sub-01_T1w.nii.gz"))  # no such file: nothing is known
    ''
    """
    for endings, text in _BY_ENDING.items():
        if path.name.lower().removesuffix(".gz").endswith(endings):
            return text
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError:
        return ""
    if not start:
        return "empty; copy or convert it again"
    compressed = start.startswith(GZIP_MAGIC)
    if is_mgh_name(path):
        if compressed == path.name.lower().endswith(".mgz"):
            return ""
        return "compressed; name it .mgz" if compressed else "not compressed; name it .mgh"
    if compressed:
        if path.suffix != ".gz":
            return "compressed; name it .nii.gz"
        try:
            start = zlib_ng.decompressobj(_GZIP_BITS).decompress(start, _START)
        except zlib_ng.error:  # type: ignore[misc]  # its stub says: an instance
            return ""
    return _by_content(start, compressed=compressed, named_gz=path.suffix == ".gz")


def _by_content(start: bytes, *, compressed: bool, named_gz: bool) -> str:
    if start[_DICOM] == b"DICM":
        return "DICOM; convert the series with dcm2niix"
    if start.startswith((b"\x89HDF", b"CDF")):
        return "MINC; convert it: mnc2nii IN.mnc OUT.nii"
    if start.startswith(b"NRRD"):
        return "NRRD; save it as NIfTI with the program that made it"
    if len(start) < _HEADER_SIZE:
        return ""
    version, *shape = struct.unpack_from(">5i", start)
    if version == _MGH_VERSION and all(0 < n <= _MGH_MOST for n in shape):
        return "FreeSurfer's format; convert it: mri_convert IN.mgz OUT.nii.gz"
    if _HEADER_SIZE not in (*struct.unpack_from("<i", start), *struct.unpack_from(">i", start)):
        return ""
    magic = start[_MAGIC].rstrip(b"\0")
    if magic == b"ni1":
        return PAIR
    if magic != b"n+1":
        return ANALYZE if not magic else ""
    return "not compressed; name it .nii" if named_gz and not compressed else ""
