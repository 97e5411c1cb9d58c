import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hetseg_bids.images import Grid, grid_of
from hetseg_bids.preprocessing.brain_extraction import is_stripped
from hetseg_bids.preprocessing.conform import (
    interpolation_blur,
    nearest,
    resample,
    resample_inside,
    working_grid,
)
from hetseg_bids.preprocessing.field import find_field, head_box
from hetseg_bids.preprocessing.pipeline import PreparedImage, cut_area, prepare_image
from support.phantoms import centred_affine, phantom_labels, phantom_t1w, reorient

ORIENTATIONS = [
    "".join(code)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for code in itertools.product(*order)
]


def asymmetric() -> nib.Nifti1Image:
    data = np.random.default_rng(0).random((24, 30, 20)).astype(np.float32)
    return nib.Nifti1Image(data, centred_affine(data.shape))


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_every_orientation_conforms_to_the_same_image_and_returns_exactly(code):
    image = asymmetric()
    stored = reorient(image, code)
    native = grid_of(stored)
    working = working_grid(native)
    assert nib.aff2axcodes(working.affine) == ("R", "A", "S")
    data = torch.from_numpy(np.asarray(stored.dataobj).copy())[None]
    conformed = resample(data, native, working)
    np.testing.assert_array_equal(conformed[0].numpy(), image.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(resample(conformed, working, native)[0], data[0])


@settings(max_examples=25, deadline=None)
@given(
    zooms=st.tuples(*[st.floats(0.5, 2.0)] * 3),
    angles=st.tuples(*[st.floats(-25, 25)] * 3),
    code=st.sampled_from(ORIENTATIONS),
)
def test_a_linear_image_survives_any_geometry(zooms, angles, code):
    # trilinear interpolation reproduces a linear function of position
    rotation = nib.eulerangles.euler2mat(*np.deg2rad(angles))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(zooms)
    shape = (28, 32, 24)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    image = nib.Nifti1Image((world @ [1.0, 2.0, -1.5]).astype(np.float32), affine)
    stored = reorient(image, code)
    native = grid_of(stored)
    working = working_grid(native)
    data = torch.from_numpy(np.asarray(stored.dataobj).copy())[None]
    moved = resample(data, native, working)[0].numpy()
    index = np.stack(np.meshgrid(*map(np.arange, working.shape), indexing="ij"), axis=-1)
    world = index @ working.affine[:3, :3].T + working.affine[:3, 3]
    back = np.linalg.inv(native.affine)
    source = world @ back[:3, :3].T + back[:3, 3]
    inside = ((source >= 0) & (source <= np.array(native.shape) - 1)).all(axis=-1)
    assert inside.sum() > 0.5 * native.voxel_volume * data.numel()
    np.testing.assert_allclose(moved[inside], (world @ [1.0, 2.0, -1.5])[inside], atol=0.02)


def test_oblique_and_anisotropic_scans_get_a_1_mm_ras_grid():
    affine = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.2, -0.1, 0.15) @ np.diag([-0.7, 0.9, 1.2]), [5, 6, 7]
    )
    working = working_grid(Grid((64, 64, 64), affine))
    np.testing.assert_allclose(np.abs(working.affine[:3, :3]), np.eye(3), atol=1e-6)
    assert nib.aff2axcodes(working.affine) == ("R", "A", "S")


def test_nearest_keeps_the_outer_half_of_the_outermost_slices():
    """findings/: nilearn and nibabel cut it off."""
    labels = np.zeros((6, 6, 4), np.uint8)
    labels[1:5, 1:5] = 17
    labels[2:4, 2:4, -1] = 53
    thick = Grid(labels.shape, np.diag([1.0, 1, 5, 1]))
    affine = np.eye(4)
    affine[2, 3] = -3  # the first slice lies beyond the first face, as the last one does
    moved = nearest(labels, thick, Grid((6, 6, 22), affine))
    assert [int((moved == label).sum()) for label in (17, 53)] == [5 * 60, 5 * 4]
    assert not moved[..., 0].any()
    assert not moved[..., -1].any()


def test_nearest_keeps_label_values():
    labels = np.zeros((10, 12, 8), np.uint8)
    labels[2:5, 3:9, 1:6] = 255
    native = Grid(labels.shape, centred_affine(labels.shape, 2.0))
    moved = nearest(labels, native, working_grid(native))
    assert set(np.unique(moved)) == {0, 255}
    assert moved.sum() == pytest.approx(8 * labels.sum(), rel=0.2)


