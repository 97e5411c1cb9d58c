"""Do synthetic training scans look like real ones? Where each measure of real scans falls.

    python benchmarks/realism.py MAPS OUT DATA [DATA ...] [--scans 30]

MAPS holds the label maps, each DATA sub-X_T1w.nii.gz and sub-X_dseg.nii.gz at 1 mm. Measures what
the network sees (standard scores inside the mask) under clean labels and writes OUT/realism.tsv:
quantiles of the synthetic scans beside the range of each DATA. Positions lie between cortex (0)
and white matter (1), spreads are shares of that distance; noise and edge are those of
`hetseg_bids.quality.image_quality`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from accuracy import read_reference, scans_of
from scipy import stats

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.preprocessing.conform import resample
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.quality.image_quality import measure_image
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.training.synthesis.label_noise import CLEAN
from hetseg_bids.training.synthesis.painting import SynthesisConfig, SyntheticSource

_SEED = 77
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FEW = 20  # voxels
_WHITE, _CORTEX = "cerebral_white_matter", "cerebral_cortex"


def main() -> None:
    """Draw, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--scans", type=int, default=30)
    args = parser.parse_args()
    source = SyntheticSource(sorted(args.maps.glob("*.nii*")), SynthesisConfig(labels=CLEAN))
    drawn = [source.draw(np.random.default_rng((_SEED, i))) for i in range(args.scans)]
    synthetic = pd.DataFrame(
        [measures(v.image.numpy(), ASEG.collapse(v.labels.numpy())) for v in drawn]
    )
    table = synthetic.quantile(list(_QUANTILES)).T
    table.columns = [f"synthetic_{100 * q:.0f}" for q in _QUANTILES]
    for data in args.data:
        real = pd.DataFrame([measures(*real_scan(t1w)) for t1w in scans_of(data)])
        for name, column in (("min", real.min()), ("median", real.median()), ("max", real.max())):
            table[f"{data.name}_{name}"] = column
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(table.rename_axis("measure").reset_index(), args.out / "realism.tsv")
    print(table.round(2).to_string())


def real_scan(t1w: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Standard scores and labels on the grid of the scan."""
    scan = prepare_image(t1w)
    scores = resample(scan.image[None], scan.working, scan.native, outside=BACKGROUND)[0]
    return scores.numpy(), read_reference(t1w)


def measures(image: npt.NDArray[np.float32], dseg: npt.NDArray[np.uint8]) -> dict[str, float]:
    """What one scan looks like."""
    labels: dict[str, list[int]] = {}
    for s in ASEG.structures:
        labels.setdefault(s.bare_name, []).append(s.label)
    values = {name: image[np.isin(dseg, both)] for name, both in labels.items()}
    white, cortex = (float(np.median(values[name])) for name in (_WHITE, _CORTEX))
    contrast = white - cortex
    mask = image > BACKGROUND
    quality = measure_image(image, mask, dseg, ASEG)
    found = {
        "white_matter_score": white,
        "contrast_score": contrast,
        "mask_over_brain": float(mask.sum() / (dseg > 0).sum()),
        "noise": quality.noise,
        "edge": quality.edge,
    }
    for name, inside in values.items():
        if len(inside) > _FEW:
            found[f"spread_{name}"] = float(stats.iqr(inside, scale="normal")) / contrast
            if name not in (_WHITE, _CORTEX):
                found[f"position_{name}"] = float(np.median(inside) - cortex) / contrast
    return found


if __name__ == "__main__":
    main()
