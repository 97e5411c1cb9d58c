import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import centred_affine, reorient
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hetseg_bids.images import Grid, grid_of
from hetseg_bids.preprocessing.brain_extraction import is_stripped
from hetseg_bids.preprocessing.conform import nearest, resample, working_grid

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
    radius = (litres * 1e6 * 3 / (4 * np.pi)) ** (1 / 3)
    axis = np.arange(-104, 105, dtype=np.float32) ** 2
    distance = axis[:, None, None] + axis[:, None] + axis
    assert is_stripped(np.where(distance < radius**2, np.float32(700), 0)) == stripped