@settings(max_examples=40, deadline=None)
@given(
    zooms=st.tuples(*[st.floats(0.4, 3)] * 3),
    shift=st.tuples(*[st.floats(-4, 4)] * 3),
    code=st.sampled_from(ORIENTATIONS),
    angle=st.sampled_from((0.0, 0.0, 0.2)),  # axis by axis, or point by point
)
def test_resampling_is_trilinear_towards_the_value_beyond(zooms, shift, code, angle):
    source, shape = Grid((9, 8, 7), np.eye(4)), (6, 7, 8)
    head = nib.Nifti1Image(np.zeros(shape), centred_affine(shape))
    affine = np.array(reorient(head, code).affine)
    turn = nib.eulerangles.euler2mat(angle, angle, -angle)
    affine[:3, :3] = turn @ np.diag(zooms) @ affine[:3, :3]
    affine[:3, 3] += np.array(shift) + 4
    volumes = torch.randn(3, *source.shape, generator=torch.Generator().manual_seed(1))
    found = resample(volumes, source, Grid(shape, affine), outside=-5)
    places = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    for volume, ours in zip(volumes, found, strict=True):
        expected = ndimage.map_coordinates(
            volume.numpy(), np.moveaxis(places, -1, 0), order=1, mode="grid-constant", cval=-5
        )
        np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("litres", "stripped"),
    [(0.3, False), (1.2, True), (1.9, True), (2.2, False), (4.0, False)],
    ids=["a piece", "brain", "brain and CSF", "brain and dura", "head"],
)
def test_what_fits_into_a_skull_counts_as_stripped(litres, stripped):
    assert is_stripped(litres * 1000) == stripped


@pytest.fixture(scope="module")
def bare_brain() -> nib.Nifti1Image:
    """0.7 litres at 1 mm, with fluid at its border here and there, and a hole."""
    labels = phantom_labels((120, 144, 112))
    data = phantom_t1w(labels)
    data[np.isin(labels, (0, 24, 211))] = 0
    data[58:63, 70:75, 40:45] = 0
    return nib.Nifti1Image(data, centred_affine(data.shape))


@pytest.fixture(scope="module")
def straight(bare_brain, tmp_path_factory) -> PreparedImage:
    path = tmp_path_factory.mktemp("straight") / "a.nii"
    nib.save(bare_brain, path)
    return prepare_image(path)


def looked_at(
    image: nib.Nifti1Image, zooms: tuple[float, ...], degrees: float, order: int
) -> nib.Nifti1Image:
    """The same scan on another grid, as a user's tool interpolates it."""
    turn = nib.eulerangles.euler2mat(*(np.deg2rad(degrees) * np.array([1, -0.7, 0.5])))
    room = 1.3 if degrees else 1.0
    shape = tuple(np.ceil(room * np.array(image.shape) / zooms).astype(int))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(zooms)
    middle = (np.array(shape) - 1) / 2 if degrees else 0  # or where the first voxel was
    corner = 0 if degrees else image.affine[:3, 3]
    affine[:3, 3] = corner - affine[:3, :3] @ np.broadcast_to(middle, 3)
    data = ndimage.affine_transform(
        image.get_fdata(dtype=np.float32),
        np.linalg.inv(image.affine) @ affine,
        output_shape=shape,
        order=order,
    )
    return nib.Nifti1Image(data.astype(np.float32), affine)


@pytest.mark.parametrize(
    ("zooms", "degrees", "order"),
    [
        ((0.8, 0.8, 0.8), 0, 1),
        ((1, 1, 2), 0, 1),
        ((1, 1, 1), 12, 1),
        ((0.9, 0.9, 0.9), 12, 3),
    ],
)
def test_a_stripped_scan_keeps_its_brain_at_any_voxel_size_and_tilt(
    tmp_path, bare_brain, straight, zooms, degrees, order
):
    nib.save(looked_at(bare_brain, zooms, degrees, order), tmp_path / "b.nii")
    moved = prepare_image(tmp_path / "b.nii")
    assert straight.extraction == moved.extraction == "skip"
    assert int(straight.mask.sum()) == np.count_nonzero(bare_brain.dataobj)
    assert int(moved.mask.sum()) == pytest.approx(int(straight.mask.sum()), rel=0.01)
    kept, found = (p.image[p.mask].numpy() for p in (straight, moved))
    # the rim would be a second peak of dark voxels, and move all standard scores
    for share in (10, 25, 50, 75):
        assert np.percentile(found, share) == pytest.approx(np.percentile(kept, share), abs=0.2)


