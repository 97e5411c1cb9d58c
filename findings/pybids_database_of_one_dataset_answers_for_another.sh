#!/bin/sh
# BIDSLayout(root, database_path=DB) takes the root, and so every file, from the database: called with
# the index of dataset A it lists A's files for dataset B, without a warning.  Nor does it look whether
# files were added or removed since.
#
# Guess: the root that is given decides; an index of another root is refused or made again.
# Version: pybids 0.22.0
# Source: https://github.com/bids-standard/pybids/pull/647 ("all initialization settings will be loaded
#   from the DB"); bids/layout/layout.py, "Overwrite init args with values in DB"
# Date: 2026-11-29
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pybids==0.22.0
cd "$work"
"$work/venv/bin/python" - <<'END'
import json
from pathlib import Path

from bids import BIDSLayout

for name, subject in (("a", "01"), ("b", "07")):
    anat = Path(name, f"sub-{subject}", "anat")
    anat.mkdir(parents=True)
    (anat / f"sub-{subject}_T1w.nii.gz").touch()
    about = {"Name": name, "BIDSVersion": "1.10.0"}
    Path(name, "dataset_description.json").write_text(json.dumps(about))

print("A, new database:    ", BIDSLayout("a", database_path="db").get_subjects())
other = BIDSLayout("b", database_path="db")
print("B, the same database:", other.get_subjects(), "root", Path(other.root).name)
assert other.get_subjects() == ["01"], "pybids has changed: the root that is given counts"
assert Path(other.root).name == "a"

anat = Path("a", "sub-02", "anat")
anat.mkdir(parents=True)
(anat / "sub-02_T1w.nii.gz").touch()
print("A with a new person: ", BIDSLayout("a", database_path="db").get_subjects())
assert BIDSLayout("a", database_path="db").get_subjects() == ["01"], "additions are noticed now"
END
