"""Scans with labels as a source of samples."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.errors import DatasetError, ImageError
from hetseg_bids.training.paired import PairedSource, find_pairs
from hetseg_bids.training.validation import read_validation_scans
from support.datasets import write_pair


def test_real_pairs_are_a_source(tmp_path):
    source = PairedSource(write_pair(tmp_path))
    drawn = source.draw(np.random.default_rng(0))
    assert drawn.image.shape == drawn.labels.shape
    white = drawn.image[drawn.labels == 2].median()
    assert white > drawn.image[drawn.labels == 3].median()
    assert (torch.nonzero(drawn.labels == 2)[:, 0].float().mean()) < drawn.labels.shape[0] / 2


def test_what_is_written_on_the_frame_lies_over_the_scan(tmp_path):
    folder = write_pair(tmp_path)
    volume = PairedSource(folder).volumes()[0]
    original = nib.load(folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz")
    index = np.argwhere(volume.labels.numpy() == 51)
    places = nib.affines.apply_affine(np.linalg.inv(original.affine) @ volume.affine, index)
    found = np.asarray(original.dataobj)[tuple(np.rint(places).astype(int).T)]
    assert (found == 51).all()


def test_labels_on_another_grid_are_refused(tmp_path):
    folder = write_pair(tmp_path)
    path = folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 4
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), path)
    with pytest.raises(ImageError, match="grid"):
        PairedSource(folder).draw(np.random.default_rng(0))


def names_of(folder: Path) -> list[tuple[str, str]]:
    return [(pair.t1w.name, pair.dseg.name) for pair in find_pairs(folder)]


def test_labels_of_another_run_or_acquisition_are_not_taken(tmp_path):
    for name in ("T1w", "run-2_T1w", "acq-mp2_T1w", "run-2_dseg", "rec-x_dseg", "2_dseg"):
        (tmp_path / f"sub-01_{name}.nii.gz").touch()
    assert names_of(tmp_path) == [("sub-01_run-2_T1w.nii.gz", "sub-01_run-2_dseg.nii.gz")]
    # each run may have its own, in any of the usual forms of names
    for name in ("sub-01_dseg.nii", "sub-01_acq-mp2_seg-hetseg_desc-manual_dseg.nii.gz"):
        (tmp_path / name).touch()
    assert dict(names_of(tmp_path)) == {
        "sub-01_T1w.nii.gz": "sub-01_dseg.nii",
        "sub-01_acq-mp2_T1w.nii.gz": "sub-01_acq-mp2_seg-hetseg_desc-manual_dseg.nii.gz",
        "sub-01_run-2_T1w.nii.gz": "sub-01_run-2_dseg.nii.gz",
    }
    (tmp_path / "sub-01_desc-aseg_dseg.nii.gz").touch()
    with pytest.raises(DatasetError, match="more than one dseg"):
        find_pairs(tmp_path)


def relabelled(folder: Path, source: int, target: int) -> Path:
    path = folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    image = nib.load(path)
    labels = np.asarray(image.dataobj).astype(np.int16)
    nib.save(nib.Nifti1Image(np.where(labels == source, target, labels), image.affine), path)
    return path


def test_parcels_of_the_cortex_are_not_taught_as_background(tmp_path):
    folder = write_pair(tmp_path)
    path = relabelled(folder, 3, 1028)
    with pytest.raises(ImageError, match="label 1028 is a parcel") as caught:
        PairedSource(folder).volumes()
    assert caught.value.path == path
    relabelled(folder, 1028, 258)  # beyond the brain
    assert not (PairedSource(folder).volumes()[0].labels == 3).any()


def test_scans_without_labels_cannot_be_validated_on(tmp_path):
    folder = write_pair(tmp_path)
    path = folder / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    with pytest.raises(DatasetError, match="no label in it"):
        read_validation_scans(folder, (40, 36), 5)
