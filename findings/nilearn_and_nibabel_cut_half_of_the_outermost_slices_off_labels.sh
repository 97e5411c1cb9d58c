#!/bin/sh
# Resampled by nearest neighbour in nilearn (resample_to_img, resample_img) or nibabel (resample_from_to, order 0), a
# label image ends at the centres of its outermost voxels, not at their faces: what lies in the outer half of the
# first and last slice becomes 0. SimpleITK keeps it. A mask of ten slices of 5 mm is 46 mm high on a grid of 1 mm
# that covers all of it, and also where nilearn chooses the grid itself: 8 % of it are lost, of a lesion in the last
# slice 40 %. scipy, which both use, says "no interpolation beyond the edges" of mode="constant"; with
# mode="grid-constant" nothing is lost at the order 0, but neither library lets one choose it.
#
# Guess: nearest neighbour gives each point inside of a voxel that voxel's label; only points outside of the field
#        of view are 0; readers differ by nothing but points that lie just between two voxels.
# Seen:  the same label image has 3600 mm3 less in nilearn and nibabel than in SimpleITK, which keeps the volume.
# So:    before moving labels or lesion masks of thick slices to a finer image, pad them by one slice that repeats
#        the outermost, or use SimpleITK. It matters where a structure reaches the end of a slab: brainstem, cerebellum
#        and vertex in clinical scans, lesions drawn on FLAIR.
#
# hetseg: its own nearest neighbour (hetseg_bids/preprocessing/conform.py) did the same to lesion masks and labels on other
# grids; it says grid-constant now.
#
# Versions: nilearn 0.14.1, nibabel 5.4.2, SimpleITK 2.5.7, scipy 1.17.1. Date: 2026-12-01. Source: measured; scipy's
# issue 9865 (the answer was grid-constant, pull request 12776); nilearn/image/resampling.py, _resample_one_img;
# nibabel/processing.py, resample_from_to.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check \
  nilearn==0.14.1 nibabel==5.4.2 SimpleITK==2.5.7 scipy==1.17.1
venv/bin/python - <<'PYTHON' 2>/dev/null
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.processing import resample_from_to
from nilearn.image import resample_img, resample_to_img
from scipy import ndimage

labels = np.zeros((40, 40, 10), np.uint8)  # slices of 5 mm; 17 everywhere in a column, 53 in the last slice
labels[5:35, 5:35] = 17
labels[10:20, 10:20, -1] = 53
thick = nib.Nifti1Image(labels, np.diag([1.0, 1, 5, 1]))
affine = np.eye(4)
affine[2, 3] = -2  # 50 slices of 1 mm, from face to face of the thick ones
t1w = nib.Nifti1Image(np.zeros((40, 40, 50), np.uint8), affine)
nib.save(thick, "thick.nii.gz")
nib.save(t1w, "t1w.nii.gz")
moved = sitk.Resample(
    sitk.ReadImage("thick.nii.gz"),
    sitk.ReadImage("t1w.nii.gz"),
    sitk.Transform(),
    sitk.sitkNearestNeighbor,
)
scale = np.linalg.inv(thick.affine) @ affine
found = {
    "nilearn, resample_to_img": resample_to_img(thick, t1w, interpolation="nearest").dataobj,
    "nilearn, grid of its own": resample_img(thick, np.eye(3), interpolation="nearest").dataobj,
    "nibabel": resample_from_to(thick, t1w, order=0).dataobj,
    "SimpleITK": sitk.GetArrayFromImage(moved),
    "scipy, grid-constant": ndimage.affine_transform(
        labels, scale, output_shape=t1w.shape, order=0, mode="grid-constant"
    ),
}
before = tuple(int(5 * (labels == label).sum()) for label in (17, 53))
print(f"{'as drawn':26} label 17: {before[0]} mm3, label 53: {before[1]} mm3")
after = {}
for name, voxels in found.items():
    after[name] = tuple(int((np.asarray(voxels) == label).sum()) for label in (17, 53))
    print(f"{name:26} label 17: {after[name][0]} mm3, label 53: {after[name][1]} mm3")
# of both outermost slices, 2 mm of 5
ends = [2 * int((labels[..., k] == 17).sum()) for k in (0, -1)]
cut = (before[0] - sum(ends), before[1] * 3 // 5)
kept = {"SimpleITK", "scipy, grid-constant"}
sys.exit(any(volumes != (before if name in kept else cut) for name, volumes in after.items()))
PYTHON
