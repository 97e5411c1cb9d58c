"""How much memory a scan takes, and how much hetseg expects it to take.

    python benchmarks/memory.py OUT T1W [T1W ...] [options of hetseg]

Runs the command line over each T1W (sub-X_T1w.nii.gz) by itself. Writes OUT/memory.tsv: one row per
scan with its shape, its voxels (mm), `needed_gb` (hetseg_bids.runs.memory) and the
largest resident set of the run, GB of 10^9 bytes. Options that aren't named here go to hetseg,
e.g. `--views axial --no-mirror`: one view needs what all of them need.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import pandas as pd
from watched import watched_scans

from hetseg_bids.config import Settings
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.runs.memory import needed_gb


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("out", type=Path)
    parser.add_argument("t1w", type=Path, nargs="+")
    args, options = parser.parse_known_args()
    rows = []
    for scan in args.t1w:
        rows.append(one_scan(scan, args.out, options))
        write_table(pd.DataFrame(rows).round(2), args.out / "memory.tsv")
    print(pd.DataFrame(rows).round(2).to_string(index=False))


def one_scan(t1w: Path, out: Path, options: list[str]) -> dict[str, object]:
    """A row; a failure ends the program."""
    image = nib.load(t1w)
    used = watched_scans([t1w], out, options)
    measured, expected = used.peak_mib * 2**20 / 1e9, needed_gb(t1w, Settings())
    return {
        "scan": t1w.name.split("_")[0],
        "shape": " x ".join(map(str, image.shape)),
        "voxel_mm": " x ".join(f"{z:.2g}" for z in nib.affines.voxel_sizes(image.affine)),
        "needed_gb": expected,
        "peak_gb": measured,
        "needed_by_peak": expected / measured,
        "wall_s": used.seconds,
    }


if __name__ == "__main__":
    main()
