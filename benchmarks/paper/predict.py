"""Segment a folder of stripped scans with one model; with --noise, also judge its q.

    python benchmarks/paper/predict.py MODEL SCANS OUT [--noise LEVEL]

Writes OUT/sub-X/anat/sub-X_seg-hetseg_dseg.nii.gz and its flip map and, with --noise,
OUT/reliability.tsv: forecast against true rate of disagreement with labels that carry the
known noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from noise import LEVELS
from reliability import forecast_of, noisy_rates, reliability

from hetseg_bids.files import atomic_path
from hetseg_bids.network.devices import set_threads
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.outputs.derivatives import OutputPaths, save_image, save_scaled
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.labels import segment
from hetseg_bids.training.paired import Pair, conform_labels, find_pairs


def main() -> None:
    """Segment every scan that has no result yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("scans", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--noise", choices=LEVELS)
    args = parser.parse_args()
    set_threads(1)
    model = load_model(args.model, torch.device("cpu"))
    tables = [one_scan(model, pair, args) for pair in find_pairs(args.scans)]
    if args.noise:
        table = pd.concat(tables)
        with atomic_path(args.out / "reliability.tsv") as temporary:
            table.to_csv(temporary, sep="\t", index=False)


def one_scan(model: Model, pair: Pair, args: argparse.Namespace) -> pd.DataFrame | None:
    """Segment one scan; returns its reliability counts with --noise."""
    name = pair.t1w.name.removesuffix("_T1w.nii.gz")
    paths = OutputPaths(args.out / name / "anat", name, "", args.out / f"{name}.html")
    if paths.dseg.exists() and not args.noise:
        return None
    prepared = prepare_image(pair.t1w, "skip")
    logits = predict(model, prepared.image, prepared.mask, mirror=False)
    result = segment(logits, prepared.working, prepared.native)
    if result.flip_probability is not None:
        save_scaled(paths.flip_probability, result, result.flip_probability)
    save_image(paths.dseg, result.full(result.dseg), result.grid, intent="label")
    if not args.noise:
        return None
    truth = conform_labels(pair.dseg, prepared.native, prepared.working)
    kept = args.scans.parent / args.noise / "rates" / f"{name}.npz"
    noisy = noisy_rates(truth, args.noise, kept)[(slice(None), *logits.box)]
    clean = truth[logits.box].numpy()
    table = reliability(logits.label > 0, forecast_of(logits), clean, noisy)
    return table.assign(participant=name)


if __name__ == "__main__":
    main()
