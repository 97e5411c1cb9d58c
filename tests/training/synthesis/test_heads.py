"""Whole heads for the head model."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.network.models import load_model, read_plan
from hetseg_bids.preprocessing.head import within
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.structures.head import BRAIN, FLUID, HEAD, OUTSIDE
from hetseg_bids.training.synthesis.heads import HEAD_FRAME, HeadConfig, HeadSource, read_head
from support.commands import run_cli, run_here
from support.phantoms import centred_affine, phantom_labels

_WHOLE = HeadConfig(
    rotation_deg=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    part_scale=(1.0, 1.0),
    shift_mm=0.0,
    warp=((24.0, 0.0),),
    defaced_rate=0.0,
    wrap_rate=0.0,
    bare_rate=0.0,
    cut_rates=(0.0,) * 6,
)


@pytest.fixture(scope="module")
def head_maps(tmp_path_factory):
    """A folder with the phantom, a skull between its fluid and its skin."""
    folder = tmp_path_factory.mktemp("heads")
    labels = np.pad(phantom_labels((150, 180, 160)), 6).astype(np.int16)
    labels[labels == 211] = 515
    skin = nib.Nifti1Image(labels, centred_affine(labels.shape))
    nib.save(skin, folder / "a_dseg.nii.gz")
    return folder


def test_the_volume_is_that_of_the_map(head_maps):
    (path,) = head_maps.glob("*.nii.gz")
    ids = read_head(path)
    inside = np.isin(ids, [i for i in np.unique(ids) if i and (i < 200 or i in (241, 242, 255))])
    head = HeadSource([path], _WHOLE).draw_head(np.random.default_rng(0))
    assert head.volume.labels.shape == HEAD_FRAME
    assert head.intracranial_mm3 == pytest.approx(inside.sum(), rel=0.005)
    labels = head.volume.labels.numpy()
    voxels = np.isin(labels, (FLUID, BRAIN)).sum()
    assert 8 * voxels == pytest.approx(head.intracranial_mm3, rel=0.01)
    assert (labels == OUTSIDE).any()


def test_fluid_of_the_spinal_canal_is_outside(head_maps):
    (path,) = head_maps.glob("*.nii.gz")
    ids = read_head(path)
    lowest = np.flatnonzero(np.isin(ids, (8, 47)).any(axis=(0, 1)))[0]
    below = ids[:, :, : lowest - 3]
    assert not (below == 24).any()
    assert (below == 243).any(), "it would count as fluid around the brain"


def test_what_lies_beyond_the_field_of_view_has_no_label(head_maps):
    paths = list(head_maps.glob("*.nii.gz"))
    whole = HeadSource(paths, _WHOLE).draw_head(np.random.default_rng(0))
    config = replace(_WHOLE, cut_rates=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    cut = HeadSource(paths, config).draw_head(np.random.default_rng(0))
    tops = [np.flatnonzero((h.volume.labels > 0).any(dim=0).any(dim=0))[-1] for h in (whole, cut)]
    assert tops[1] < tops[0]
    assert cut.intracranial_mm3 <= whole.intracranial_mm3


def test_a_defaced_head_keeps_all_that_is_inside(head_maps):
    paths = list(head_maps.glob("*.nii.gz"))
    whole = HeadSource(paths, _WHOLE).draw_head(np.random.default_rng(3))
    defaced = HeadSource(paths, replace(_WHOLE, defaced_rate=1.0)).draw_head(
        np.random.default_rng(3)
    )
    assert defaced.intracranial_mm3 == whole.intracranial_mm3
    changed = (whole.volume.image - defaced.volume.image).abs() > 0.5
    assert changed.any()
    assert (changed & (whole.volume.labels == BRAIN)).float().sum() < 10


def test_a_bare_head_keeps_all_that_is_inside_and_nothing_far_from_it(head_maps):
    paths = list(head_maps.glob("*.nii.gz"))
    inside = ()
    for rate in (0.0, 1.0):
        config = replace(_WHOLE, zeroed_rate=1.0, bare_rate=rate, bare=(4.0, 4.0))
        head = HeadSource(paths, config).draw_head(np.random.default_rng(3))
        inside += (torch.isin(head.volume.labels, torch.tensor([FLUID, BRAIN])),)
    bare = head.volume.image > head.volume.image.min()
    assert torch.equal(*inside)
    assert bare[inside[1]].float().mean() > 0.99
    assert not bare[~within(inside[1], 14)].any()  # 4, more in some places
    assert bare[within(inside[1], 2) & ~inside[1]].any()


def test_a_head_model_is_trained_and_no_model_for_structures(head_maps, tmp_path):
    arguments = ["--label-maps", head_maps, "--recipe", "head", "--samples", 4, "--workers", 0]
    done = run_cli("hetseg-train", tmp_path / "run", *arguments)
    assert done.code == 0, done.err
    plan = read_plan(tmp_path / "run" / "model")
    assert plan.label_set == HEAD
    assert plan.provenance["source"]["kind"] == "synthetic-T1w-heads"
    with pytest.raises(Exception, match="labels no structures"):
        load_model(str(tmp_path / "run" / "model"), CPU)


def test_the_recipe_takes_nothing_but_label_maps(head_maps, tmp_path):
    command = ("hetseg-train", tmp_path / "run", "--label-maps", head_maps, "--recipe", "head")
    for more in (("--parts",), ("--init", "label-flip"), ("--synthetic-scans", 2)):
        done = run_here(*command, *more)
        assert done.code == 2
        assert "from --label-maps alone" in done.err
