"""The usual range of each number of the image: what ordinary scans have, by hetseg's own labels.

    python benchmarks/usual_quality.py OUT [OUT ...]

Reads `HetsegImageQuality` of every finished scan below the folders OUT and writes
hetseg_bids/data/usual_quality.tsv, of which the page shows the middle 95 % (columns low, high).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from hetseg_bids.files import read_json
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.reports.quality import RANGES

_MIDDLE = (0.025, 0.975)


def main() -> None:
    """Measure and write the ranges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="+", help="folder that hetseg wrote")
    args = parser.parse_args()
    records = sorted(path for out in args.out for path in out.rglob("*_seg-hetseg_dseg.json"))
    scans = pd.DataFrame([asdict(ImageQuality.of_record(read_json(path))) for path in records])
    ranges = usual_ranges(scans)
    print(ranges)
    ranges.to_csv(RANGES, sep="\t")


def usual_ranges(scans: pd.DataFrame) -> pd.DataFrame:
    """Smallest, 2.5th percentile, median, 97.5th percentile and largest of each measure."""
    low, high = _MIDDLE
    rows = {
        name: {
            "scans": values.count(),
            "min": values.min(),
            "low": values.quantile(low),
            "median": values.median(),
            "high": values.quantile(high),
            "max": values.max(),
        }
        for name, values in scans.items()
    }
    return pd.DataFrame(rows).T.rename_axis("measure").astype({"scans": int}).round(4)


if __name__ == "__main__":
    main()
