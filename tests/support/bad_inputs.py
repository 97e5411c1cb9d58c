"""At least 60 kinds of input that goes wrong in labs, each made by code.

Every kind is a participant of one dataset; `tests/faults/test_bad_inputs.py` segments the dataset
in one run, checks what became of each, and writes docs/bad-inputs.md from it.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass

import numpy as np

from support.corruptions import (
    DATATYPE,
    DIM,
    LEANING,
    MAGIC,
    MIRROR,
    OFFSET,
    PIXDIM,
    POINTER,
    RGB,
    SHEAR,
    SHIFT,
    SLOPE,
    TURN,
    Make,
    beside,
    big_endian,
    bomb,
    both_forms,
    broken_form,
    cyclic,
    finer,
    flipped_byte,
    forms,
    good,
    half,
    half_of_a_pair,
    instead,
    junk_behind,
    moved,
    named_as_nifti,
    nested,
    nifti2,
    no_zooms,
    padded,
    patched,
    placed,
    raw,
    renamed,
    renamed_mgz,
    resampled,
    sized,
    stored,
    stored_as,
    stored_mask,
    trailing,
    truncated,
    turned,
    voxels,
    with_nan,
    with_spike,
    zoomed,
)

REFUSED, SEGMENTED, ABSENT = "refused", "segmented", "not found"


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


KINDS = (
    # --- the file
    Kind("empty", "empty file", REFUSED, "readable", raw(bytes)),
    Kind("text", "text named .nii.gz", REFUSED, "readable", raw(lambda: b"no image\n" * 99)),
    Kind("truncated", "half of the file is missing", REFUSED, "copy the file again", truncated),
    Kind(
        "corrupt", "voxels that don't agree with gzip's checksum", REFUSED, "corrupt", flipped_byte
    ),
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
        "name it .nii",
        raw(lambda: bytes(stored())),
    ),
    Kind(
        "dicom",
        "a DICOM file named .nii.gz",
        REFUSED,
        "dcm2niix",
        raw(lambda: bytes(128) + b"DICM" + bytes(999)),
    ),
    Kind(
        "analyze",
        "an Analyze header, without NIfTI's magic",
        REFUSED,
        "dcm2niix",
        patched(MAGIC, "4s", b"\0\0\0\0"),
    ),
    Kind("magic", "wrong magic", REFUSED, "", patched(MAGIC, "4s", b"nope")),
    Kind("hdrsize", "wrong header size", SEGMENTED, "", patched(0, "i", 999)),
    Kind("bomb", "gzip bomb: 512 million zeros in 0.5 MB", REFUSED, "every voxel is zero", bomb),
    Kind("trailing", "200 MB of zeros after the image", SEGMENTED, "", trailing),
    Kind("junk", "bytes that aren't gzip after the image", SEGMENTED, "gzip it again", junk_behind),
    Kind("mgzname", "FreeSurfer's .mgz named .nii.gz", REFUSED, "mri_convert", named_as_nifti),
    Kind("pair", "the header of a .hdr/.img pair", REFUSED, "nib-convert", half_of_a_pair),
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
        ABSENT,
        "",
        instead(lambda path: path.mkdir()),
    ),
    Kind("pipe", "a named pipe", REFUSED, "not a file", instead(os.mkfifo)),
    # --- shape and type
    Kind("huge", "shape of 32767 cubed", REFUSED, "too large", sized((32767, 32767, 32767))),
    Kind("negative", "negative dimension", REFUSED, "", sized((75, -90, 70))),
    Kind("zerodim", "dimension of zero", REFUSED, "", sized((75, 0, 70))),
    Kind("nodims", "no dimension at all", REFUSED, "", patched(DIM, "h", 0)),
    Kind("manydims", "99 dimensions", REFUSED, "", patched(DIM, "h", 99)),
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
    Kind("slab", "a slab of 27 mm", REFUSED, "field of view", voxels(lambda d: d[:, :, 25:45])),
    Kind("datatype", "unknown data type", REFUSED, "", patched(DATATYPE, "h", 9999)),
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
        "a header that puts the voxels after the end of the file",
        REFUSED,
        "copy the file again",
        patched(OFFSET, "f", 1e8),
    ),
    Kind(
        "nooffset",
        "a header that puts the voxels at byte 0, inside itself",
        SEGMENTED,
        "vox_offset",
        patched(OFFSET, "f", 0),
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
        "voxel sizes of zero beside a good sform",
        SEGMENTED,
        "",
        patched(PIXDIM, "4f", 1, 0, 0, 0),
    ),
    Kind("zerozooms", "voxel sizes of zero, no sform", REFUSED, "not one brain", no_zooms),
    Kind("micrometres", "voxel sizes in micrometres", REFUSED, "units", placed(zoomed(1000))),
    Kind("metres", "voxel sizes in metres", REFUSED, "units", placed(zoomed(0.001))),
    Kind("noforms", "neither qform nor sform", SEGMENTED, "orientation", forms(None, None)),
    Kind("onlyqform", "qform only", SEGMENTED, "", forms(np.zeros((4, 4)), None)),
    Kind("onlysform", "sform only", SEGMENTED, "", forms(None, np.zeros((4, 4)))),
    Kind("disagree", "qform and sform 30 mm apart", SEGMENTED, "qform", forms(SHIFT, SHIFT * 0)),
    Kind("turned", "forms 20 degrees apart", SEGMENTED, "at a corner", turned(TURN)),
    Kind("mirrored", "forms that mirror each other", SEGMENTED, "SIDES DIFFER", turned(MIRROR)),
    Kind("badsform", "NaN in the sform", SEGMENTED, "qform is used", broken_form("sform")),
    Kind("badqform", "NaN in the qform", SEGMENTED, "sform is used", broken_form("qform")),
    Kind("leaning", "a sheared sform", SEGMENTED, "", placed(lambda affine: affine @ LEANING)),
    Kind("padded", "40 empty voxels on each side", SEGMENTED, "", padded),
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
    Kind("infslope", "scl_slope infinite", SEGMENTED, "", patched(SLOPE, "f", float("inf"))),
    Kind("nanslope", "scl_slope NaN", SEGMENTED, "", patched(SLOPE, "f", float("nan"))),
    Kind("zeroslope", "scl_slope zero", SEGMENTED, "", patched(SLOPE, "f", 0)),
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
    Kind("spike", "one voxel of 1e9", SEGMENTED, "clipped", voxels(with_spike)),
    Kind("half", "half a brain", REFUSED, "not one brain", voxels(half)),
    Kind("stripped", "skull-stripped", SEGMENTED, "", good),
    Kind("t2w", "contrast of a T2w", SEGMENTED, "", voxels(lambda d: np.where(d > 0, 1200 - d, 0))),
    Kind(
        "noise",
        "nothing but noise",
        SEGMENTED,
        "",
        voxels(lambda data: np.random.default_rng(1).normal(100, 9, data.shape).astype(np.float32)),
    ),
    Kind("thick", "slices of 5.4 mm", SEGMENTED, "", resampled((1, 1, 4), (1, 1, 4))),
    Kind("finer", "voxels of 0.7 mm", SEGMENTED, "", finer),
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
    Kind("phase", "a phase image", ABSENT, "not a magnitude image", renamed("_part-phase_T1w")),
    Kind("misplaced", "a T1w under func/", ABSENT, "not in sub-01/anat", moved("func")),
    Kind(
        "othersession",
        "in a folder of a session, but no session in the name",
        REFUSED,
        "rename or move it",
        moved("ses-1/anat"),
    ),
    Kind("mgz", "FreeSurfer's .mgz", ABSENT, "", renamed_mgz),
)
