"""The inside of the skull: measured where the image shows it, and never guessed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.images import Grid
from hetseg_bids.network.layers import InstanceNorm
from hetseg_bids.network.models import load_head_model
from hetseg_bids.preprocessing.head import Head, find_head
from hetseg_bids.preprocessing.pipeline import PreparedImage
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation import views
from hetseg_bids.segmentation.intracranial import (
    STRIPPED,
    mask_on,
    measure_intracranial,
    see_head,
    volume_sd,
)
from hetseg_bids.segmentation.labels import Segmentation
from hetseg_bids.structures.aseg import ASEG
from support.phantoms import skull_phantom
from support.pretend_card import CARD, pretend_card


@pytest.fixture(scope="module")
def prepared() -> tuple[PreparedImage, Segmentation, np.ndarray]:
    image, inside = skull_phantom()
    grid = Grid(image.shape, np.eye(4))
    conformed = torch.from_numpy(image)
    whole = tuple(slice(0, n) for n in image.shape)
    mask = torch.from_numpy(inside)
    there = PreparedImage(
        native=grid,
        working=grid,
        image=conformed,
        mask=mask,
        extraction="deepbet",
        head=find_head(conformed, grid),
        content=whole,
        cut_cm2=0.0,
        warnings=(),
    )
    labels = np.where(inside, 2, 0).astype(np.uint8)
    labels[~_eroded(inside, 6)] = 0
    return there, Segmentation(grid, whole, labels, None, None, ASEG), inside


def _eroded(mask: np.ndarray, voxels: int) -> np.ndarray:
    from scipy import ndimage

    return ndimage.binary_erosion(mask, iterations=voxels)


def test_the_mask_is_the_inside_of_the_skull(prepared):
    image, result, inside = prepared
    found = measure_intracranial(load_head_model(CPU), image, result)
    assert found.reason is None
    assert found.volume_mm3 == found.mask.sum()
    overlap = 2 * (found.mask > 0)[inside].sum() / (found.mask.sum() + inside.sum())
    assert overlap > 0.95
    assert found.volume_mm3 == pytest.approx(inside.sum(), rel=0.09)  # 2.5 standard deviations


def test_a_gpu_resamples_the_mask(prepared, monkeypatch):
    image, result, _ = prepared
    monkeypatch.setattr(InstanceNorm, "forward", InstanceNorm._kernel)
    monkeypatch.setitem(views._CHUNK, "cuda", views._CHUNK["cpu"])
    wanted = measure_intracranial(load_head_model(CPU), image, result)
    with pretend_card() as moved:
        model = load_head_model.__wrapped__(CARD)
        moved.clear()
        found = measure_intracranial(model, image, result)
    np.testing.assert_array_equal(found.mask, wanted.mask)
    assert (found.volume_mm3, found.uncertainty) == (wanted.volume_mm3, wanted.uncertainty)
    assert moved["copies out"] == 3  # outputs of the first and the second look, mask
    assert moved["in"] < 3.1 * 4 * image.head.scores.numel()  # scores twice, logits


def test_a_stripped_image_has_no_volume_but_a_reason(prepared):
    image, result, _ = prepared
    found = measure_intracranial(load_head_model(CPU), replace(image, head=None), result)
    assert (found.mask, found.uncertainty, found.reason) == (None, None, STRIPPED)
    assert np.isnan(found.volume_mm3)


def test_a_field_of_view_that_ends_inside_the_skull_is_no_measurement(prepared):
    image, result, _ = prepared
    whole = image.image[:, :, :115]  # the crown is missing
    grid = Grid(tuple(whole.shape), np.eye(4))
    content = tuple(slice(0, n) for n in whole.shape)
    cut = replace(
        image, native=grid, working=grid, image=whole, head=find_head(whole, grid), content=content
    )
    found = measure_intracranial(load_head_model(CPU), cut, result)
    assert found.mask is None
    assert "ends inside the skull" in found.reason


def test_a_mask_without_the_brain_is_refused(prepared):
    image, result, inside = prepared
    elsewhere = np.where(~inside, 2, 0).astype(np.uint8)
    found = measure_intracranial(load_head_model(CPU), image, replace(result, dseg=elsewhere))
    assert found.mask is None
    assert "outside" in found.reason


def test_the_mask_is_one_piece_on_any_grid(prepared):
    image, _, _ = prepared
    seen = see_head(load_head_model(CPU), image.head)
    logits, uncertainty = seen.inside, seen.uncertainty
    fine = mask_on(logits, image.head.grid, image.native)
    coarse_grid = Grid((57, 67, 57), np.diag([3.0, 3, 3, 1]))
    coarse = mask_on(logits, image.head.grid, coarse_grid)
    assert 27 * coarse.sum() == pytest.approx(fine.sum(), rel=0.01)
    assert 8 * uncertainty.size == pytest.approx(fine.sum(), rel=0.02)


def test_what_lies_far_from_the_skull_hardly_counts(prepared):
    image, _, _ = prepared
    volumes = []
    for bright in (False, True):
        wide = torch.nn.functional.pad(image.image, (0, 0, 0, 60, 40, 0))
        if bright:  # a face and a neck
            wide[40:130, -55:-5, 10:110] = 900
            wide[50:120, 60:140, :25] = 700
        head = find_head(wide, Grid(tuple(wide.shape), np.eye(4)))
        volumes.append(see_head(load_head_model(CPU), head).uncertainty.size)
    assert volumes[1] == pytest.approx(volumes[0], rel=0.01)


def test_the_box_around_the_head_does_not_change_with_padding(prepared):
    image, _, _ = prepared
    padded = torch.nn.functional.pad(image.image, (20, 4, 0, 12, 8, 0))
    one = image.head
    other = find_head(padded, Grid(tuple(padded.shape), np.eye(4)))
    assert isinstance(other, Head)
    assert np.abs(np.array(one.scores.shape) - other.scores.shape).max() <= 2
    assert float(one.scores.max()) == pytest.approx(float(other.scores.max()), abs=0.02)


@pytest.mark.parametrize("offset", [-2000.0, -300.0, 1000.0])
def test_air_may_have_any_value(prepared, offset):
    image, _, _ = prepared
    moved = find_head(image.image + offset, image.working, offset)
    assert moved.grid.shape == image.head.grid.shape
    torch.testing.assert_close(moved.scores, image.head.scores, atol=1e-3, rtol=0)


def test_more_doubt_makes_wider_intervals():
    assert volume_sd(1.5e6, 6e4) > volume_sd(1.5e6, 2e4) > 0
