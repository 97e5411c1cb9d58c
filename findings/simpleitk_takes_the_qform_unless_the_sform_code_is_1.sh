#!/bin/sh
# SimpleITK (ITK) places a NIfTI image by its qform, although an sform is coded, unless the sform's
# code is 1. With both forms coded 4 (MNI), or qform 1 and sform 4, it takes the qform; nibabel,
# and with it most of Python's neuroimaging, takes the sform whenever it is coded.
#
# Guess: both readers prefer a coded sform, whatever its code, so one file lies in one place.
# Seen:  where the forms differ (here by 30 mm), the two readers differ by as much, without a word.
# So:    write both forms alike, or leave one uncoded; compare them when reading.
#
# Versions: SimpleITK 2.5.2, nibabel 5.4.2. Date: 2026-11-29. Source: measured; that the sform counts only
# with some codes is also said in the wiki of ANTs, "How does ANTs handle qform and sform in NIFTI-1
# images"; the code is ITK's itkNiftiImageIO.cxx.
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

sform, qform = np.eye(4), np.eye(4)
qform[2, 3] = 30
as_expected = True
for q_code, s_code, sitk_takes in ((1, 1, "sform"), (0, 4, "sform"), (1, 4, "qform"), (4, 4, "qform")):
    image = nib.Nifti1Image(np.ones((20, 20, 20), np.float32), None)
    image.header.set_qform(qform, q_code)
    image.header.set_sform(sform, s_code)
    nib.save(image, "image.nii.gz")
    by_nibabel = nib.load("image.nii.gz").affine[2, 3]
    by_sitk = sitk.ReadImage("image.nii.gz").GetOrigin()[2]
    taken = {0: "sform", 30: "qform"}[round(by_sitk)]
    print(f"codes {q_code} {s_code}: z of first voxel: nibabel {by_nibabel:g}, SimpleITK {by_sitk:g} ({taken})")
    as_expected &= by_nibabel == 0 and taken == sitk_takes
raise SystemExit(not as_expected)
PYTHON
