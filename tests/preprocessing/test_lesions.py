"""A lesion mask in space: where it lies, what is refused, what takes the lesion's place."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.errors import MaskError
from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.lesions import Lesion, fill_lesion, place_lesion, read_lesion
from hetseg_bids.preprocessing.pipeline import PreparedImage, prepare_image
from support.phantoms import centred_affine

LEFT = (slice(10, 24), slice(45, 60), slice(40, 55))  # of the phantom, in white matter


def lesion_of(image: nib.Nifti1Image, value: float, path: Path) -> tuple[Path, Path]:
    """The image with a painted lesion, and its mask."""
    data, mask = np.asarray(image.dataobj, np.float32).copy(), np.zeros(image.shape, np.uint8)
    data[LEFT], mask[LEFT] = value, 1
    t1w, lesion = path / "sub-01_T1w.nii.gz", path / "sub-01_label-lesion_mask.nii.gz"
    nib.save(nib.Nifti1Image(data, image.affine), t1w)
    nib.save(nib.Nifti1Image(mask, image.affine), lesion)
    return t1w, lesion


def prepared(t1w: Path, lesion: Path) -> PreparedImage:
    return prepare_image(t1w, "skip", lesion_path=lesion)


def test_what_is_in_a_lesion_changes_nothing_at_all(tmp_path, phantom):
    """Neither the scores around it nor what the network sees in it, also with a cavity of zeros."""
    images = []
    for name, value in (("dark", 20.0), ("bright", 3000.0), ("cavity", 0.0)):
        (tmp_path / name).mkdir()
        result = prepared(*lesion_of(phantom, value, tmp_path / name))
        assert not result.warnings or name == "cavity"
        assert result.mask[LEFT].all()
        images.append(result.image)
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0][LEFT], images[2][LEFT])
    plain = prepare_image(tmp_path / "bright" / "sub-01_T1w.nii.gz", "skip").image
    assert (plain - images[1]).abs().max() > 0.5


def test_scores_outside_a_lesion_are_those_of_the_rest_of_the_brain(tmp_path, phantom):
    result = prepared(*lesion_of(phantom, 3000.0, tmp_path))
    rest = result.mask.clone()
    rest[LEFT] = False
    scores = result.image[rest].double()
    assert float(scores.mean()) == pytest.approx(0, abs=0.01)
    assert float(scores.std()) == pytest.approx(1, abs=0.01)


def test_a_mask_on_another_grid_lies_where_its_affine_says(tmp_path, phantom):
    t1w, path = lesion_of(phantom, 3000.0, tmp_path)
    same = prepared(t1w, path).image
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    fine = data.repeat(2, 0).repeat(2, 1).repeat(2, 2)[::-1]  # 0.5 mm, mirrored in memory
    affine = image.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] -= 0.25  # the phantom's voxels are 1 mm
    affine = affine @ np.array(
        [[-1, 0, 0, fine.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    nib.save(nib.Nifti1Image(fine[..., None].astype(np.float32), affine), path)
    assert torch.equal(prepared(t1w, path).image, same)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda mask, affine: (mask, nib.affines.from_matvec(affine[:3, :3])), "at the brain"),
        (lambda mask, affine: (1 - mask, affine), "covers most of the brain"),
        (lambda mask, affine: (np.stack([mask, mask], axis=-1), affine), "3-D lesion mask"),
    ],
)
def test_a_mask_that_cannot_be_right_is_refused_with_both_names(tmp_path, phantom, change, words):
    t1w, path = lesion_of(phantom, 3000.0, tmp_path)
    image = nib.load(path)
    mask, affine = change(np.asarray(image.dataobj), image.affine.copy())
    nib.save(nib.Nifti1Image(mask, affine), path)
    with pytest.raises(MaskError, match=words) as caught:
        prepared(t1w, path)
    assert (caught.value.path, caught.value.scan) == (path, t1w)


def test_a_mask_of_the_whole_brain_is_refused(tmp_path, phantom):
    t1w, path = lesion_of(phantom, 3000.0, tmp_path)
    brain = (np.asarray(phantom.dataobj) > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(brain, phantom.affine), path)
    with pytest.raises(MaskError, match="covers most of the brain"):
        prepared(t1w, path)


def test_an_empty_mask_is_a_warning_and_no_lesion(tmp_path, phantom):
    t1w, path = lesion_of(phantom, 3000.0, tmp_path)
    nib.save(nib.Nifti1Image(np.zeros(phantom.shape, np.uint8), phantom.affine), path)
    result = prepared(t1w, path)
    assert result.lesion is None
    assert result.warnings == ("the lesion mask sub-01_label-lesion_mask.nii.gz is empty",)
    assert torch.equal(result.image, prepare_image(t1w, "skip").image)


def test_a_lesion_half_outside_the_brain_gets_a_warning(tmp_path):
    brain = np.zeros((40, 40, 40), bool)
    brain[5:35, 5:35, 5:20] = brain[5:6, 5:6, 5:35] = True  # a corner reaches up
    grid = Grid(brain.shape, centred_affine(brain.shape))
    mask = np.zeros(brain.shape, np.uint8)
    mask[10:20, 10:20, 15:25] = 1
    inside, warnings = place_lesion(Lesion(mask, grid), brain, grid, tmp_path)
    assert inside.sum() == 1000
    assert warnings == ["50% of the lesion mask lie outside the brain mask; look at both contours"]


def test_a_lesion_is_filled_by_what_is_next_to_it():
    image = torch.zeros(40, 20, 20)
    image[:20] = 1
    lesion = np.zeros(image.shape, bool)
    lesion[10:30, 5:15, 5:15] = True
    spoilt = image.clone()
    spoilt[torch.from_numpy(lesion)] = 9
    filled = fill_lesion(spoilt, lesion, np.ones(image.shape, bool))
    assert torch.equal(filled[~torch.from_numpy(lesion)], image[~torch.from_numpy(lesion)])
    assert (filled - image)[12:18].abs().mean() < 0.1
    assert (filled - image)[22:28].abs().mean() < 0.1


def test_the_mask_is_half_or_more(tmp_path):
    path = tmp_path / "m.nii"
    values = np.float32([0, 0.4, 0.6, 1, 255, np.nan]).reshape(6, 1, 1)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    assert read_lesion(path).mask.ravel().tolist() == [0, 0, 1, 1, 1, 0]
