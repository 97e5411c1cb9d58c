"""Scans with labels as a source of samples."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.errors import ImageError
from hetseg_bids.training.paired import PairedSource
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
