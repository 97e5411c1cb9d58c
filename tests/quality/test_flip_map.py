"""The mean flip map of a cohort, on a template."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hetseg_bids.quality.flip_map import cohort_map, load_template
from hetseg_bids.structures.alignment import CENTROIDS
from hetseg_bids.structures.aseg import N_STRUCTURES, STRUCTURES


@pytest.mark.parametrize("kind", ["none", "below a file", "empty", "text", "image"])
def test_the_template_is_that_of_templateflow_where_it_can_be_read(
    kind, tmp_path, monkeypatch, caplog
):
    path = tmp_path / "tpl" / "template.nii.gz"
    if kind == "below a file":
        path.parent.touch()
    elif kind != "none":
        path.parent.mkdir()
        path.write_text("nonsense" if kind == "text" else "")
    if kind == "image":
        nib.save(nib.Nifti1Image(np.ones((5, 6, 7), np.float32), np.diag([2, 2, 2, 1])), path)
    monkeypatch.setattr("hetseg_bids.quality.flip_map._cached_templateflow", lambda: path)
    template = load_template()
    assert template.name == ("MNI152NLin2009cAsym" if kind == "image" else "MNI152NLin2009aSym")
    assert ("can't be used" in caplog.text) == (kind == "text")


def test_the_map_puts_a_moved_head_where_the_template_is(tmp_path):
    table = pd.read_csv(CENTROIDS, sep="\t").set_index("name")
    move = np.array([[0.9, 0.1, 0, 5], [-0.1, 0.95, 0.05, -4], [0, 0, 0.9, 8], [0, 0, 0, 1]])
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -100
    labels = np.zeros((101, 101, 101), np.uint8)
    for structure in STRUCTURES:  # a cube of 6 mm at each centroid, in the moved head
        place = np.linalg.inv(affine) @ move @ [*table.loc[structure.name], 1]
        i, j, k = np.rint(place[:3]).astype(int)
        labels[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = structure.label
    flip = np.zeros((*labels.shape, N_STRUCTURES), np.float32)
    flip[labels == 10] = 0.4
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "dseg.nii.gz")
    nib.save(nib.Nifti1Image(flip, affine), tmp_path / "flip.nii.gz")
    template = load_template()
    (tmp_path / "bad.nii.gz").write_text("not an image")
    scans = [(tmp_path / "dseg.nii.gz", tmp_path / "flip.nii.gz")] * 3
    scans.append((tmp_path / "dseg.nii.gz", tmp_path / "bad.nii.gz"))
    made = cohort_map(scans, template, STRUCTURES)
    assert made.count == 3
    assert float(made.sd.max()) < 1e-5
    weight = made.mean / made.mean.sum()
    middle = [float((weight * g).sum()) for g in np.indices(weight.shape)]
    found = template.grid.affine @ [*middle, 1]
    np.testing.assert_allclose(found[:3], table.loc["left_thalamus"], atol=3)
