"""Real scans. Those that are scored the default weights have never seen.

One of them, whose labels are known, with hetseg's defaults; the others with one view and no mirror
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
from hetseg_bids.structures.aseg import ASEG, STRUCTURES, WHOLE_ASEG
from support.browsing import brightness
from support.commands import run_cli
from support.datasets import t1w_path, write_dataset
from support.phantoms import reorient

# whole heads in one fixture: minutes each on an old processor
pytestmark = [pytest.mark.slow, pytest.mark.shared_data, pytest.mark.timeout(2700)]

# folders of the development scans
LABELLED = {"ads01": "freesurfer_dev", "swmribbon": "freesurfer_labelled"}
UNLABELLED = {"brainchop": "unlabelled", "example": "unlabelled"}
LOOSE = {"voxelmorph": "freesurfer_open"}
BY_DEFAULT = "ads01"
ONE_VIEW = ("--views", "axial", "--no-mirror")
ORDERS = ("LIA", "PSR")  # RAS and LPS: test_run.py


def segment(root: Path, *options: str) -> Path:
    done = run_cli("hetseg", root / "bids", root / "out", "participant", *options)
    assert done.code == 0, done.err
    return root


def link(source: Path, subject: str, root: Path) -> None:
    """Put a scan into the dataset, and its labels, where it has any, beside it."""
    name = f"sub-{subject}_dseg.nii.gz"
    t1w_path(root / "bids", subject).symlink_to(source / f"sub-{subject}_T1w.nii.gz")
    if (source / name).exists():
        (root / "refs" / name).symlink_to(source / name)


@pytest.fixture(scope="module")
def by_default(tmp_path_factory, shared_data) -> Path:
    """A whole head with hetseg's defaults."""
    root = dataset(tmp_path_factory.mktemp("default"))
    link(shared_data / LABELLED[BY_DEFAULT], BY_DEFAULT, root)
    return segment(root)


@pytest.fixture(scope="module")
def one_view(tmp_path_factory, shared_data) -> Path:
    """The others; one more head in two storage orders."""
    root = dataset(tmp_path_factory.mktemp("one_view"))
    for subject, folder in (LABELLED | UNLABELLED | LOOSE).items():
        if subject != BY_DEFAULT:
            link(shared_data / folder, subject, root)
    scans = shared_data / "freesurfer_dev"
    t1w, labels = (nib.load(scans / f"sub-ads04_{name}.nii.gz") for name in ("T1w", "dseg"))
    for code in ORDERS:
        nib.save(reorient(t1w, code), t1w_path(root / "bids", code))
        nib.save(reorient(labels, code), root / "refs" / f"sub-{code}_dseg.nii.gz")
    return segment(root, *ONE_VIEW)


def dataset(root: Path) -> Path:
    write_dataset(root / "bids")
    (root / "refs").mkdir()
    return root


@pytest.fixture(params=[*LABELLED, *UNLABELLED])
def scan(request) -> tuple[Path, str]:
    """Each of them: the folder of its results and its name."""
    name = "by_default" if request.param == BY_DEFAULT else "one_view"
    return request.getfixturevalue(name), request.param


def output(root: Path, subject: str, name: str) -> Path:
    return root / "out" / f"sub-{subject}" / "anat" / f"sub-{subject}_seg-hetseg_{name}"


def dice_of_structures(root: Path, subject: str) -> np.ndarray:
    """As hetseg-evaluate has it, without its distances, which take longer than the network."""
    paths = root / "refs" / f"sub-{subject}_dseg.nii.gz", output(root, subject, "dseg.nii.gz")
    reference, found = (np.asarray(nib.load(p).dataobj, dtype=int) for p in paths)
    labelled = (reference > 0) | (found > 0)
    reference, found = (ASEG.collapse(labels[labelled]) for labels in (reference, found))
    return np.array([dice(found == s.label, reference == s.label) for s in STRUCTURES])


