"""Lay out the 15 manually labelled OASIS scans for the n = 9 and n = 1 experiments.

    python benchmarks/paper/prepare.py DATA WORK

DATA holds sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (aseg ids); split.tsv says who trains.
Writes WORK/scans/{train,validation,one}/sub-X/anat; the corpus callosum, which the manual
protocol lacks, is derived by rule and marked in the sidecar as a weak label.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from hetseg_bids.files import atomic_path, write_json
from hetseg_bids.training.synthesis.label_maps import CORPUS_CALLOSUM, derive_corpus_callosum

SPLIT = Path(__file__).with_name("split.tsv")
ONE_SHOT = "sub-1009"  # a woman of 21, the median age of the training scans
_NOTE = {
    "Manual": True,
    "HetsegDerivedLabels": {
        "corpus_callosum": "white matter within 2.5 mm of the mid-sagittal plane, above the "
        "thalamus centroid minus 5 mm, largest component; a weak label, not drawn by hand"
    },
}


def main() -> None:
    """Write the three folders and print the volume of each derived corpus callosum."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    for row in pd.read_csv(SPLIT, sep="\t").itertuples():
        parts = [row.part, "one"] if row.participant_id == ONE_SHOT else [row.part]
        for part in parts:
            volume = lay_out(args.data, args.work / "scans" / part, row.participant_id)
        print(f"{row.participant_id} {row.part}: corpus callosum {volume / 1000:.1f} ml")


def lay_out(data: Path, folder: Path, participant: str) -> float:
    """Link a scan, write its labels with a corpus callosum; returns that volume in mm3."""
    anat = folder / participant / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    t1w = anat / f"{participant}_T1w.nii.gz"
    t1w.unlink(missing_ok=True)
    t1w.symlink_to((data / t1w.name).resolve())
    image = nib.load(data / f"{participant}_dseg.nii.gz")
    ras = nib.as_closest_canonical(image)
    labels = np.asarray(ras.dataobj).astype(np.uint8)
    callosum = derive_corpus_callosum(labels)
    labels[callosum] = CORPUS_CALLOSUM
    save_as_before(labels, ras.affine, image.affine, anat / f"{participant}_dseg.nii.gz")
    write_json(anat / f"{participant}_dseg.json", _NOTE)
    return float(callosum.sum() * np.prod(image.header.get_zooms()[:3]))


def save_as_before(labels: np.ndarray, affine: np.ndarray, before: np.ndarray, path: Path) -> None:
    """Write labels in the orientation that the affine `before` has."""
    back = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.io_orientation(before))
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(labels, affine).as_reoriented(back), temporary)


if __name__ == "__main__":
    main()
