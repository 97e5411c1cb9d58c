#!/bin/sh
# A NIfTI image with neither form coded is placed in two ways: nibabel centres it and lets the
# second axis run from back to front; SimpleITK (ITK) puts the first voxel at the origin and lets
# the second axis run from front to back. For both the first axis runs from right to left, so one
# image is the mirror image of the other. Neither says a word.
#
# Guess: without a form, readers refuse, or fall back on one rule (the standard has one: voxel
#        sizes only), so at least the handedness is the same everywhere.
# Seen:  origins lie apart, and the determinants of the two affines differ in sign.
# So:    never write an image without forms; when reading one, say that sides are unknown.
#
# Versions: SimpleITK 2.5.2, nibabel 5.4.2. Date: 2026-11-29. Source: measured; nibabel's
# Nifti1Header.get_base_affine and default_x_flip; "method 1" in the comments of nifti1.h.
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
by_nibabel = nib.load("image.nii.gz").affine
read = sitk.ReadImage("image.nii.gz")
by_sitk = np.eye(4)
by_sitk[:3, :3] = np.reshape(read.GetDirection(), (3, 3)) @ np.diag(read.GetSpacing())
by_sitk[:3, 3] = read.GetOrigin()
by_sitk = np.diag([-1, -1, 1, 1]) @ by_sitk  # LPS to RAS
for reader, affine in (("nibabel", by_nibabel), ("SimpleITK", by_sitk)):
    print(f"{reader}: axes run to {''.join(nib.aff2axcodes(affine))}, first voxel at {affine[:3, 3]} mm")
apart = np.linalg.norm(by_nibabel[:3, 3] - by_sitk[:3, 3])
mirrored = np.linalg.det(by_nibabel[:3, :3]) * np.linalg.det(by_sitk[:3, :3]) < 0
print(f"the first voxel lies {apart:.0f} mm apart; mirror images: {mirrored}")
raise SystemExit(not (apart > 1 and mirrored))
PYTHON