def test_accuracy_on_scans_never_trained_on(by_default, one_view):
    scores = by_default / "scores.tsv"
    done = run_cli("hetseg-evaluate", by_default / "refs", by_default / "out", "--out", scores)
    assert done.code == 0, done.err
    found = pd.read_csv(scores, sep="\t")["dice"]
    np.testing.assert_allclose(found, dice_of_structures(by_default, BY_DEFAULT), atol=1e-4)
    assert found.mean() >= 0.86
    assert dice_of_structures(one_view, "swmribbon").mean() >= 0.865


def test_every_structure_is_found_on_its_side_with_a_plausible_volume(scan):
    image = nib.load(output(*scan, "dseg.nii.gz"))
    data = np.asarray(image.dataobj)
    voxel = float(np.prod(image.header.get_zooms()[:3]))
    places = np.argwhere(data)
    assert 900 < len(places) * voxel / 1000 < 1800  # ml
    x = nib.affines.apply_affine(image.affine, places)[:, 0]
    labels = data[data > 0]
    for structure in STRUCTURES:
        here = x[labels == structure.label]
        assert len(here) * voxel > 100, structure.name
        if structure.hemisphere:
            left = here.mean() < x.mean()
            assert left == (structure.hemisphere == "L"), structure.name


def test_a_scan_at_another_resolution_is_labelled_on_its_own_grid(one_view, shared_data):
    source = nib.load(shared_data / "unlabelled" / "sub-example_T1w.nii.gz")
    image = nib.load(output(one_view, "example", "dseg.nii.gz"))
    assert image.shape == source.shape
    np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)


@pytest.mark.parametrize("subject", [*LABELLED, *LOOSE])
def test_a_whole_head_and_a_loose_strip_go_through_deepbet(by_default, one_view, subject):
    root = by_default if subject == BY_DEFAULT else one_view
    record = json.loads(output(root, subject, "dseg.json").read_text())
    assert record["HetsegBrainExtraction"] == "deepbet"


def test_left_and_right_do_not_depend_on_how_a_real_scan_is_stored(by_default, one_view):
    first, second = (dice_of_structures(one_view, code) for code in ORDERS)
    np.testing.assert_allclose(second, first, atol=1e-3)
    labelled = [dice_of_structures(by_default, BY_DEFAULT)]
    labelled.append(dice_of_structures(one_view, "swmribbon"))
    for scores in (first, *labelled):
        assert scores.min() > 0.4  # a swap of sides would give 0
        assert scores.mean() > 0.8


def test_white_matter_and_cortex_lie_apart_on_the_page(scan):
    root, subject = scan
    text = (root / "out" / f"sub-{subject}.html").read_text()
    white, cortex = (brightness(text, f"cerebral_{t}") for t in ("white_matter", "cortex"))
    assert white - cortex >= 0.3


def test_parts_of_the_aseg_are_found(by_default):
    done = run_cli(
        *("hetseg", by_default / "bids", by_default / "whole", "participant"),
        *("--structures", "aseg"),
    )
    assert done.code == 0, done.err
    name = f"sub-{BY_DEFAULT}"
    paths = (
        by_default / "refs" / f"{name}_dseg.nii.gz",
        by_default / "whole" / name / "anat" / f"{name}_seg-hetseg_dseg.nii.gz",
    )
    reference, found = (np.asarray(nib.load(p).dataobj, dtype=int) for p in paths)
    scores = {s.name: dice(found == s.label, reference == s.label) for s in WHOLE_ASEG.structures}
    for side in ("left", "right"):
        assert scores[f"{side}_cerebellum_white_matter"] > 0.7
        assert scores[f"{side}_inferior_lateral_ventricle"] > 0.5
        assert scores[f"{side}_choroid_plexus"] > 0.25
    assert scores["optic_chiasm"] > 0.4
    assert np.mean([value for key, value in scores.items() if key.startswith("cc_")]) > 0.6
