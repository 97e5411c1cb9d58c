#!/bin/sh
# pybids searches the whole absolute path for the first sub-, ses-, run-... it finds.  A dataset that lies
# below folders named like entities (a pilot's sub-folder, a job's scratch folder) gets theirs: all its
# files have session 9 below ses-9, and its participants can't be found below sub-pilot.
#
# Guess: entities come from the file's path in the dataset, its name above all.
# Version: pybids 0.22.0
# Source: bids/layout/models.py, Entity.match_file searches f.path; bids/layout/config/bids.json has the
#   patterns, e.g. "[/\\\\]+sub-([a-zA-Z0-9+]+)"
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

found = {}
for above in ("study", "sub-pilot/ses-9"):
    anat = Path(above, "bids", "sub-01", "anat")
    anat.mkdir(parents=True)
    (anat / "sub-01_T1w.nii.gz").touch()
    about = {"Name": "x", "BIDSVersion": "1.10.0"}
    Path(above, "bids", "dataset_description.json").write_text(json.dumps(about))
    layout = BIDSLayout(Path(above, "bids"))
    found[above] = (layout.get_subjects(), layout.get_sessions())
    print(f"below {above}: subjects {found[above][0]}, sessions {found[above][1]}")
assert found["study"] == (["01"], [])
assert found["sub-pilot/ses-9"] == (["pilot"], ["9"]), "pybids has changed: folders above are ignored"
END
