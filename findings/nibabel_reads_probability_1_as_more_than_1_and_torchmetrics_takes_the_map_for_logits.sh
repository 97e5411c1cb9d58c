#!/bin/sh
# A probability map is often stored in uint8, 255 for 1, with scl_slope 1/255. The slope is a float32, and the float32
# nearest to 1/255 is a little larger. nibabel multiplies in float64: what was stored as 1 is read as 1.00000006. nibabel
# chooses the same slope by itself when values of 0 to 1 are saved as uint8. SimpleITK computes in float32 and reads 1.
# torchmetrics takes predictions for logits if one of them is above 1, and puts the sigmoid on all: probabilities 0 to 1 become
# 0.5 to 0.73. So a single voxel with the level 255 changes the calibration error, Dice (F1) and Jaccard index of its scan, and
# scans without such a voxel are right. AUROC doesn't change, so it doesn't give the fault away.
#
# Guess: a stored 1 is read as 1, or as the same by both readers; a probability that is too large by 6e-8 does no harm.
# Seen:  torchmetrics: calibration error 0.006 becomes 0.29, F1 0.87 becomes 0.71, without a word. scikit-learn refuses the map.
#        The entropy and the standard deviation of each such voxel are NaN or minus infinity in scipy and numpy. A map stored
#        in 16 bits (int16) is read as a little less than 1.
# So:    get_fdata(dtype=numpy.float32), or numpy.clip(p, 0, 1), before any metric. Whoever writes such maps rounds the slope down.
#
# hetseg wrote its probabilities (1/255) and flip probabilities (0.5/255, read as 0.50000003) so; now it rounds the slope down
# (hetseg_bids/segmentation/labels.py, LevelMaps.slope).
#
# Versions: nibabel 5.4.2, torchmetrics 1.9.0, torch 2.13.0, scikit-learn 1.9.1, scipy 1.17.1, SimpleITK 2.5.7. Date: 2026-12-01.
# Source: measured; nibabel's issue 832 (float64 whatever is asked of the slope); torchmetrics' documentation says that values
# outside of 0 to 1 are taken for logits, its issue 1604 that a batch can change sides so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check nibabel==5.4.2 torchmetrics==1.9.0 'torch==2.13.*' \
  scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6 SimpleITK==2.5.7
venv/bin/python - <<'PYTHON' 2>/dev/null
import sys

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import torch
from scipy.special import entr
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error, binary_f1_score

rng = np.random.default_rng(0)
probability = rng.beta(0.3, 0.3, (40, 40, 20))
truth = rng.random(probability.shape) < probability
levels = np.round(255 * probability).astype(np.uint8)
without = np.minimum(levels, 254)
without[0, 0, 0] = 254
one = without.copy()
one[np.unravel_index(np.flatnonzero(truth)[0], truth.shape)] = 255


def stored(levels):
    """A map of uint8 with its slope, as nibabel reads it again."""
    image = nib.Nifti1Image(levels, np.eye(4))
    image.header.set_slope_inter(1 / 255, 0)
    nib.save(image, "map.nii.gz")
    return nib.load("map.nii.gz").get_fdata()


def scores(p):
    """Calibration error, F1 and AUROC, and whether scikit-learn takes the map."""
    p, t = torch.from_numpy(p.ravel()), torch.from_numpy(truth.ravel()).long()
    try:
        brier_score_loss(t, p)
        taken = True
    except ValueError:
        taken = False
    found = (binary_calibration_error(p, t, n_bins=15), binary_f1_score(p, t), binary_auroc(p, t))
    return (*(round(float(value), 3) for value in found), taken)


as_read = stored(levels)
by_sitk = float(sitk.GetArrayFromImage(sitk.ReadImage("map.nii.gz")).max())
by_itself = nib.Nifti1Image(levels / 255, np.eye(4))
by_itself.set_data_dtype(np.uint8)
nib.save(by_itself, "by_itself.nii.gz")
largest = (float(as_read.max()), float(nib.load("by_itself.nii.gz").get_fdata().max()), by_sitk)
print("largest value: nibabel {!r}, slope by nibabel {!r}, SimpleITK {!r}".format(*largest))
seen = {
    "all levels, clipped to 1": scores(np.minimum(as_read, 1)),
    "all levels, as nibabel reads them": scores(as_read),
    "levels up to 254": scores(stored(without)),
    "the same, but one voxel 255": scores(stored(one)),
}
for what, (error, f1, auroc, taken) in seen.items():
    print(f"{what:34} calibration error {error:.3f}, F1 {f1:.3f}, AUROC {auroc:.3f}, taken by scikit-learn: {taken}")
with np.errstate(all="ignore"):
    broken = int((~np.isfinite(entr(as_read) + entr(1 - as_read))).sum())
    nans = int(np.isnan(np.sqrt(as_read * (1 - as_read))).sum())
print(f"voxels with level 255: {(levels == 255).sum()}; entropy not finite in {broken}, standard deviation NaN in {nans}")
clipped, read, below, single = seen.values()
right = 1 < largest[0] == largest[1] < 1.0000001 and largest[2] == 1 and broken == nans == (levels == 255).sum()
right &= clipped[0] < 0.01 < 0.25 < read[0] and clipped[1] - read[1] > 0.1 and clipped[2] == read[2]
right &= below[0] < 0.01 < 0.25 < single[0] and (clipped[3], read[3], below[3], single[3]) == (True, False, True, False)
sys.exit(not right)
PYTHON
