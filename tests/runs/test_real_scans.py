"""Real scans, none of which any shipped weight has seen.

Two of them, whose labels are known, with hetseg's defaults; the others with one view and no mirror
image, a sixth of the network's time, which must do for what is asked of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.structures.aseg import ASEG, STRUCTURES
from support.browsing import brightness
from support.commands import run_cli
from support.datasets import t1w_path, write_dataset
from support.phantoms import reorient

# whole heads in one fixture: minutes each on an old processor
pytestmark = [pytest.mark.slow, pytest.mark.shared_data, pytest.mark.timeout(2700)]

LABELLED = {"ads01": "freesurfer_dev", "swmribbon": "freesurfer_labelled"}
UNLABELLED = {"brainchop": "unlabelled", "example": "unlabelled"}
ONE_VIEW = ("--views", "axial", "--no-mirror")
ORDERS = ("LIA", "LPS")  # test_run.py has RAS and another one


def segment(root: Path, *options: str) -> Path:
    done = run_cli("hetseg", root / "bids", root / "out", "participant", *options)
    assert done.code == 0, done.err
    return root


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, shared_data) -> Path:
    """With hetseg's defaults."""
    root = tmp_path_factory.mktemp("real")
    bids = write_dataset(root / "bids")
    (root / "refs").mkdir()
    for subject, folder in LABELLED.items():
        source = shared_data / folder
        t1w_path(bids, subject).symlink_to(source / f"sub-{subject}_T1w.nii.gz")
        name = f"sub-{subject}_dseg.nii.gz"
        (root / "refs" / name).symlink_to(source / name)
    return segment(root)


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, shared_data) -> Path:
    root = tmp_path_factory.mktemp("unlabelled")
    bids = write_dataset(root / "bids")
    for subject, folder in UNLABELLED.items():
        t1w_path(bids, subject).symlink_to(shared_data / folder / f"sub-{subject}_T1w.nii.gz")
    return segment(root, *ONE_VIEW)


@pytest.fixture(params=[*LABELLED, *UNLABELLED])
def scan(request) -> tuple[Path, str]:
    """Each of them: the folder of its results and its name."""
    name = "labelled" if request.param in LABELLED else "unlabelled"
    return request.getfixturevalue(name), request.param


@pytest.fixture(scope="module")
def stored_otherwise(tmp_path_factory, shared_data) -> Path:
    """A whole head in two storage orders, and a loosely stripped one."""
    root = tmp_path_factory.mktemp("orders")
    bids = write_dataset(root / "bids")
    (root / "refs").mkdir()
    scans = shared_data / "freesurfer_dev"
    t1w, labels = (nib.load(scans / f"sub-ads04_{name}.nii.gz") for name in ("T1w", "dseg"))
    for code in ORDERS:
        nib.save(reorient(t1w, code), t1w_path(bids, code))
        nib.save(reorient(labels, code), root / "refs" / f"sub-{code}_dseg.nii.gz")
    loose = shared_data / "freesurfer_open" / "sub-voxelmorph_T1w.nii.gz"
    t1w_path(bids, "voxelmorph").symlink_to(loose)
    return segment(root, *ONE_VIEW)


def output(root: Path, subject: str, name: str) -> Path:
    return root / "out" / f"sub-{subject}" / "anat" / f"sub-{subject}_seg-hetseg_{name}"


def test_accuracy_on_scans_never_trained_on(labelled):
    scores = labelled / "scores.tsv"
    done = run_cli("hetseg-evaluate", labelled / "refs", labelled / "out", "--out", scores)
    assert done.code == 0, done.err
    means = pd.read_csv(scores, sep="\t").groupby("participant")["dice"].mean()
    assert means["sub-ads01"] >= 0.83
    assert means["sub-swmribbon"] >= 0.85


def test_every_structure_is_found_on_its_side_with_a_plausible_volume(scan):
    image = nib.load(output(*scan, "dseg.nii.gz"))
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


def test_a_scan_at_another_resolution_is_labelled_on_its_own_grid(unlabelled, shared_data):
    source = nib.load(shared_data / "unlabelled" / "sub-example_T1w.nii.gz")
    image = nib.load(output(unlabelled, "example", "dseg.nii.gz"))
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)


def test_a_whole_head_and_a_loose_strip_go_through_deepbet(labelled, stored_otherwise):
    scans = [(labelled, subject) for subject in LABELLED] + [(stored_otherwise, "voxelmorph")]
    for root, subject in scans:
        record = json.loads(output(root, subject, "dseg.json").read_text())
        assert record["HetsegBrainExtraction"] == "deepbet"


def dice_of_structures(root: Path, subject: str) -> np.ndarray:
    """As hetseg-evaluate has it, without its distances, which take longer than the network."""
    paths = root / "refs" / f"sub-{subject}_dseg.nii.gz", output(root, subject, "dseg.nii.gz")
    reference, found = (ASEG.collapse(np.asarray(nib.load(p).dataobj, dtype=int)) for p in paths)
    return np.array([dice(found == s.label, reference == s.label) for s in STRUCTURES])


def test_left_and_right_do_not_depend_on_how_a_real_scan_is_stored(stored_otherwise, labelled):
    first, *others = (dice_of_structures(stored_otherwise, code) for code in ORDERS)
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-3)
    for scores in (first, *(dice_of_structures(labelled, subject) for subject in LABELLED)):
        assert scores.min() > 0.4  # a swap of sides would give 0
        assert scores.mean() > 0.8


def test_white_matter_and_cortex_lie_apart_on_the_page(scan):
    root, subject = scan
    text = (root / "out" / f"sub-{subject}.html").read_text()
    white, cortex = (brightness(text, f"cerebral_{t}") for t in ("white_matter", "cortex"))
    assert white - cortex >= 0.3