def test_no_voxel_of_a_tilted_brain_is_mixed_with_background():
    axis = np.arange(-12, 13) ** 2
    ball = axis[:, None, None] + axis[:, None] + axis < 100
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(0.2, -0.1, 0.15) * 0.8
    image = np.where(ball, np.float32(700), 0)
    source = Grid(image.shape, turn)
    moved, inside = resample_inside(image, ball, source, working_grid(source), outside=0)
    assert int(inside.sum()) == pytest.approx(ball.sum() * 0.8**3, rel=0.01)
    np.testing.assert_allclose(moved[inside], 700, rtol=1e-5)
    assert not moved[~inside].any()


@pytest.mark.parametrize(("padding", "wide"), [(0, 60), (-1000, 33)])
def test_empty_space_moves_neither_background_nor_head(padding, wide):
    data = phantom_t1w(phantom_labels())[::2, ::2, ::2]
    noise = np.random.default_rng(0).rayleigh(15, data.shape)
    data = np.where(data > 0, data, noise).round().astype(np.float32)
    padded = np.pad(data, wide, constant_values=padding)
    background, content = find_field(padded)
    assert background == find_field(data)[0]
    assert content == tuple(slice(wide, wide + n) for n in data.shape)
    alone, within = head_box(data), head_box(padded)
    assert within == tuple(slice(s.start + wide, s.stop + wide) for s in alone)
    skin = np.argwhere(data > 200)
    for axis, box in enumerate(alone):
        assert skin[:, axis].min() - 8 <= box.start <= skin[:, axis].min()
        assert skin[:, axis].max() < box.stop <= skin[:, axis].max() + 8


def test_noise_in_wide_air_moves_no_head_by_more_than_a_block():
    data = phantom_t1w(phantom_labels())[::2, ::2, ::2]
    wide = np.pad(data, 70)
    noise = np.random.default_rng(0).rayleigh(40, wide.shape)
    box = head_box(np.where(wide > 0, wide, noise).astype(np.float32))
    for found, alone in zip(box, head_box(data), strict=True):
        assert abs(found.start - 70 - alone.start) <= 8
        assert abs(found.stop - 70 - alone.stop) <= 8


def test_a_brain_that_the_image_cuts_is_cut_in_any_padding_and_tilt(tmp_path, bare_brain):
    data = bare_brain.get_fdata(dtype=np.float32)[:, :, 50:]
    area = np.count_nonzero(data[:, :, 0]) / 100
    turn = np.eye(4)
    turn[:3, :3] = nib.eulerangles.euler2mat(0.2, -0.1, 0.15)
    for name, affine in (("straight", np.eye(4)), ("turned", turn)):
        path = tmp_path / f"{name}.nii"
        nib.save(nib.Nifti1Image(np.pad(data, 20), affine), path)
        assert prepare_image(path).cut_cm2 == pytest.approx(area, rel=0.03)


def test_a_mask_that_touches_no_face_has_no_cut():
    mask = torch.zeros(20, 20, 20, dtype=torch.bool)
    mask[5:15, 5:15, 5:15] = True
    grid = Grid((20, 20, 20), np.diag([2.0, 2, 2, 1]))
    whole = (slice(0, 20),) * 3
    assert cut_area(mask, grid, grid, whole) == 0
    assert cut_area(mask, grid, grid, (slice(0, 20), slice(0, 20), slice(5, 20))) == pytest.approx(
        4
    )


def test_a_scan_in_a_field_of_a_metre_is_read(tmp_path, bare_brain, straight):
    wide = np.pad(bare_brain.get_fdata(dtype=np.float32), ((0, 0), (300, 300), (0, 0)))
    nib.save(nib.Nifti1Image(wide, np.eye(4)), tmp_path / "b.nii")
    within = prepare_image(tmp_path / "b.nii")
    assert within.native.shape == wide.shape
    assert torch.equal(straight.image[straight.mask], within.image[within.mask])


def test_interpolation_blurs_by_how_far_places_lie_from_voxels():
    one = Grid((40, 40, 40), np.eye(4))
    halfway = np.eye(4)
    halfway[0, 3] = 0.5
    np.testing.assert_allclose(
        interpolation_blur(one, Grid((39, 40, 40), halfway)), (0.25, 0, 0), atol=1e-9
    )
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", (9, 14, 5), degrees=True).as_matrix() * 0.83
    blur = interpolation_blur(one, Grid((40, 40, 40), turned))
    np.testing.assert_allclose(blur, 1 / 6, atol=0.01)
