"""Which images are found without a dataset, and what their results are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hetseg_bids.dataset.files import find_images, mask_beside
from hetseg_bids.errors import DatasetError, MaskError


def made(root: Path, *names: str) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def names_of(root: Path, *names: str) -> list[str]:
    return [scan.stem for scan in find_images(made(root, *names), root / "OUT").scans]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x/one.nii.gz", "x/two.mgz", "y/three.old.NII"], ["one", "two", "three.old"]),
        (["a/T1.nii.gz", "b/T1.nii.gz"], ["a_T1", "b_T1"]),
        (["a/T1.nii.gz", "b/t1.mgh", "other.nii"], ["a_T1", "b_t1", "other"]),
        (["a/s/x/T1.nii", "a/t/x/T1.nii", "b/s/x/T1.nii"], ["a_s_T1", "a_t_T1", "b_s_T1"]),
        (["a/T1.nii", "a/b/T1.nii"], ["T1", "b_T1"]),
        # FreeSurfer: the subject is in the name even of a single image, as in a job for each
        (["s/bert/mri/orig.mgz"], ["bert_orig"]),
        (["s/bert/mri/T1.mgz", "s/ann/mri/T1.mgz"], ["bert_T1", "ann_T1"]),
        (["1/bert/mri/T1.mgz", "2/bert/mri/T1.mgz"], ["1_bert_T1", "2_bert_T1"]),
        (["s/bert/mri/orig/001.mgz"], ["bert_001"]),
        # what OUT has itself
        (["x/logs.nii", "x/group.nii"], ["x_logs", "x_group"]),
        (["sub-01/anat/sub-01_T1w.nii.gz"], ["sub-01_T1w"]),
    ],
)
def test_results_are_named_like_files_and_stay_apart(tmp_path, names, expected):
    assert names_of(tmp_path, *names) == expected


def test_the_same_file_twice_is_one(tmp_path):
    assert names_of(tmp_path, "T1.nii", "T1.nii", "x/../T1.nii") == ["T1"]


def test_files_whose_results_cannot_be_told_apart_are_refused(tmp_path):
    paths = made(tmp_path, "T1.nii.gz", "T1.mgz", "good.nii", "a_b/c.nii", "a/b_c.nii", "x/c.nii")
    paths.append(tmp_path / "absent.nii")
    paths += made(tmp_path, f"{'n' * 200}.nii")
    found = find_images(paths, tmp_path / "OUT")
    assert [scan.stem for scan in found.scans] == ["good", "a_b_c", "b_c", "x_c"]
    why = {scan.path.name: text for scan, text in found.refused}
    assert "T1.mgz would both be called T1" in why["T1.nii.gz"]
    assert "T1.nii.gz would both be called T1" in why["T1.mgz"]
    assert why["absent.nii"] == "no such file"
    assert "longer than" in why[f"{'n' * 200}.nii"]


def test_names_made_of_folders_are_checked_again(tmp_path):
    paths = made(tmp_path, "a/T1.nii", "b/T1.nii", "a_T1.nii")
    found = find_images(paths, tmp_path / "OUT")
    assert [scan.stem for scan in found.scans] == ["b_T1"]
    assert len(found.refused) == 2


def test_folders_are_searched_but_not_for_what_is_no_t1w(tmp_path, caplog):
    wanted = ["a/one.nii.gz", "b/c/two.mgz", "three_T1w.nii", "brain_extracted.nii", "T1_roi.nii"]
    made(tmp_path, *wanted)
    left_out = [
        *("three_dseg.nii.gz", "x_mask.nii", "mask.mgz", "aparc+aseg.mgz", "y_desc-brain_mask.nii"),
        *(
            "y_T2w.nii",
            "y_FLAIR.nii",
            "flair.nii.gz",
            "y_bold.nii.gz",
            "x-seg.nii",
            "p_probseg.nii",
        ),
    ]
    made(tmp_path, *left_out, "notes.txt", ".hidden.nii", ".git/x.nii")
    made(tmp_path, "OUT/old/old_brain.nii.gz")
    scans = find_images([tmp_path], tmp_path / "OUT").scans
    assert [str(scan.path.relative_to(tmp_path)) for scan in scans] == sorted(wanted)
    assert all(name in caplog.text for name in left_out)
    assert "notes.txt" not in caplog.text


def test_of_a_freesurfer_subject_one_image_is_taken(tmp_path):
    other = ["mri/T1.mgz", "mri/aseg.mgz", "mri/orig/001.mgz", "surf/lh.thickness.fsaverage.mgh"]
    made(tmp_path, *(f"bert/{name}" for name in ("mri/orig.mgz", *other)))
    made(tmp_path, *(f"old/{name}" for name in other), "fsaverage/mri/orig.mgz", "x.nii")
    scans = find_images([tmp_path], tmp_path / "OUT").scans
    assert [scan.stem for scan in scans] == ["bert_orig", "old_T1", "x"]
    for folder in ("bert", "bert/mri"):
        assert [s.stem for s in find_images([tmp_path / folder], tmp_path).scans] == ["bert_orig"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    made(tmp_path, "real/one.nii")
    root = tmp_path / "links"
    root.mkdir()
    (root / "one").symlink_to(tmp_path / "real")
    (root / "again").symlink_to(root)
    (root / "two.nii").symlink_to(tmp_path / "real" / "one.nii")
    scans = find_images([root], tmp_path / "OUT").scans
    assert sorted(scan.stem for scan in scans) == ["one", "two"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["x_mask.nii"], "x_mask.nii': named as a mask"),
        (["x.txt"], "x.txt': not named as an image"),
        (["x_T2w.nii", "y_T2w.nii"], "another image than a T1w (and 1 more)"),
        ([".nii"], "no name before its ending"),
        (["a\nb.nii"], r"a\nb.nii': a character in its path"),
        ([os.fsdecode(b"\xff.nii")], r"\udcff.nii': a character in its path"),
        (["x.nii", "x.mgz"], "x.mgz would both be called x"),
    ],
)
def test_where_nothing_can_be_segmented_one_line_says_why(tmp_path, names, said):
    with pytest.raises(DatasetError) as caught:
        find_images(made(tmp_path, *names), tmp_path / "OUT")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # can be printed


def test_a_folder_without_images_is_an_error(tmp_path):
    made(tmp_path, "empty/notes.txt", "x.nii")
    with pytest.raises(DatasetError, match=r"empty: no image \(.nii.gz"):
        find_images([tmp_path / "empty", tmp_path / "x.nii"], tmp_path / "OUT")


def test_masks_of_several_programs_are_found(tmp_path):
    for image, mask in (
        ("a/T1.nii.gz", "a/T1_desc-brain_mask.nii.gz"),
        ("b/T1.nii.gz", "b/T1_brain_mask.nii.gz"),
        ("c/T1.mgz", "c/T1_mask.mgz"),
        ("d/sub-1_T1w.nii", "d/sub-1_desc-brain_mask.nii.gz"),
        ("bert/mri/orig.mgz", "bert/mri/mask.mgz"),
    ):
        t1w, expected = made(tmp_path, image, mask)
        assert mask_beside(t1w) == expected
    (alone,) = made(tmp_path, "e/T1.nii.gz")
    with pytest.raises(MaskError, match=r"needs T1_desc-brain_mask.nii.gz or T1_mask.nii.gz"):
        mask_beside(alone)
