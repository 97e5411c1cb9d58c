"""A head that lies far from upright is segmented as well as the upright one."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.conform import nearest, resample_inside
from hetseg_bids.segmentation.coarse import CoarseLook
from hetseg_bids.segmentation.upright import UPRIGHT_DEG, rotation_to_template
from hetseg_bids.structures.alignment import CENTROIDS
from hetseg_bids.structures.aseg import ASEG
from support.commands import run_cli


def nodding(grid: Grid, degrees: float) -> Grid:
    """The grid of a head that nods, about the middle of the image."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    there = np.eye(4)
    there[:3, 3] = (grid.affine @ [*((np.array(grid.shape) - 1) / 2), 1])[:3]
    return Grid(grid.shape, there @ turn @ np.linalg.inv(there) @ grid.affine)


def seen(move: np.ndarray) -> CoarseLook:
    """Structures of one voxel each, at the template's places after a linear map."""
    table = pd.read_table(CENTROIDS, index_col="name")
    grid = Grid(
        (120, 120, 120),
        np.array([[2.0, 0, 0, -120], [0, 2, 0, -120], [0, 0, 2, -120], [0, 0, 0, 1]]),
    )
    winner = np.zeros(grid.shape, np.uint8)
    for name, place in table.iterrows():
        voxel = np.linalg.inv(grid.affine) @ [*(move @ place.to_numpy()), 1]
        winner[tuple(np.rint(voxel[:3]).astype(int))] = ASEG.names.index(name) + 1
    return CoarseLook(winner, grid, ASEG)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_the_angle_of_a_head_is_found_about_any_axis(axis):
    move = Rotation.from_euler(axis, 40, degrees=True).as_matrix()
    rotation, degrees = rotation_to_template(seen(move))
    assert degrees == pytest.approx(40, abs=2)
    np.testing.assert_allclose(rotation @ move, np.eye(3), atol=0.05)


def test_places_that_only_a_reflection_explains_turn_nothing():
    # a head that looks backwards, its structures named by the side of the image
    rotation, degrees = rotation_to_template(seen(np.diag([1.0, -1, 1])))
    assert degrees == 0
    np.testing.assert_array_equal(rotation, np.eye(3))


@pytest.mark.slow
def test_a_nodding_head_has_the_labels_of_the_upright_one(mni152, tmp_path):
    grid = Grid(mni152.shape, mni152.affine)
    image = np.asarray(mni152.dataobj, np.float32)
    turned = nodding(grid, 2 * UPRIGHT_DEG)
    seen, _ = resample_inside(image, image > 0, grid, turned, outside=0)
    for name, voxels in (("upright", image), ("nodding", seen.numpy())):
        folder = tmp_path / "bids" / f"sub-{name}" / "anat"
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(voxels, grid.affine), folder / f"sub-{name}_T1w.nii.gz")
    description = {"Name": "turned", "BIDSVersion": "1.10.0"}
    (tmp_path / "bids" / "dataset_description.json").write_text(json.dumps(description))
    out = tmp_path / "out"
    done = run_cli("hetseg", tmp_path / "bids", out, "participant", "--views", "axial")
    assert done.code == 0, done.err
    results = {}
    for name in ("upright", "nodding"):
        stem = out / f"sub-{name}" / "anat" / f"sub-{name}_seg-hetseg_dseg"
        labels = np.asarray(nib.load(f"{stem}.nii.gz").dataobj).astype(np.uint8)
        record = json.loads(stem.with_suffix(".json").read_text())
        results[name] = (labels, record["HetsegTurnedDegrees"])
    assert results["upright"][1] == 0
    assert results["nodding"][1] == pytest.approx(2 * UPRIGHT_DEG, abs=5)
    expected = nearest(results["upright"][0], grid, turned)
    found = results["nodding"][0]
    scores = []
    for label in np.unique(expected[expected > 0]):
        there, here = expected == label, found == label
        scores.append(2 * (there & here).sum() / (there.sum() + here.sum()))
    assert np.mean(scores) > 0.85
