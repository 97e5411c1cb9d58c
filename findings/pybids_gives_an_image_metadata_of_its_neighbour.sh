#!/bin/sh
# pybids takes metadata of an image from the sidecar of another image in the same folder, if that one has
# fewer entities, although the image has a sidecar of its own. Keys that its own lacks are filled in: a
# scan as acquired becomes "SkullStripped". Where both have a key, the file name that sorts first wins:
# sub-01_dseg.json over sub-01_space-MNI152NLin6Asym_dseg.json, for the image in MNI space.
#
# Guess: within one folder an image's own sidecar is the only one that counts; more come only from folders
#        above. So does the BIDS validator: it finds no error in these files, and misses in the second
#        scan the flip angle that the first one's sidecar has.
# Seen:  BIDSLayout.get_metadata mixes the two.
# So:    read the sidecar of the same name for what must be the image's own, as hetseg does
#        (dataset/sessions.py). Of hetseg's results the two probseg images can meet it; their sidecars
#        have the same keys, and pybids gives each its own values.
#
# Versions: pybids 0.22.0, bids-validator-deno 3.0.2. Date: 2026-11-30. Source: measured; wrong values
# between echoes are in pybids' issues 530 and 1044, the validator's rule in issue 1583 of the BIDS
# specification; the code is the merging of payloads in bids/layout/index.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check pybids==0.22.0 bids-validator-deno==3.0.2
venv/bin/python - <<'PYTHON'
import json
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
from bids import BIDSLayout


def write(root, about, images):
    """A dataset of one person."""
    anat = Path(root, "sub-01", "anat")
    anat.mkdir(parents=True)
    about = {"Name": "x", "BIDSVersion": "1.10.0", "License": "CC0", "Authors": ["A", "B"], **about}
    Path(root, "dataset_description.json").write_text(json.dumps(about))
    Path(root, "README").write_text("A person with two images. " * 10)
    for name, metadata in images.items():
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), anat / f"{name}.nii.gz")
        (anat / f"{name}.json").write_text(json.dumps(metadata))


def validate(root):
    """Errors, and whose flip angle is missed."""
    done = subprocess.run(["venv/bin/bids-validator-deno", root, "--json"], capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    errors = [i["code"] for i in issues if i["severity"] == "error"]
    return errors, [Path(i["location"]).name for i in issues if i.get("subCode") == "FlipAngle"]


def metadata_of(layout, name):
    """What pybids says of an image."""
    (path,) = (p for p in layout.get(extension=".nii.gz", return_type="file") if Path(p).name == name)
    return layout.get_metadata(path)


write("raw", {"DatasetType": "raw"}, {
    "sub-01_T1w": {"SkullStripped": True, "FlipAngle": 8},
    "sub-01_acq-x_T1w": {"MagneticFieldStrength": 7},
})  # fmt: skip
errors, missed = validate("raw")
leaked = metadata_of(BIDSLayout("raw"), "sub-01_acq-x_T1w.nii.gz")
print(f"validator: errors {errors}, no flip angle in {missed}")
print(f"pybids, of sub-01_acq-x_T1w: {leaked}")

write("derived", {"DatasetType": "derivative", "GeneratedBy": [{"Name": "x"}]}, {
    "sub-01_dseg": {"Description": "native"},
    "sub-01_space-MNI152NLin6Asym_dseg": {"Description": "MNI", "SpatialReference": "MNI152NLin6Asym"},
})  # fmt: skip
more_errors, _ = validate("derived")
layout = BIDSLayout("derived", is_derivative=True, config=["bids", "derivatives"], validate=False)
swapped = metadata_of(layout, "sub-01_space-MNI152NLin6Asym_dseg.nii.gz")
print(f"validator: errors {more_errors}")
print(f"pybids, of sub-01_space-MNI152NLin6Asym_dseg: {swapped}")
raise SystemExit(
    not (
        errors == more_errors == []
        and missed == ["sub-01_acq-x_T1w.nii.gz"]
        and leaked.get("SkullStripped") is True
        and swapped["Description"] == "native"
    )
)
PYTHON
