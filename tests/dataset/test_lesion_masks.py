"""Which file is taken for the lesion mask of a scan."""

from __future__ import annotations

from pathlib import Path

import pytest

from hetseg_bids.dataset.discovery import scan_of_dataset
from hetseg_bids.dataset.lesion_masks import FoundLesionMask, find_lesion_mask
from hetseg_bids.dataset.names import entities_of
from hetseg_bids.errors import MaskError

ANAT = "sub-01/ses-1/anat/"


def found_for(bids: Path, stem: str, *files: str) -> FoundLesionMask:
    for name in files:
        (bids / name).parent.mkdir(parents=True, exist_ok=True)
        (bids / name).touch()
    session = entities_of(stem).get("ses")
    folder = bids / "sub-01" / (f"ses-{session}" if session else "") / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    return find_lesion_mask(scan_of_dataset(folder / f"{stem}_T1w.nii.gz", stem), bids)


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_acq-a_label-lesion_mask.nii.gz",
        "sub-01_ses-1_acq-a_label-lesion_mask.nii",
        "sub-01_ses-1_acq-a_label-lesion_roi.nii.gz",
        "sub-01_ses-1_acq-a_T1w_label-lesion_roi.nii.gz",
        "sub-01_ses-1_acq-a_mod-T1w_label-lesion_roi.nii.gz",
        "sub-01_ses-1_acq-a_space-orig_label-lesion_desc-T1lesion_mask.nii.gz",
    ],
)
@pytest.mark.parametrize("root", ["", "derivatives/manual/"])
def test_names_that_tools_give_a_lesion_mask_are_found(tmp_path, root, name):
    found = found_for(tmp_path, "sub-01_ses-1_acq-a", root + ANAT + name)
    assert found == FoundLesionMask(tmp_path / root / ANAT / name)


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_ses-1_acq-b_label-lesion_mask.nii.gz",
        "sub-01_ses-1_label-lesion_mask.nii.gz",
        "sub-01_ses-1_acq-a_space-MNI152NLin2009cAsym_label-lesion_mask.nii.gz",
        "sub-01_ses-1_acq-a_FLAIR_label-lesion_roi.nii.gz",
        "sub-01_ses-1_acq-a_mod-FLAIR_label-lesion_roi.nii.gz",
        "sub-01_ses-1_acq-a_label-L_desc-T1lesion_mask.nii.gz",
    ],
)
def test_a_mask_of_something_else_is_not_taken_but_named(tmp_path, name):
    found = found_for(tmp_path, "sub-01_ses-1_acq-a", ANAT + name)
    assert found.path is None
    assert name in found.doubt
    assert "sub-01_ses-1_acq-a_label-lesion_mask.nii.gz" in found.doubt


@pytest.mark.parametrize("name", ["mod-UNIT1_label-lesion_mask", "UNIT1_label-lesion_roi"])
def test_a_uniform_image_takes_its_own_mask_and_not_the_t1ws(tmp_path, name):
    stem = "sub-01_ses-1_mod-UNIT1"
    of_t1w = ("label-lesion_mask", "T1w_label-lesion_roi", "mod-T1w_label-lesion_mask")
    for other in of_t1w:
        found = found_for(tmp_path, stem, f"{ANAT}sub-01_ses-1_{other}.nii.gz")
        assert found.path is None
        assert "mod-UNIT1_label-lesion_mask" in found.doubt
    own = f"{ANAT}sub-01_ses-1_{name}.nii.gz"
    assert found_for(tmp_path, stem, own) == FoundLesionMask(tmp_path / own)


def test_most_people_have_no_lesion_and_other_sessions_no_say(tmp_path):
    others = ("sub-01/ses-2/anat/sub-01_ses-2_label-lesion_mask.nii.gz",)
    others += (f"{ANAT}sub-01_ses-1_desc-brain_mask.nii.gz",)
    others += (f"{ANAT}sub-01_ses-1_label-lesion_mask.json",)
    assert found_for(tmp_path, "sub-01_ses-1", *others) == FoundLesionMask()


def test_two_masks_of_one_scan_are_refused_in_one_line(tmp_path):
    name = "sub-01_label-lesion_mask.nii.gz"
    two = (f"sub-01/anat/{name}", f"derivatives/rater2/sub-01/anat/{name}")
    with pytest.raises(MaskError, match="2 lesion masks") as caught:
        found_for(tmp_path, "sub-01", *two)
    assert all(str(tmp_path / path) in str(caught.value) for path in two)
