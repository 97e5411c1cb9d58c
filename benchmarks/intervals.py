"""How often the 95 % volume intervals hold the true volume of scans whose truth is known.

    python benchmarks/intervals.py LABEL_MAPS OUT [--model NAME] [--scans 20]

Draws synthetic scans with clean labels (other deformations and pictures than any training run
has seen, of the same maps), segments them and writes OUT/intervals.tsv (one row per scan and
structure) and OUT/coverage.tsv. The last lines say by which factor the standard deviations of one
half of the scans would have to change for 95 %, and what the other half makes of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.images import Grid
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.labels import segment
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.uncertainty import NORMAL_975
from hetseg_bids.structures.aseg import STRUCTURES
from hetseg_bids.training.synthesis.label_noise import CLEAN
from hetseg_bids.training.synthesis.painting import SynthesisConfig, SyntheticSource
from hetseg_bids.training.volumes import FRAME, frame_affine

_SEED = 11_2026
_COVERED = 0.95


def main() -> None:
    """Draw, segment, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="label-flip")
    parser.add_argument("--scans", type=int, default=20)
    args = parser.parse_args()
    source = SyntheticSource(sorted(args.maps.glob("*.nii*")), SynthesisConfig(labels=CLEAN))
    model = load_model(args.model, torch.device("cpu"))
    table = pd.concat([one_scan(source, model, number) for number in range(args.scans)])
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(table, args.out / "intervals.tsv")
    names = table.groupby("name", sort=False)
    coverage = pd.DataFrame(
        {"scans": names.size(), "coverage": names["covered"].mean(), "mean_z": names["z"].mean()}
    )
    write_table(coverage.reset_index(), args.out / "coverage.tsv")
    print(coverage.to_string())
    print(f"all: {table['covered'].mean():.3f} of {len(table)}")
    forecast, true = table["expected_dice"], table["true_dice"]
    r = forecast.corr(true)
    print(f"Dice: mean {true.mean():.3f}, expected {forecast.mean():.3f}, r = {r:.3f}")
    halves = [table[table["scan"] % 2 == side] for side in (0, 1)]
    for fitted, judged in (halves, halves[::-1]):
        factor = float(np.nanquantile(fitted["z"].abs(), _COVERED)) / NORMAL_975
        hold = (judged["z"].abs() <= factor * NORMAL_975).mean()
        print(f"standard deviations x {factor:.2f}, fitted on one half: {hold:.3f} on the other")


def one_scan(source: SyntheticSource, model: Model, number: int) -> pd.DataFrame:
    """One row per structure: true volume, interval, distance in standard deviations."""
    volume = source.draw(np.random.default_rng((_SEED, number)))
    grid = Grid(FRAME, frame_affine())
    logits = predict(model, volume.image, volume.image > BACKGROUND)
    result = segment(logits, grid, grid)
    table = measure(result).set_index("name")
    found, labels = result.full(result.dseg), volume.labels.numpy()
    truth = {s.name: np.isin(labels, s.members) for s in STRUCTURES}
    table["true_mm3"] = pd.Series({name: int(there.sum()) for name, there in truth.items()})
    table["true_dice"] = pd.Series(
        {s.name: dice(found == s.label, truth[s.name]) for s in STRUCTURES}
    )
    low, high = table["volume_ci95_low_mm3"], table["volume_ci95_high_mm3"]
    middle = high - NORMAL_975 * table["volume_sd_mm3"]  # low ends at 0
    table["covered"] = (low <= table["true_mm3"]) & (table["true_mm3"] <= high)
    table["z"] = (table["true_mm3"] - middle) / table["volume_sd_mm3"]
    columns = ["volume_mm3", "volume_sd_mm3", low.name, high.name, "true_mm3", "covered", "z"]
    columns += ["expected_dice", "true_dice"]
    return table.loc[table["true_mm3"] > 0, columns].reset_index().assign(scan=number)


if __name__ == "__main__":
    main()
