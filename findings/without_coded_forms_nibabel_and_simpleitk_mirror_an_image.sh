#!/bin/sh
# A NIfTI image with neither form coded is placed in two ways: nibabel centres it and lets the
# first axis run from right to left; SimpleITK (ITK) puts the first voxel at the origin and lets
# the first axis run from left to right. Neither says a word.
#
# Guess: without a form, readers refuse, or fall back on one rule (the standard has one: voxel
#        sizes only), so at least left and right are the same everywhere.
# Seen:  the same voxel lies on the left for one and on the right for the other.
# So:    never write an image without forms; when reading one, say that sides are unknown.
#
# Versions: SimpleITK 2.5.2, nibabel 5.4.2. Source: nibabel's Nifti1Header.get_base_affine
# (default_x_flip), "method 1" in the comments of nifti1.h. Date: 2026-11-29
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet SimpleITK==2.5.2 nibabel==5.4.2
venv/bin/python - <<'PYTHON'
import nibabel as nib
import numpy as np
import SimpleITK as sitk

image = nib.Nifti1Image(np.ones((40, 50, 30), np.float32), None)
image.header.set_zooms((1, 1, 1))
image.header["qform_code"] = image.header["sform_code"] = 0
nib.save(image, "image.nii.gz")
places = {"nibabel": [], "SimpleITK": []}
for voxel in ((0, 0, 0), (39, 0, 0)):
    places["nibabel"].append(nib.affines.apply_affine(nib.load("image.nii.gz").affine, voxel))
    lps = sitk.ReadImage("image.nii.gz").TransformIndexToPhysicalPoint(voxel)
    places["SimpleITK"].append(np.array(lps) * (-1, -1, 1))  # to RAS
steps = {}
for reader, (first, last) in places.items():
    steps[reader] = np.sign(last[0] - first[0])
    way = "left to right" if steps[reader] > 0 else "right to left"
    print(f"{reader}: first voxel at {first + 0.0} mm (RAS), first axis from {way}")
apart = np.linalg.norm(places["nibabel"][0] - places["SimpleITK"][0])
print(f"the first voxel lies {apart:.0f} mm apart")
raise SystemExit(not (apart > 1 and steps["nibabel"] != steps["SimpleITK"]))
PYTHON
