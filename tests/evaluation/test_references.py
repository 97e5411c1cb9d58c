"""Which images hetseg-evaluate compares, and what their labels stand for."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hetseg_bids.errors import DatasetError
from hetseg_bids.evaluation.compare import find_matches
from support.commands import run_here

RESULT = "seg-hetseg_dseg"
# as a model may have them: values in results and ids in training labels are exchanged
OWN = "index\tname\tmembers\n1\tleft_half\t2\n2\tright_half\t1\n"


def save(labels: np.ndarray, path: Path, table: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels.astype(np.uint8), np.eye(4)), path)
    if table:
        path.with_name(path.name.split(".nii")[0] + ".tsv").write_text(table)


def halves(first: int, second: int) -> np.ndarray:
    labels = np.zeros((12, 10, 8))
    labels[1:6, 2:8, 2:6], labels[6:11, 2:8, 2:6] = first, second
    return labels


def test_two_results_or_two_references_of_a_scan_are_refused(tmp_path):
    results, references = tmp_path / "results", tmp_path / "references"
    save(halves(2, 41), results / "a" / f"sub-01_{RESULT}.nii.gz")
    save(halves(2, 41), references / "rater1" / "sub-01_dseg.nii.gz")
    (match,) = find_matches(references, results)
    # the same result on another grid, and a link to it, are no others
    save(halves(2, 41), results / "a" / "sub-01_seg-hetseg_res-1mm_dseg.nii.gz")
    (results / "link").mkdir()
    (results / "link" / f"sub-01_{RESULT}.nii.gz").symlink_to(match.segmentation)
    assert find_matches(references, results) == [match]

    save(halves(2, 0), references / "rater2" / "sub-01_dseg.nii.gz")
    with pytest.raises(DatasetError, match=r"2 segmentations of sub-01.*rater1.*rater2") as caught:
        find_matches(references, results)
    assert caught.value.path == references
    shutil.rmtree(references / "rater2")
    save(halves(2, 0), results / "b" / f"sub-01_{RESULT}.nii.gz")
    with pytest.raises(DatasetError, match="2 segmentations of sub-01"):
        find_matches(references, results)


def test_results_of_ones_own_structures_are_references_as_they_are(tmp_path):
    table = tmp_path / "own.tsv"
    table.write_text(OWN)
    for run in ("a", "b"):
        save(halves(1, 2), tmp_path / run / f"sub-01_{RESULT}.nii.gz", OWN)
    save(halves(2, 1), tmp_path / "labels" / "sub-01_dseg.nii.gz")  # ids as in training labels
    for references in ("b", "labels"):
        out = tmp_path / "scores.tsv"
        command = ("hetseg-evaluate", tmp_path / references, tmp_path / "a", "--labels", table)
        done = run_here(*command, "--out", out, "--report", tmp_path / "report")
        assert done.code == 0, done.err
        assert pd.read_csv(out, sep="\t")["dice"].tolist() == [1, 1]


@pytest.mark.parametrize("labels", ["", "index\tname\n2\tleft_other\n1\tright_other\n"])
def test_labels_are_not_scored_under_names_of_other_structures(tmp_path, labels):
    save(halves(1, 2), tmp_path / "a" / f"sub-01_{RESULT}.nii.gz", OWN)
    save(halves(2, 41), tmp_path / "refs" / "sub-01_dseg.nii.gz")
    more = ()
    if labels:
        (tmp_path / "other.tsv").write_text(labels)
        more = ("--labels", tmp_path / "other.tsv")
    done = run_here("hetseg-evaluate", tmp_path / "refs", tmp_path / "a", *more)
    assert done.code == 2
    assert "in it, not" in done.err
    assert "--labels" in done.err


def test_references_may_have_a_table_of_another_program(tmp_path):
    names = "index\tname\n2\tLeft-Cerebral-White-Matter\n41\tRight-Cerebral-White-Matter\n"
    save(halves(2, 41), tmp_path / "refs" / "sub-01_dseg.nii.gz", names)
    save(halves(2, 41), tmp_path / "a" / f"sub-01_{RESULT}.nii.gz")
    done = run_here("hetseg-evaluate", tmp_path / "refs", tmp_path / "a")
    assert done.code == 0, done.err
    assert "1.0000" in done.out


def test_references_without_any_structure_are_named_in_a_line(tmp_path):
    save(halves(0, 0), tmp_path / "refs" / "sub-01_dseg.nii.gz")
    save(halves(2, 41), tmp_path / "a" / f"sub-01_{RESULT}.nii.gz")
    command = ("hetseg-evaluate", tmp_path / "refs", tmp_path / "a", "--report", tmp_path / "r")
    done = run_here(*command)
    assert done.code == 2
    assert "no reference has a structure to score" in done.err
    # beside others, such a scan is left out
    save(halves(2, 41), tmp_path / "refs" / "sub-02_dseg.nii.gz")
    save(halves(2, 41), tmp_path / "a" / f"sub-02_{RESULT}.nii.gz")
    done = run_here(*command)
    assert done.code == 0, done.err
    assert pd.read_csv(tmp_path / "r" / "scores.tsv", sep="\t")["participant"].unique() == "sub-02"
    assert "sub-01_dseg.nii.gz: none of the structures in it" in done.err


def test_a_participant_counts_once_in_tests_however_many_sessions_there_are(tmp_path):
    truth = halves(2, 41)
    for number in range(6):
        stem = f"sub-{number // 2}_ses-{number % 2}"
        save(truth, tmp_path / "refs" / f"{stem}_dseg.nii.gz")
        for system, lost in (("good", 1), ("bad", 2 + number)):
            spoilt = truth.copy()
            spoilt.reshape(-1)[np.flatnonzero(truth)[:lost]] = 0
            save(spoilt, tmp_path / system / f"{stem}_{RESULT}.nii.gz")
    systems = [tmp_path / system for system in ("good", "bad")]
    report = tmp_path / "report"
    done = run_here("hetseg-evaluate", tmp_path / "refs", *systems, "--report", report)
    assert done.code == 0, done.err
    tests = pd.read_csv(report / "wilcoxon.tsv", sep="\t").set_index("measure")
    assert tests.loc["mean_dice", "n"] == 3
    assert tests.loc["mean_dice", "p"] == pytest.approx(0.25)
    scores = pd.read_csv(report / "scores.tsv", sep="\t")
    assert set(scores["participant"]) == {"sub-0", "sub-1", "sub-2"}
    assert scores["scan"].nunique() == 6
    # one system has no tests, and those of another call don't stay
    done = run_here("hetseg-evaluate", tmp_path / "refs", systems[0], "--report", report)
    assert done.code == 0, done.err
    assert not (report / "wilcoxon.tsv").exists()
