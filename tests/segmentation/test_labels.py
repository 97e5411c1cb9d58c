"""From logits to labels, p and q: on the working grid, on others, in boxes."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hetseg_bids.images import Grid, grid_of
from hetseg_bids.network.flip import flip_probability
from hetseg_bids.network.systems import Heteroscedastic, LabelFlip, PredictiveVariance
from hetseg_bids.segmentation import labels as labelling
from hetseg_bids.segmentation.inference import Logits
from hetseg_bids.segmentation.labels import covering_box, decide, segment, to_levels
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES, STRUCTURES
from support.phantoms import centred_affine, reorient

ORIENTATIONS = [
    "".join(code)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for code in itertools.product(*order)
]
SHAPE = (14, 12, 10)
WORKING = Grid(SHAPE, centred_affine(SHAPE))
BOX = (slice(2, 12), slice(1, 11), slice(3, 9))
BOX_SHAPE = (10, 10, 6)
LABEL_FLIP = LabelFlip()


def some_logits(system: Heteroscedastic | None = LABEL_FLIP) -> Logits:
    generator = torch.Generator().manual_seed(4)
    label = 4 * torch.randn(N_STRUCTURES, *BOX_SHAPE, generator=generator) - 6
    second = None
    if system is not None:
        second = 3 * torch.randn(N_STRUCTURES, *BOX_SHAPE, generator=generator)
    return Logits(label, second, system, BOX, ASEG)


def oblique(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    rotation = nib.eulerangles.euler2mat(*rng.uniform(-0.4, 0.4, 3))
    affine[:3, :3] = rotation @ np.diag(rng.uniform(0.5, 3, 3))
    affine[:3, 3] = rng.uniform(-20, 20, 3)
    return affine


def test_the_likeliest_structure_wins_where_it_is_likelier_than_not():
    logits = torch.full((N_STRUCTURES, 4), -3.0)
    logits[5, 0] = 0.1
    logits[[5, 9], 1] = torch.tensor([0.1, 0.2])
    logits[5, 2] = 0.0  # p = 0.5 exactly
    labels = decide(logits, ASEG)
    assert labels.dtype == torch.uint8
    assert labels.tolist() == [STRUCTURES[5].label, STRUCTURES[9].label, 0, 0]


def test_another_number_of_structures_is_refused():
    with pytest.raises(ValueError, match=rf"^expected {N_STRUCTURES} structures, got 40$"):
        decide(torch.zeros(40, 2), ASEG)


def test_on_the_working_grid_nothing_is_interpolated():
    logits = some_logits()
    result = segment(logits, WORKING, WORKING, probability=True)
    assert result.box == BOX
    assert result.grid is WORKING
    np.testing.assert_array_equal(result.dseg, decide(logits.label, ASEG))
    q, p = result.flip_probability, result.probability
    np.testing.assert_array_equal(q.levels, to_levels(flip_probability(logits.second_output), 0.5))
    assert (q.step, p.step) == (0.5 / 255, 1 / 255)
    # p is q or 1 - q, each rounded by itself
    wrong = np.where(logits.label > 0, 255 - p.levels.astype(int), p.levels)
    assert np.abs(wrong * p.step - q.levels * q.step).max() <= 1 / 510 + 1 / 1020 + 1e-9


def test_sums_are_of_q_before_it_is_rounded_and_do_not_depend_on_slabs(monkeypatch):
    logits = some_logits()
    q = flip_probability(logits.second_output).numpy().astype(np.float64)
    labels = decide(logits.label, ASEG).numpy()
    for values in (labelling._SLAB_VALUES, 1):
        monkeypatch.setattr(labelling, "_SLAB_VALUES", values)  # 1: a plane at a time
        found = segment(logits, WORKING, WORKING).uncertainty
        for structure, one, u in zip(STRUCTURES, q, found, strict=True):
            inside = labels == structure.label
            agreed = (1 - one[inside]).sum()
            expected = agreed + one[~inside].sum()
            assert u.size == inside.sum()
            assert u.mean_flip_probability == pytest.approx(
                one[inside].mean(), rel=1e-6, nan_ok=True
            )
            assert u.expected_size == pytest.approx(expected, rel=1e-6)
            assert u.expected_dice == pytest.approx(2 * agreed / (u.size + expected), rel=1e-6)
            assert u.flip_variance == pytest.approx((one * (1 - one)).sum(), rel=1e-6)


def test_soft_volumes_are_sums_of_p_in_mm3_with_and_without_flip_map(monkeypatch):
    monkeypatch.setattr(labelling, "_SLAB_VALUES", 4000)  # several slabs
    affine = WORKING.affine @ np.diag([0.8, 1.25, 1.5, 1])
    for logits in (some_logits(), some_logits(None)):
        for grid in (WORKING, Grid((24, 22, 20), affine)):
            result = segment(logits, WORKING, grid, probability=True)
            maps = result.probability
            table = measure(result)
            step_mm3 = maps.step / 2 * grid.voxel_volume
            sums = maps.levels.sum(axis=(1, 2, 3)) * maps.step * grid.voxel_volume
            voxels = maps.levels[0].size
            found = table["expected_volume_mm3"].to_numpy()
            np.testing.assert_allclose(found, sums, rtol=0.02, atol=0.05 * voxels * step_mm3)
            assert (found > 0).all()


def test_p_is_kept_only_when_asked_and_q_only_where_the_model_has_it():
    assert segment(some_logits(), WORKING, WORKING).probability is None
    plain = segment(some_logits(None), WORKING, WORKING, probability=True)
    assert plain.flip_probability is None
    sigmoid = torch.sigmoid(some_logits(None).label)
    assert plain.uncertainty is None
    np.testing.assert_array_equal(plain.probability.levels, to_levels(sigmoid, 1.0))
    logits = some_logits(PredictiveVariance())
    variance = segment(logits, WORKING, WORKING, probability=True)
    distance = logits.label / torch.exp(logits.second_output / 2)
    for maps, exact in (
        (variance.flip_probability, torch.special.ndtr(-distance.abs())),
        (variance.probability, torch.special.ndtr(distance)),
    ):
        np.testing.assert_allclose(
            maps.levels * maps.step, exact, rtol=0, atol=maps.step / 2 + 1e-6
        )


def test_beyond_the_box_is_background():
    result = segment(some_logits(), WORKING, WORKING)
    whole = result.full(result.flip_probability.levels)
    assert whole.shape == (N_STRUCTURES, *SHAPE)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole[(..., *BOX)], result.flip_probability.levels)
    whole[(..., *BOX)] = 0
    assert not whole.any()
    labels = result.full(result.dseg)
    assert labels.shape == SHAPE
    assert labels.dtype == np.uint8


def test_a_larger_grid_sees_nothing_certain_beyond_the_box():
    affine = WORKING.affine.copy()
    affine[:3, :3] *= 0.7
    affine[:3, 3] = WORKING.affine[:3, 3] - 1
    sure = torch.full((N_STRUCTURES, *BOX_SHAPE), 5.0)
    logits = Logits(sure, sure, LabelFlip(), BOX, ASEG)
    result = segment(logits, WORKING, Grid((24, 22, 20), affine), probability=True)
    outside = np.ones((24, 22, 20), bool)
    index = np.stack(np.meshgrid(*map(np.arange, outside.shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    place = (world - WORKING.affine[:3, 3]) @ np.linalg.inv(WORKING.affine[:3, :3]).T
    low, high = np.array([2, 1, 3]), np.array([11, 10, 8])
    inside = ((place >= low) & (place <= high)).all(axis=-1)
    near = ((place < low - 0.3) | (place > high + 0.3)).any(axis=-1)
    far = ((place < low - 0.9) | (place > high + 0.9)).any(axis=-1)
    labels, p = result.full(result.dseg), result.full(result.probability.levels)
    assert (labels[inside] == STRUCTURES[0].label).all()
    assert not labels[near].any()  # a voxel beyond the box is all but certainly background
    assert p[:, far].max() == 0
    q = result.flip_probability
    assert result.full(q.levels)[:, far].max() * q.step < 1e-2


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_volumes_do_not_depend_on_how_the_header_turns_the_image(code):
    logits = some_logits()
    straight = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), WORKING.affine)
    here = segment(logits, WORKING, WORKING)
    there = segment(logits, WORKING, grid_of(reorient(straight, code)))
    back = nib.Nifti1Image(there.full(there.dseg), there.grid.affine)
    back = nib.as_closest_canonical(back)
    np.testing.assert_array_equal(np.asarray(back.dataobj), here.full(here.dseg))
    a, b = measure(here).set_index("name"), measure(there).set_index("name")
    np.testing.assert_array_equal(a["volume_mm3"], b["volume_mm3"])
    for column in ("volume_sd_mm3", "mean_flip_probability", "expected_dice"):
        np.testing.assert_allclose(a[column], b[column], rtol=1e-9)


@given(st.integers(0, 2**31), st.tuples(*[st.tuples(st.integers(0, 9), st.integers(1, 9))] * 3))
def test_a_box_stays_where_it_is_in_the_scanner(seed, ends):
    grid = Grid((18, 18, 18), oblique(seed))
    box = tuple(slice(start, start + length) for start, length in ends)
    part = grid.part(box)
    assert part.shape == tuple(length for _, length in ends)
    corner = np.array([start for start, _ in ends])
    for voxel in (np.zeros(3), np.array(part.shape) - 1):
        np.testing.assert_allclose(
            part.affine[:3, :3] @ voxel + part.affine[:3, 3],
            grid.affine[:3, :3] @ (voxel + corner) + grid.affine[:3, 3],
        )


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_a_covering_box_holds_every_voxel_of_the_other_grid(seed):
    inner = Grid((6, 7, 5), oblique(seed))
    outer = Grid((25, 30, 28), oblique(seed + 1))
    box = covering_box(inner, outer)
    index = np.stack(np.meshgrid(*map(np.arange, inner.shape), indexing="ij"), axis=-1)
    world = index.reshape(-1, 3) @ inner.affine[:3, :3].T + inner.affine[:3, 3]
    place = (world - outer.affine[:3, 3]) @ np.linalg.inv(outer.affine[:3, :3]).T
    for axis, (part, n) in enumerate(zip(box, outer.shape, strict=True)):
        low, high = place[:, axis].min(), place[:, axis].max()
        assert 0 <= part.start < part.stop
        if high >= 0 and low <= n - 1:
            assert part.stop <= n
            assert part.start <= max(low, 0) + 2e-3
            assert part.stop - 1 >= min(high, n - 1) - 2e-3
            # and no slice more than it needs
            assert part.start >= np.floor(max(low, 0))
            assert part.stop - 1 <= np.ceil(min(high, n - 1))
