#!/bin/sh
# When one file of a DICOM series is missing, dcm2niix takes the distance of the first two slices in space for
# that of all. If the second slice is the lost one, voxels are twice as long as they are and every volume is
# doubled; if any other is lost, voxels are right and the image has a slice less. The sidecar goes with
# that image, under the name that was asked for. The repaired image (NAME_Eq_1.nii, lost slice interpolated) has no
# sidecar and no BIDS name, and is written for voxels of 12 bits only; for unsigned ones of 16 bits, which many
# scanners store now, the exit code is 1, the wrong image is there nonetheless, and no sidecar at all.
# SimpleITK gives the same files the mean distance: voxels 5 % too long here, whichever slice is lost.
#
# Guess: a lost slice costs a slice: the converter refuses, or fills it in under the name that was asked for, or the
#        distance is a mean or median, so that the error is a few per cent and doesn't depend on which slice
#        is lost, nor on the number of bits.
# Seen:  a ball of 2.1 ml has 4.2 ml with the second slice lost and 2.1 ml with one lost outside of the ball. There is a
#        line "Interslice distance varies" in the middle of the log, and with 12 bits the exit code is 0.
# So:    search the logs of the conversion for that line; compare the number of files with that of slices; take no volumes
#        (of heads, of structures) from such a scan. A head twice as long is easily seen; a head that
#        lost a slice from its middle, with all above it moved by a slice, isn't. hetseg sees the NIfTI
#        only; its documentation sends users to dcm2niix.
#
# Versions: dcm2niix 1.0.20260724, SimpleITK 2.5.7, pydicom 3.0.1, nibabel 5.4.2. Date: 2026-12-01. Source: measured;
# that NIfTI needs equal distances is in dcm2niix' issue 248, the missing _Eq file in issue 22.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check \
  dcm2niix==1.0.20260724 SimpleITK==2.5.7 pydicom==3.0.1 nibabel==5.4.2 numpy==2.4.6
PATH="$folder/venv/bin:$PATH" venv/bin/python - <<'PYTHON'
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

SLICES, BALL = 21, 8  # 1 mm apart; radius in mm, around the middle
SECOND, LAST_BUT_ONE = 1, SLICES - 2
places = np.arange(SLICES) - SLICES // 2
far = np.sqrt((places**2)[:, None, None] + (places**2)[:, None] + places**2)
head = np.where(far <= BALL, 1000, 50).astype("<u2")
truth = float((head > 500).sum())


def export(folder, lost, bits):
    """An axial T1w of 1 mm, one file a slice, without one of them."""
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(SLICES):
        if k == lost:
            continue
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study, series, frame
        d.Modality, d.Manufacturer, d.PatientID, d.PatientName = "MR", "SIEMENS", "01", "01"
        d.PatientPosition, d.ImageType = "HFS", ["ORIGINAL", "PRIMARY", "M", "NORM"]
        d.StudyDate = d.SeriesDate = d.AcquisitionDate = "20260101"
        d.StudyTime = d.SeriesTime = d.AcquisitionTime = "120000"
        d.SeriesNumber, d.AcquisitionNumber, d.InstanceNumber = 2, 1, k + 1
        d.SeriesDescription = d.ProtocolName = "T1w"
        d.ScanningSequence, d.SequenceVariant, d.MRAcquisitionType = "GR", "SP", "3D"
        d.RepetitionTime, d.EchoTime, d.InversionTime, d.FlipAngle = "2300", "2.98", "900", "9"
        d.PixelSpacing, d.SliceThickness = [1, 1], 1
        d.ImageOrientationPatient, d.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-10, -10, k]
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.Rows, d.Columns = head.shape[1:]
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, bits, bits - 1, 0
        d.PixelData = head[k].tobytes()
        d.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)


def volume(path):
    image = nib.load(path)
    return float((image.get_fdata() > 500).sum() * abs(np.linalg.det(image.affine[:3, :3])))


seen = {}
print(f"the ball has {truth:.0f} mm3")
for bits in (12, 16):
    for lost in (None, SECOND, LAST_BUT_ONE):
        source, out = Path(f"dicom_{bits}_{lost}"), Path(f"nifti_{bits}_{lost}")
        export(source, lost, bits)
        out.mkdir()
        ran = subprocess.run(
            ["dcm2niix", "-f", "sub-01_T1w", "-o", out, source], capture_output=True, text=True
        )
        warned = "Interslice distance varies" in ran.stdout
        by_itk = sitk.ImageSeriesReader()
        by_itk.SetFileNames(by_itk.GetGDCMSeriesFileNames(str(source)))
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        length = by_itk.Execute().GetSpacing()[2]
        names = sorted(path.name for path in out.iterdir())
        got = volume(out / "sub-01_T1w.nii")
        zoom = float(nib.load(out / "sub-01_T1w.nii").header.get_zooms()[2])
        print(
            f"{bits} bits, lost slice {'-' if lost is None else lost + 1} of {SLICES}: dcm2niix exit {ran.returncode},"
            f" voxels {zoom:.2f} mm, ball {got:.0f} mm3, warning {warned}; SimpleITK voxels {length:.3f} mm;"
            f" files {' '.join(names)}"
        )
        seen[bits, lost] = (ran.returncode, zoom, got / truth, round(length, 3), warned, names)

image, sidecar, repaired = "sub-01_T1w.nii", "sub-01_T1w.json", "sub-01_T1w_Eq_1.nii"
whole = (0, 1.0, 1.0, 1.0, False, [sidecar, image])
expected = {
    (12, None): whole,
    (16, None): whole,
    (12, SECOND): (0, 2.0, 2.0, 1.053, True, [sidecar, image, repaired]),
    (12, LAST_BUT_ONE): (0, 1.0, 1.0, 1.053, True, [sidecar, image, repaired]),
    (16, SECOND): (1, 2.0, 2.0, 1.053, True, [image]),
    (16, LAST_BUT_ONE): (1, 1.0, 1.0, 1.053, True, [image]),
}
sys.exit(seen != expected)
PYTHON
