"""A brain mask that doesn't fit its head is noticed, whoever made it; a good one is not."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.network.models import load_head_model
from hetseg_bids.preprocessing.head import Head, find_head
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.intracranial import SeenHead, see_head
from hetseg_bids.segmentation.mask_fit import MaskFit
from support.commands import run_cli
from support.datasets import t1w_path, write_dataset
from support.phantoms import centred_affine, skull_phantom
from support.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def seen() -> tuple[np.ndarray, Grid, Head, SeenHead]:
    """A phantom's brain, and what the head model sees of the phantom."""
    image, inside = skull_phantom()
    grid = Grid(image.shape, np.eye(4))
    head = find_head(torch.from_numpy(image), grid)
    return inside, grid, head, see_head(load_head_model(CPU), head)


def _fit(seen: tuple[np.ndarray, Grid, Head, SeenHead], mask: np.ndarray) -> MaskFit:
    _, grid, head, found = seen
    return MaskFit.of(torch.from_numpy(mask.copy()), grid, found.inside, found.brain, head.grid)


def _half(mask: np.ndarray, axis: int) -> np.ndarray:
    places = np.moveaxis(mask.copy(), axis, 0)
    places[: len(places) // 2] = False
    return np.moveaxis(places, 0, axis)


def test_a_good_mask_is_not_doubted(seen):
    inside = seen[0]
    # the model's inside of this phantom is 8 % smaller
    for mm in (1, 3):
        assert _fit(seen, ndimage.binary_erosion(inside, iterations=mm)).doubts == ()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda mask: ndimage.binary_dilation(mask, iterations=14), "outside the skull"),
        (lambda mask: _half(mask, 0), "leaves out"),
        (lambda mask: _half(mask, 1), "leaves out"),
        (lambda mask: _half(mask, 2), "leaves out"),
        (lambda mask: np.roll(mask, 30, 0), "leaves out"),
        (lambda mask: np.roll(mask, 30, 1), "outside the skull"),
        (lambda mask: np.roll(mask, -30, 2), "outside the skull"),
    ],
    ids=["twice as large", *(f"half of axis {i}" for i in range(3)), "right", "forward", "down"],
)
def test_a_mask_that_fits_no_head_is_doubted_in_one_line(seen, spoil, says):
    (line,) = _fit(seen, spoil(seen[0])).doubts
    assert says in line
    assert "--brain-extraction mask" in line


def test_the_part_of_a_mask_beyond_the_box_of_the_head_lies_outside(seen):
    inside, grid, head, found = seen
    far = np.zeros_like(inside)
    far[:, :, :4] = True  # air below the box
    fit = _fit(seen, inside | far)
    before = _fit(seen, inside).outside * inside.sum()
    assert fit.outside == pytest.approx((before + far.sum()) / (inside | far).sum(), abs=0.005)
    nowhere = MaskFit.of(torch.from_numpy(far), grid, found.inside, found.brain, head.grid)
    assert nowhere.outside == pytest.approx(1)
    assert nowhere.missed == pytest.approx(1)


@pytest.mark.slow
def test_a_run_warns_and_its_verdict_wants_a_look(tmp_path: Path):
    image, inside = skull_phantom()
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    path, affine = t1w_path(bids, "01"), centred_affine(image.shape)
    nib.save(nib.Nifti1Image(image, affine), path)
    shifted = np.roll(inside, 30, 1).astype(np.uint8)
    nib.save(nib.Nifti1Image(shifted, affine), path.with_name("sub-01_desc-brain_mask.nii.gz"))
    options = ("--views", "axial", "--no-mirror", "--skip-bids-validation")
    model = write_tiny_model(tmp_path / "model")
    command = ("hetseg", bids, out, "participant", *options, "--model", model)
    done = run_cli(*command, "--brain-extraction", "mask")
    assert done.code == 0, done.err
    record = json.loads((out / "sub-01/anat/sub-01_seg-hetseg_dseg.json").read_text())
    (line,) = record["HetsegWarnings"]
    assert "the brain mask leaves out" in line
    page = (out / "sub-01.html").read_text()
    assert f"warning: {line}" in page
