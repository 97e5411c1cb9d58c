"""Label maps as they are read."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from hetseg_bids.training.synthesis.label_maps import derive_corpus_callosum, read_label_map
from support.phantoms import phantom_labels


def test_corpus_callosum_is_near_the_midline():
    labels = phantom_labels()
    labels[70:80, 60:120, 95:101] = np.where(np.arange(70, 80) < 75, 2, 41)[:, None, None]
    callosum = derive_corpus_callosum(labels)
    x = np.argwhere(callosum)[:, 0]
    assert len(x) > 500
    assert abs(x.mean() - 74.5) < 1
    assert np.ptp(x) <= 6


def test_corpus_callosum_has_a_rostrum_but_no_fornix():
    labels = phantom_labels()
    labels[np.isin(labels, (2, 41))] = 4  # nothing else is white matter
    halves = np.where(np.arange(70, 80) < 75, 2, 41)[:, None, None]
    labels[70:80, 50:130, 100:106] = halves  # body
    labels[70:80, 50:62, 92:106] = halves  # splenium
    labels[70:80, 122:130, 82:106] = halves  # genu
    labels[70:80, 108:122, 82:86] = halves  # rostrum, before the thalamus (front at y = 97)
    labels[70:80, 75:98, 92:95] = halves  # fornix, free
    labels[70:80, 62:80, 95:100] = halves  # fornix, hanging on
    labels[60:90, 77:93, 70:90] = 10
    callosum = derive_corpus_callosum(labels)
    y, z = np.argwhere(callosum)[:, 1:].T
    assert not np.any((y > 64) & (y < 105) & (z < 97))
    assert callosum[73:77, 110:120, 83:85].all()
    assert callosum[73:77, 54:60, 94:104].all()
    assert callosum[73:77, 66:120, 101:105].all()


def test_a_label_map_must_be_1_mm(tmp_path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), np.diag([2, 2, 2, 1])), path)
    with pytest.raises(ValueError, match="1 mm"):
        read_label_map(path)


@pytest.mark.parametrize("label", [-1, 300, 499, 551, 2035])
def test_ids_that_mean_nothing_are_refused(tmp_path, label):
    path = tmp_path / "map.nii.gz"
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), label, np.int16), np.eye(4)), path)
    with pytest.raises(ValueError, match=f"label {label} is neither an aseg id nor 500-550"):
        read_label_map(path)


def test_float_labels_are_rounded(tmp_path):
    path = tmp_path / "map.nii.gz"
    labels = np.full((3, 3, 3), 12 - 1e-6, np.float32)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    assert (read_label_map(path) == 12).all()
