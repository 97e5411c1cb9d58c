#!/bin/sh
# A NIfTI header says in which unit its lengths are (xyzt_units: metre, mm or micron). SimpleITK (ITK)
# converts them to mm. nibabel gives the numbers as they stand, in header.get_zooms and in the affine, and
# nilearn, which works in mm, takes them so: one file has voxels of 1 mm here and of 1000 mm there.
#
# Guess: affines are in mm for every reader; if one ignores the unit, all do, or it is an error.
# Seen:  a factor of 1000 in spacing and origin, without a word; nilearn smooths by 6 mm either way, that
#        is not at all if the file is in microns.
# So:    look at header.get_xyzt_units() where files may come from microscopy or from tools in metres,
#        and scale the affine by it. hetseg refuses such a head for its voxels' size, and names the units.
#
# Versions: nibabel 5.4.2, SimpleITK 2.5.7, nilearn 0.14.1. Date: 2026-11-30. Source: measured; the
# comments on xyzt_units in nifti1.h; itkNiftiImageIO.cxx.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check nibabel==5.4.2 SimpleITK==2.5.7 nilearn==0.14.1
venv/bin/python - <<'PYTHON'
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nilearn.image import smooth_img

voxels = np.zeros((21, 21, 21), np.float32)
voxels[10, 10, 10] = 1
as_expected = True
for unit, in_mm in (("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)):
    size = 1 / in_mm  # voxels of 1 mm, in each unit
    image = nib.Nifti1Image(voxels, np.diag([-size, -size, size, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, "image.nii.gz")
    by_nibabel = float(nib.load("image.nii.gz").affine[2, 2])
    by_sitk = sitk.ReadImage("image.nii.gz").GetSpacing()[2]
    peak = smooth_img("image.nii.gz", fwhm=6).get_fdata().max() if unit != "meter" else np.nan
    print(f"1 mm in {unit}: nibabel {by_nibabel:g}, SimpleITK {by_sitk:g}; peak after nilearn's 6 mm: {peak:.3f}")
    as_expected &= np.isclose(by_nibabel, size) and np.isclose(by_sitk, 1)
    as_expected &= {"mm": peak < 0.1, "meter": True, "micron": peak > 0.99}[unit]
raise SystemExit(not as_expected)
PYTHON
