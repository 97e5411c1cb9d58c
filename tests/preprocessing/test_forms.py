"""Where a file says its voxels lie, what is said where it doubts itself, and what outputs say."""

import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hetseg_bids.errors import HeaderError, ImageError
from hetseg_bids.images import Grid
from hetseg_bids.outputs.derivatives import save_image
from hetseg_bids.preprocessing.conform import working_grid
from hetseg_bids.preprocessing.headers import read_t1w
from support.phantoms import centred_affine
from support.results import write_results

SHAPE = (70, 80, 66)
HERE = centred_affine(SHAPE)
TURNED = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.0, 0.0, np.deg2rad(20)))
ABOUT_FIRST_VOXEL = HERE @ TURNED
FLIPPED = HERE @ np.diag([-1, 1, 1, 1])
SHEARED = HERE.copy()
SHEARED[0, 1], SHEARED[1, 2] = 0.15, 0.08
NONE = np.zeros((4, 4))
DATA = np.random.default_rng(0).random(SHAPE).astype(np.float32)


def stored(path: Path, q: np.ndarray, q_code: int, s: np.ndarray, s_code: int) -> Path:
    image = nib.Nifti1Image(DATA, None)
    image.header.set_qform(q, q_code, strip_shears=True)
    image.header.set_sform(s, s_code)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("code", [0, 1, 2, 4])
def test_forms_that_agree_keep_their_codes(tmp_path, code):
    scan = read_t1w(stored(tmp_path / "a.nii", HERE, code, HERE, 4))
    assert scan.warnings == ()
    assert scan.grid.codes == (code or 4, 4)
    save_image(tmp_path / "b.nii.gz", DATA, working_grid(scan.grid), intent="label")
    written = nib.load(tmp_path / "b.nii.gz")
    assert (written.header["qform_code"], written.header["sform_code"]) == (code or 4, 4)
    for form in (written.get_qform(), written.get_sform()):
        np.testing.assert_allclose(form, HERE, atol=1e-4)


def test_a_sheared_sform_has_no_qform_in_the_outputs(tmp_path):
    scan = read_t1w(stored(tmp_path / "a.nii", HERE, 0, SHEARED, 2))
    assert scan.warnings == ()
    save_image(tmp_path / "b.nii.gz", DATA, scan.grid, intent="label")
    written = nib.load(tmp_path / "b.nii.gz")
    assert (written.header["qform_code"], written.header["sform_code"]) == (0, 2)
    np.testing.assert_allclose(written.affine, SHEARED, atol=1e-5)
    straight = working_grid(scan.grid)  # 1 mm, right-angled
    save_image(tmp_path / "c.nii.gz", np.zeros(straight.shape, np.uint8), straight, intent="label")
    written = nib.load(tmp_path / "c.nii.gz")
    np.testing.assert_allclose(written.get_qform(coded=True)[0], straight.affine, atol=1e-4)


@pytest.mark.parametrize(
    ("qform", "far", "sides"),
    [(ABOUT_FIRST_VOXEL, 37, False), (FLIPPED, 138, True), (HERE @ nib.affines.from_matvec(
        np.diag([-1.0, -1, 1])), 210, True)],
    ids=["20 degrees about the first voxel", "mirrored", "half a turn"],
)  # fmt: skip
def test_forms_are_compared_at_the_corners(tmp_path, qform, far, sides):
    scan = read_t1w(stored(tmp_path / "a.nii", qform, 1, HERE, 1))
    (said,) = scan.warnings
    distance = int(said.split(" differ by ")[1].split()[0])
    assert distance == pytest.approx(far, abs=1)
    assert ("SIDES DIFFER" in said) == sides
    np.testing.assert_allclose(scan.affine, HERE)


def test_forms_that_differ_by_rounding_are_one(tmp_path):
    near = HERE.copy()
    near[0, 1] += 0.002
    assert read_t1w(stored(tmp_path / "a.nii", HERE, 1, near, 1)).warnings == ()


@pytest.mark.parametrize("broken", [NONE, HERE * np.nan, HERE * 1000])
def test_a_good_form_stands_in_for_a_broken_one(tmp_path, broken):
    scan = read_t1w(stored(tmp_path / "a.nii", HERE, 3, broken, 1))
    (said,) = scan.warnings
    assert said.startswith("sform: ")
    assert said.endswith("; the qform is used")
    np.testing.assert_allclose(scan.affine, HERE)
    assert scan.grid.codes == (3, 3)
    with pytest.raises(HeaderError, match="sform: "):
        read_t1w(stored(tmp_path / "a.nii", HERE, 0, broken, 1))


@pytest.mark.parametrize("quaternion", [np.nan, 0.9])
def test_a_broken_qform_beside_a_good_sform_is_named(tmp_path, quaternion):
    path = stored(tmp_path / "a.nii", HERE, 1, HERE, 1)
    content = bytearray(path.read_bytes())
    struct.pack_into("<3f", content, 256, *[quaternion] * 3)
    path.write_bytes(content)
    scan = read_t1w(path)
    (said,) = scan.warnings
    assert said.startswith("qform: ")
    np.testing.assert_allclose(scan.affine, HERE)


def test_without_a_form_native_outputs_have_none_and_others_are_aligned(tmp_path):
    scan = read_t1w(stored(tmp_path / "a.nii", HERE, 0, HERE, 0))
    assert "sides are a guess" in scan.warnings[0]
    assert scan.grid.codes == (0, 0)
    assert working_grid(scan.grid).codes == (2, 2)
    save_image(tmp_path / "b.nii.gz", DATA, scan.grid, intent="label")
    np.testing.assert_allclose(nib.load(tmp_path / "b.nii.gz").affine, scan.affine)


def test_voxels_before_the_end_of_the_header_are_read_from_behind_it(tmp_path):
    path = stored(tmp_path / "a.nii", HERE, 1, HERE, 1)
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 108, 0)
    path.write_bytes(content)
    scan = read_t1w(path)
    np.testing.assert_array_equal(scan.data, DATA)
    assert "vox_offset is 0" in scan.warnings[0]
    path.write_bytes(content + bytes(100))  # an extension, or a tail?
    with pytest.raises(ImageError, match="vox_offset 0"):
        read_t1w(path)


def test_a_pair_of_header_and_image_is_nifti(tmp_path):
    nib.save(nib.Nifti1Pair(DATA, HERE), tmp_path / "a.img")
    for half in ("a.img", "a.hdr"):
        np.testing.assert_array_equal(read_t1w(tmp_path / half).data, DATA)


def test_a_whole_result_keeps_its_grid(tmp_path):
    paths, _ = write_results(tmp_path, "sub-01", np.ones((20, 22, 18), np.uint8))
    for path in (paths.dseg, paths.mask, paths.flip_probability):
        header = nib.load(path).header
        assert header["qform_code"] == header["sform_code"] == 1


def test_a_grid_says_where_a_part_of_it_lies():
    part = Grid(SHAPE, HERE, (1, 4)).part((slice(3, 9), slice(0, 5), slice(60, 66)))
    assert part.shape == (6, 5, 6)
    np.testing.assert_allclose(part.affine[:3, 3], (HERE @ (3, 0, 60, 1))[:3])
    assert part.codes == (1, 4)
