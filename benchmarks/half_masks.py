"""Brain masks in half precision against those in float32, on a CPU.

    python benchmarks/half_masks.py OUT T1W [T1W ...] [--copies]

OUT/half_masks.tsv: for each whole head, and with --copies for the padded, tilted, cut, noisy and
biased copies of extraction.py: volume of the mask in float32, change in half precision, Dice of the
two, the farthest voxel that changes from the border of the other mask, and CPU seconds of each. On
a CPU that doesn't compute in bfloat16 it is emulated: the same masks, many times as slow.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pandas as pd
from extraction import copies_of, read_scan
from scipy import ndimage

from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.files import write_tsv
from hetseg_bids.preprocessing import number_formats
from hetseg_bids.preprocessing.brain_extraction import extract_brain

Mask = npt.NDArray[np.bool_]


def main() -> None:
    """Write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("t1w", type=Path, nargs="+")
    parser.add_argument("--copies", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for path in args.t1w:
        first = read_scan(path)
        copies = {"as it is": first}
        if args.copies:
            copies |= {copy: scan for copy, (scan, _) in copies_of(first).items()}
        for copy, scan in copies.items():
            rows.append({"scan": path.name.split("_")[0], "copy": copy, **compared(scan.image)})
            write_tsv(args.out / "half_masks.tsv", pd.DataFrame(rows).round(5))
    print(pd.DataFrame(rows).round(4).to_string(index=False))


def compared(image: npt.NDArray[np.float32]) -> dict[str, float]:
    """The row of one image."""
    full, full_s = timed(image, half=False)
    half, half_s = timed(image, half=True)
    return {
        "ml": full.sum() / 1000,
        "change_ml": (float(half.sum()) - full.sum()) / 1000,
        "dice": dice(half, full),
        "farthest_mm": max(beyond(half, full), beyond(full, half)),
        "float32_s": full_s,
        "half_s": half_s,
    }


def timed(image: npt.NDArray[np.float32], *, half: bool) -> tuple[Mask, float]:
    """The brain mask, and CPU seconds."""
    with patch.object(number_formats, "computes_bf16", return_value=half):
        start = time.process_time()
        mask = extract_brain(image)
        return mask, time.process_time() - start


def beyond(mask: Mask, other: Mask) -> float:
    """How far a mask reaches out of another one at most, mm."""
    return float((ndimage.distance_transform_edt(~other) * mask).max())


if __name__ == "__main__":
    main()
