"""Where the structures lie in MNI152: the table by which the group level aligns scans.

    hetseg demo DEMO && python benchmarks/template_centroids.py DEMO

Writes hetseg_bids/data/mni152_centroids.tsv from the demo's segmentation of nilearn's
MNI152 2009a symmetric T1w.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from hetseg_bids.images import read_labels
from hetseg_bids.structures.alignment import CENTROIDS, centroids
from hetseg_bids.structures.aseg import STRUCTURES


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    args = parser.parse_args()
    labels, grid = read_labels(next(args.demo.rglob("*_seg-hetseg_dseg.nii.gz")))
    found = centroids(labels, grid, STRUCTURES)
    rows = [(s.name, *found[s.name]) for s in STRUCTURES]
    table = pd.DataFrame(rows, columns=["name", "x_mm", "y_mm", "z_mm"])
    table.round(2).to_csv(CENTROIDS, sep="\t", index=False)


if __name__ == "__main__":
    main()
