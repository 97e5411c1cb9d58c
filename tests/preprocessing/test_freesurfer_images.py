"""FreeSurfer's .mgz and .mgh are read like NIfTI, and bad ones get one line."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hetseg_bids.errors import HetsegError
from hetseg_bids.images import read_labels
from hetseg_bids.preprocessing.headers import read_t1w
from support.corruptions import ZOOM, brain
from support.phantoms import centred_affine, reorient

GOOD_RAS = 28


def scaled(dtype: str) -> np.ndarray:
    data = brain()
    return (data * (120 / data.max())).round().astype(dtype)


def write(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    affine = centred_affine(data.shape, ZOOM) if affine is None else affine
    nib.save(nib.MGHImage(data, affine), path)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("ending", ["mgz", "mgh", "MGZ"])
def test_voxels_and_place_are_those_of_nifti(tmp_path, dtype, ending):
    image = reorient(nib.Nifti1Image(scaled(dtype), centred_affine(brain().shape, ZOOM)), "LIA")
    data = np.asarray(image.dataobj)
    nifti = tmp_path / "T1.nii.gz"
    # mri_convert writes both forms with the code of the scanner
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    nib.save(image, nifti)
    mgh = read_t1w(write(tmp_path / f"T1.{ending}", data, image.affine))
    expected = read_t1w(nifti)
    np.testing.assert_array_equal(mgh.data, expected.data)
    np.testing.assert_allclose(mgh.affine, expected.affine, atol=1e-5)
    assert mgh.grid.codes == expected.grid.codes == (1, 1)
    assert mgh.warnings == expected.warnings == ()


def test_labels_are_read_too(tmp_path):
    labels = scaled("int32")
    found, grid = read_labels(write(tmp_path / "aseg.mgz", labels))
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(grid.zooms, ZOOM, rtol=1e-6)


def test_several_frames_are_refused(tmp_path):
    data = scaled("uint8")
    with pytest.raises(HetsegError, match=r"frames.mgz: 4-D image of shape .* split the frames"):
        read_t1w(write(tmp_path / "frames.mgz", np.stack([data, data], axis=-1)))


def test_an_image_without_a_place_is_used_with_a_warning(tmp_path):
    path = write(tmp_path / "T1.mgh", scaled("uint8"))
    content = bytearray(path.read_bytes())
    struct.pack_into(">h", content, GOOD_RAS, 0)
    path.write_bytes(content)
    scan = read_t1w(path)
    assert scan.grid.codes == (0, 0)
    assert "orientation and sides are a guess" in " ".join(scan.warnings)


def content() -> bytes:
    image = nib.MGHImage(scaled("uint8"), centred_affine(brain().shape, ZOOM))
    return image.to_bytes()


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("T1.mgz", lambda: b"", "empty; copy or convert it again"),
        ("T1.mgz", lambda: gzip.compress(content(), 1)[:-2000], "ended before"),
        ("T1.mgh", lambda: content()[:-200_000], "truncated or corrupt"),
        ("T1.mgh", lambda: gzip.compress(content(), 1), "compressed; name it .mgz"),
        ("T1.mgz", content, "not compressed; name it .mgh"),
        ("T1.mgh", lambda: b"no image" * 100, "not a readable FreeSurfer image"),
        ("T1.mgz", lambda: gzip.compress(b"no image" * 100), "not a readable FreeSurfer image"),
    ],
)
def test_a_damaged_file_gets_one_line(tmp_path, name, make, said):
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(HetsegError) as caught:
        read_t1w(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_after_the_compressed_image_are_left_out_with_a_warning(tmp_path):
    path = tmp_path / "T1.mgz"
    path.write_bytes(gzip.compress(content(), 1) + b"junk")
    assert "follow the compressed image" in " ".join(read_t1w(path).warnings)
