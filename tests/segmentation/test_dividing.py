"""All labels of an aseg from structures and parts: what must agree with the structures does."""

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hetseg_bids.images import Grid, grid_of
from hetseg_bids.network.systems import LabelFlip, PooledEnsemble
from hetseg_bids.segmentation.dividing import Cuts
from hetseg_bids.segmentation.inference import Logits
from hetseg_bids.segmentation.labels import segment
from hetseg_bids.structures.aseg import ASEG, PARTS, WHOLE_ASEG, WITH_PARTS
from hetseg_bids.structures.divisions import FIFTHS, whole_aseg
from support.phantoms import centred_affine, reorient

SHAPE = (12, 20, 10)
WORKING = Grid(SHAPE, centred_affine(SHAPE))
BOX = (slice(0, 12), slice(0, 20), slice(0, 10))
DIVISION = whole_aseg(WITH_PARTS)
BESIDE = ("choroid_plexus", "vessel", "csf", "wm_hypointensities", "optic_chiasm")


def logits_of(seed: int, *, beside: float = -60.0) -> Logits:
    """Smooth random logits; parts beside the structures have a mean of their own."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(ASEG.structures) + len(PARTS)
    coarse = 6 * torch.randn(2, rows, 4, 5, 4, generator=generator)
    label, second = torch.nn.functional.interpolate(coarse, SHAPE, mode="trilinear")
    for i, part in enumerate(PARTS, len(ASEG.structures)):
        if part.bare_name in BESIDE:
            label[i] += beside
    # log-odds of an ensemble mostly have the sign of the logit
    return Logits(label, label + 0.3 * second, PooledEnsemble(), BOX, WITH_PARTS)


def oblique(seed: int) -> Grid:
    rng = np.random.default_rng(seed)
    affine = WORKING.affine.copy()
    turn = nib.eulerangles.euler2mat(*rng.uniform(-0.5, 0.5, 3))
    affine[:3, :3] = turn @ np.diag(rng.uniform(0.6, 1.4, 3))
    affine[:3, 3] = WORKING.affine[:3, 3] + rng.uniform(-1, 1, 3)
    return Grid((16, 22, 14), affine)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_what_is_left_and_its_part_are_the_structure_on_any_grid(seed):
    logits, grid = logits_of(seed), oblique(seed)
    whole = segment(logits.of_structures(), WORKING, grid)
    parts = segment(logits, WORKING, grid, division=DIVISION)
    assert parts.label_set == WHOLE_ASEG
    assert np.array_equal(ASEG.collapse(parts.dseg), whole.dseg)
    assert len(np.unique(parts.dseg)) > len(np.unique(whole.dseg))


def test_parts_beside_structures_take_only_voxels_in_which_they_are_likelier():
    logits = logits_of(3, beside=0.0)
    whole = segment(logits.of_structures(), WORKING, WORKING)
    parts = segment(logits, WORKING, WORKING, division=DIVISION)
    beside = np.isin(parts.dseg, [p.label for p in PARTS if p.bare_name in BESIDE])
    assert beside.any()
    assert np.array_equal(ASEG.collapse(parts.dseg)[~beside], whole.dseg[~beside])


def test_the_doubt_of_a_label_is_that_of_the_statement_that_decides():
    rows = len(ASEG.structures) + len(PARTS)
    label = torch.full((rows, 4, 1, 1), -9.0)
    second = torch.full((rows, 4, 1, 1), -9.0)
    names = (*WITH_PARTS.names, *(p.name for p in PARTS))
    whole, part = names.index("left_cerebellum"), names.index("left_cerebellum_white_matter")
    # sure of both; of the structure only; sure that the part isn't there; of neither
    label[whole, :, 0, 0] = second[whole, :, 0, 0] = torch.tensor([6.0, 6, 1, -6])
    label[part, :, 0, 0] = second[part, :, 0, 0] = torch.tensor([4.0, -2, -6, -7])
    box = (slice(0, 4), slice(0, 1), slice(0, 1))
    grid = Grid((4, 1, 1), np.eye(4))
    logits = Logits(label, second, PooledEnsemble(), box, WITH_PARTS)
    found = segment(logits, grid, grid, division=DIVISION)
    assert found.dseg[:, 0, 0].tolist() == [7, 8, 8, 0]
    written = WHOLE_ASEG.names
    q = found.flip_probability.levels[:, :, 0, 0] * found.flip_probability.step
    rest = q[written.index("left_cerebellum_cortex")]
    inner = q[written.index("left_cerebellum_white_matter")]
    odds = [4.0, 2, 1, 6]  # of the weaker statement
    np.testing.assert_allclose(rest, 1 / (1 + np.exp(odds)), atol=0.002)
    np.testing.assert_allclose(inner, 1 / (1 + np.exp([4.0, 2, 6, 7])), atol=0.002)


@pytest.mark.parametrize("system", [PooledEnsemble(), LabelFlip()], ids=["pooled", "label-flip"])
def test_doubt_of_a_structure_is_doubt_of_what_is_left_of_it(system):
    rows = len(ASEG.structures) + len(PARTS)
    names = (*WITH_PARTS.names, *(p.name for p in PARTS))
    whole = names.index("left_lateral_ventricle")
    label = torch.full((rows, 2, 1, 1), -3.0)
    label[whole] = 5
    one = torch.ones_like(label)
    least = 0.01 * one
    least[whole, 1] = 0.45  # a cyst, says the atlas
    second = system.raised(label, -15 * one if system == LabelFlip() else 15 * label, least)
    box = (slice(0, 2), slice(0, 1), slice(0, 1))
    grid = Grid((2, 1, 1), np.eye(4))
    found = segment(Logits(label, second, system, box, WITH_PARTS), grid, grid, division=DIVISION)
    q = found.flip_probability.levels[:, :, 0, 0] * found.flip_probability.step
    assert found.dseg[:, 0, 0].tolist() == [4, 4]
    left = WHOLE_ASEG.names.index("left_lateral_ventricle")
    horn = WHOLE_ASEG.names.index("left_inferior_lateral_ventricle")
    np.testing.assert_allclose(q[left], [0.01, 0.45], atol=0.003)
    assert q[horn].max() < 0.015


@pytest.mark.parametrize("code", ["RAS", "LPI", "SRA", "PIR"])
def test_the_corpus_callosum_is_cut_into_fifths_from_the_back_to_the_front(code):
    rows = len(ASEG.structures) + len(PARTS)
    label = torch.full((rows, *SHAPE), -9.0)
    label[ASEG.names.index("corpus_callosum"), 4:7, :, 5] = 5
    logits = Logits(label, label.clone(), PooledEnsemble(), BOX, WITH_PARTS)
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), WORKING.affine)
    found = segment(logits, WORKING, grid_of(reorient(image, code)), division=DIVISION)
    back = nib.Nifti1Image(found.full(found.dseg), found.grid.affine)
    along = np.asarray(nib.as_closest_canonical(back).dataobj)[5, :, 5]
    assert along.tolist() == [fifth.label for fifth in FIFTHS for _ in range(4)]
    uncertain = dict(zip(WHOLE_ASEG.names, found.uncertainty, strict=True))
    assert sum(uncertain[f.name].size for f in FIFTHS) == 3 * SHAPE[1]


def test_a_scan_without_a_corpus_callosum_has_no_fifths():
    logits = logits_of(5)
    logits.label[ASEG.names.index("corpus_callosum")] = -9
    found = segment(logits, WORKING, WORKING, division=DIVISION)
    assert not np.isin(found.dseg, [fifth.label for fifth in FIFTHS]).any()
    assert Cuts.across(np.zeros((0, 3)), 5).places.shape == (4,)
