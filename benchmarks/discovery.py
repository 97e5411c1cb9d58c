"""Time to find the T1w images of a large dataset, with and without an index.

python benchmarks/discovery.py FOLDER [--participants N]

FOLDER is made: N participants with two sessions, empty files.  Prints processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from hetseg_bids.config import Selection
from hetseg_bids.dataset.discovery import find_scans


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--participants", type=int, default=10_000)
    args = parser.parse_args()
    bids, database = args.folder / "bids", args.folder / "database"
    write_dataset(bids, args.participants)
    find_scans(bids, Selection(("00000",)))  # imports take their time once
    for what, selection in (
        ("whole dataset", Selection()),
        ("whole dataset, index is made", Selection(database=database)),
        ("whole dataset, index is there", Selection(database=database)),
        ("one participant", Selection(("00000",))),
        ("one participant, index is there", Selection(("00000",), database=database)),
    ):
        began = time.process_time()
        found = find_scans(bids, selection)
        print(f"{what:32} {len(found.scans):6} scans {time.process_time() - began:8.2f} s")


def write_dataset(root: Path, participants: int) -> None:
    """Empty T1w and T2w images, with a sidecar."""
    root.mkdir(parents=True)
    description = {"Name": "large", "BIDSVersion": "1.10.0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    for number in range(participants):
        for session in (1, 2):
            anat = root / f"sub-{number:05d}" / f"ses-{session}" / "anat"
            anat.mkdir(parents=True)
            for ending in ("T1w.nii.gz", "T1w.json", "T2w.nii.gz"):
                (anat / f"sub-{number:05d}_ses-{session}_{ending}").touch()


if __name__ == "__main__":
    main()
