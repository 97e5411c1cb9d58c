"""BIDS datasets of the phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from support.corruptions import ZOOM, good
from support.phantoms import (
    centred_affine,
    phantom_labels,
    small_brain,
    stripped_phantom,
    three_quarters,
)


def write_dataset(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": "test", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(content))
    return root


def t1w_path(root: Path, subject: str, extra: str = "") -> Path:
    path = root / f"sub-{subject}" / "anat" / f"sub-{subject}{extra}_T1w.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_pair(folder: Path, subject: str = "01") -> Path:
    """The `phantom` and its labels, to train on or to compare with."""
    t1w, labels = t1w_path(folder, subject), three_quarters(phantom_labels())
    affine = centred_affine(labels.shape)
    brain = np.where((labels == 211) | (labels == 24), 0, labels)
    nib.save(nib.Nifti1Image(three_quarters(stripped_phantom()), affine), t1w)
    nib.save(nib.Nifti1Image(brain, affine), t1w.with_name(f"sub-{subject}_dseg.nii.gz"))
    return folder


def write_small_pair(folder: Path, subject: str = "01") -> Path:
    """The image that `corruptions.good` makes and its labels: two fifths of the voxels."""
    t1w, labels = t1w_path(folder, subject), small_brain()
    good(t1w)
    image = nib.Nifti1Image(labels, centred_affine(labels.shape, ZOOM))
    nib.save(image, t1w.with_name(f"sub-{subject}_dseg.nii.gz"))
    return folder
