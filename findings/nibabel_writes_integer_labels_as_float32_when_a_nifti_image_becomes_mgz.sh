#!/bin/sh
# nibabel.save(image, "x.mgz") of a NIfTI image, MGHImage.from_image and MGHImage(labels, affine, nifti_header) store float32,
# whatever type the labels, the image or its header have. .mgz has uint8, int16 and int32, and without a header, or with that of
# another .mgz, the type is kept. Label images become four times as large in memory and are no whole numbers any more for what
# reads them (numpy.bincount refuses them), and ids above 16,777,216, as some atlases have (the Allen mouse atlas: 312782546),
# become other ids: neighbouring ones fall together. The way back, .mgz to NIfTI, keeps the type.
#
# The guess: the type of the array or of the header is kept where the new format has it, as from NIfTI to Analyze; or there is
# an error.
#
# hetseg: hetseg-export sets the type of aseg.mgz itself (hetseg_bids/outputs/freesurfer.py; it stored float32 before).
#
# Version: nibabel 5.4.2, numpy 2.4.
# Source: measured; nibabel/freesurfer/mghformat.py (MGHHeader.from_header begins anew, with float32); FastSurfer
# pull request 874, which mended its own files.
# Date: 2026-12-01
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'nibabel==5.4.2' 'numpy==2.*'
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import nibabel as nib
import numpy as np

print("nibabel", nib.__version__)
labels = np.zeros((4, 5, 6), np.uint8)
labels[1:3] = 17
nifti = nib.Nifti1Image(labels, np.eye(4))
analyze = nib.AnalyzeImage.from_image(nifti)
nib.save(nifti, "labels.mgz")
types = {
    "NIfTI": nifti.get_data_dtype(),
    "NIfTI to Analyze": analyze.get_data_dtype(),
    "save as .mgz": nib.load("labels.mgz").get_data_dtype(),
    "MGHImage with the NIfTI header": nib.MGHImage(labels, nifti.affine, nifti.header).get_data_dtype(),
    "MGHImage without a header": nib.MGHImage(labels, nifti.affine).get_data_dtype(),
}
for name, kind in types.items():
    print(f"{name}: {kind}")
ids = np.array([312782546, 312782550, 312782554], np.int32).reshape(3, 1, 1)  # of the Allen mouse atlas
nib.save(nib.Nifti1Image(ids, np.eye(4)), "atlas.mgz")
read = np.asarray(nib.load("atlas.mgz").dataobj).astype(int).ravel()
print("ids:", ids.ravel().tolist(), "after .mgz:", read.tolist())
as_found = [kind.kind for kind in types.values()] == ["u", "u", "f", "f", "u"]
sys.exit(not (as_found and not np.array_equal(read, ids.ravel())))
PYTHON
