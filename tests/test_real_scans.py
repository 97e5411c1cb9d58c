"""The four real scans, none of which any shipped weight has seen."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from browsing import brightness
from conftest import reorient, run_cli, t1w_path, write_dataset

from hetseg_bids.structures import STRUCTURES

# four whole heads in one fixture: minutes each on an old processor
pytestmark = [pytest.mark.slow, pytest.mark.shared_data, pytest.mark.timeout(2700)]

LABELLED = ("voxelmorph", "swmribbon")
UNLABELLED = ("brainchop", "example")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shared_data) -> Path:
    root = tmp_path_factory.mktemp("real")
    bids = write_dataset(root / "bids")
    for folder, subjects in (("freesurfer_labelled", LABELLED), ("unlabelled", UNLABELLED)):
        for subject in subjects:
            source = shared_data / folder / f"sub-{subject}_T1w.nii.gz"
            t1w_path(bids, subject).symlink_to(source)
    done = run_cli("hetseg", bids, root / "out", "participant")
    assert done.code == 0, done.err
    return root


def dseg(root: Path, subject: str) -> nib.Nifti1Image:
    return nib.load(
        root / "out" / f"sub-{subject}" / "anat" / f"sub-{subject}_seg-hetseg_dseg.nii.gz"
    )


def test_accuracy_on_scans_never_trained_on(finished, shared_data):
    references = shared_data / "freesurfer_labelled"
    scores = finished / "scores.tsv"
    done = run_cli("hetseg-evaluate", references, finished / "out", "--out", scores)
    assert done.code == 0, done.err
    means = pd.read_csv(scores, sep="\t").groupby("participant")["dice"].mean()
    assert means["sub-voxelmorph"] >= 0.84
    assert means["sub-swmribbon"] >= 0.85


@pytest.mark.parametrize("subject", [*LABELLED, *UNLABELLED])
def test_every_structure_is_found_on_its_side_with_a_plausible_volume(finished, subject):
    image = dseg(finished, subject)
    data = np.asarray(image.dataobj)
    voxel = float(np.prod(image.header.get_zooms()[:3]))
    assert 900 < (data > 0).sum() * voxel / 1000 < 1800  # ml
    middle = (image.affine @ np.append(np.argwhere(data > 0).mean(axis=0), 1))[0]
    for structure in STRUCTURES:
        index = np.argwhere(data == structure.label)
        assert len(index) * voxel > 100, structure.name
        x = (image.affine @ np.append(index.mean(axis=0), 1))[0] - middle
        if structure.hemisphere:
            assert (x < 0) == (structure.hemisphere == "L"), structure.name


def test_a_scan_at_another_resolution_is_labelled_on_its_own_grid(finished, shared_data):
    source = nib.load(shared_data / "unlabelled" / "sub-example_T1w.nii.gz")
    image = dseg(finished, "example")
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)


def test_a_whole_head_and_a_loose_strip_go_through_deepbet(finished):
    for subject in LABELLED:
        anat = finished / "out" / f"sub-{subject}" / "anat"
        record = json.loads((anat / f"sub-{subject}_seg-hetseg_dseg.json").read_text())
        assert record["HetsegBrainExtraction"] == "deepbet"


def test_left_and_right_do_not_depend_on_how_a_real_scan_is_stored(tmp_path, shared_data):
    references = tmp_path / "refs"
    references.mkdir()
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    folder = shared_data / "freesurfer_labelled"
    t1w = nib.load(folder / "sub-voxelmorph_T1w.nii.gz")
    labels = nib.load(folder / "sub-voxelmorph_dseg.nii.gz")
    for code in ("LIA", "RAS", "LPS"):
        nib.save(reorient(t1w, code), t1w_path(bids, code))
        nib.save(reorient(labels, code), references / f"sub-{code}_dseg.nii.gz")
    done = run_cli("hetseg", bids, out, "participant", "--views", "axial,coronal")
    assert done.code == 0, done.err
    scores = tmp_path / "scores.tsv"
    assert run_cli("hetseg-evaluate", references, out, "--out", scores).code == 0
    table = pd.read_csv(scores, sep="\t").pivot(index="name", columns="participant", values="dice")
    np.testing.assert_allclose(table["sub-LIA"], table["sub-RAS"], atol=1e-3)
    np.testing.assert_allclose(table["sub-LPS"], table["sub-RAS"], atol=1e-3)
    assert table["sub-RAS"].min() > 0.4  # a swap of sides would give 0


@pytest.mark.parametrize("subject", [*LABELLED, *UNLABELLED])
def test_white_matter_and_cortex_lie_apart_on_the_page(finished, subject):
    text = (finished / "out" / f"sub-{subject}.html").read_text()
    white, cortex = (brightness(text, f"cerebral_{t}") for t in ("white_matter", "cortex"))
    assert white - cortex >= 0.3
