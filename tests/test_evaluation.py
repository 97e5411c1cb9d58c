import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import centred_affine, phantom_labels, run_cli

from hetseg_bids.evaluation.metrics import compare, dice, hausdorff95


def cube(shift: int) -> np.ndarray:
    mask = np.zeros((30, 20, 20), bool)
    mask[5 + shift : 15 + shift, 5:15, 5:15] = True
    return mask


def test_dice_of_shifted_cubes():
    assert dice(cube(0), cube(0)) == 1
    assert dice(cube(0), cube(2)) == pytest.approx(0.8)
    assert dice(cube(0), cube(12)) == 0
    assert np.isnan(dice(np.zeros((2, 2), bool), np.zeros((2, 2), bool)))


def test_hausdorff_is_in_mm():
    assert hausdorff95(cube(0), cube(0), np.ones(3)) == 0
    assert hausdorff95(cube(0), cube(3), np.array([2.0, 1, 1])) == pytest.approx(6)
    assert np.isnan(hausdorff95(cube(0), np.zeros_like(cube(0)), np.ones(3)))


def test_volume_error_is_signed():
    agreement = compare(cube(0)[:, :, ::1] & (np.arange(20) < 10), cube(0), np.full(3, 2.0))
    assert agreement.reference_mm3 == 8000
    assert agreement.volume_error == pytest.approx(-0.5)


def test_command_scores_a_folder(tmp_path):
    labels = phantom_labels()
    labels[labels == 211] = 0
    affine = centred_affine(labels.shape)
    references, results = tmp_path / "refs", tmp_path / "out" / "sub-01" / "anat"
    references.mkdir()
    results.mkdir(parents=True)
    nib.save(nib.Nifti1Image(labels, affine), references / "sub-01_dseg.nii.gz")
    moved = labels.copy()
    moved[moved == 51] = 41
    nib.save(nib.Nifti1Image(moved, affine), results / "sub-01_seg-hetseg_dseg.nii.gz")
    done = run_cli(
        "hetseg-evaluate", references, tmp_path / "out", "--out", tmp_path / "scores.tsv"
    )
    assert done.code == 0, done.err
    scores = pd.read_csv(tmp_path / "scores.tsv", sep="\t").set_index("name")["dice"]
    assert scores["left_putamen"] == 1
    assert scores["right_putamen"] == 0
    assert "left_accumbens" not in scores  # the reference has none
    assert "right_putamen 0.000" in done.out


def test_command_names_what_is_missing(tmp_path):
    (tmp_path / "refs").mkdir()
    done = run_cli("hetseg-evaluate", tmp_path / "refs", tmp_path)
    assert done.code == 2
    assert "no *_dseg" in done.err
