"""What motion does to the numbers of the image that the verdict looks at.

    python benchmarks/ripples.py OUT DATA [DATA ...] [--seeds N]

Each DATA holds sub-X_T1w.nii.gz of 1 mm and sub-X_dseg.nii.gz (FreeSurfer aseg ids) in one folder.
Measures noise, edges and ripples of each scan and of copies with motion of 1 and 3 mm, each in N
ways, with the labels of the reference. Writes OUT/ripples.tsv (one row per copy) and prints ranges.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from accuracy import scans_of
from degradations import Scan, motion

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.quality.image_quality import measure_image
from hetseg_bids.structures.aseg import ASEG

MOTION_MM = (1.0, 3.0)


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    paths = [path for folder in args.data for path in scans_of(folder)]
    table = pd.DataFrame([row for path in paths for row in rows_of(path, args.seeds)])
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(table, args.out / "ripples.tsv")
    print(table.groupby("motion_mm")[["noise", "edge", "ripple"]].describe().T.to_string())


def rows_of(path: Path, seeds: int) -> list[dict[str, object]]:
    """The scan as it is, and moved."""
    scan = Scan.read(path, path.with_name(path.name.replace("_T1w", "_dseg")))
    copies = [(0.0, 0, scan)]
    copies += [(mm, seed, motion(mm, seed)(scan)) for mm in MOTION_MM for seed in range(seeds)]
    dseg = ASEG.collapse(scan.labels[0])
    rows = []
    for mm, seed, copy in copies:
        found = measure_image(copy.image, dseg > 0, dseg, ASEG).for_record()
        rows.append({"scan": path.name.split("_")[0], "motion_mm": mm, "seed": seed, **found})
    return rows


if __name__ == "__main__":
    main()
