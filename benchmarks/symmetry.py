"""Are both sides of the brain treated alike: a scan against its mirror image.

    python benchmarks/symmetry.py DATA OUT [--models NAME ...] [--no-mirror]

DATA holds sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids) in one folder. Each model
labels every scan and its mirror image; the labels of the mirror image are turned back. Writes
OUT/symmetry.tsv (one row per scan and model) and OUT/symmetry.md: Dice of both against the
reference and with each other, and how far asymmetries change. (The asymmetry of a structure is the
difference of its volumes, left and right, in % of their mean; it should be the same in both.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from accuracy import read_reference, scans_of

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.preprocessing.pipeline import PreparedImage, prepare_image
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.labels import segment
from hetseg_bids.structures.aseg import ASEG, STRUCTURES
from hetseg_bids.structures.label_sets import partner_of

_Labels = npt.NDArray[np.uint8]


def main() -> None:
    """Label, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=["label-flip"])
    parser.add_argument("--no-mirror", dest="mirror", action="store_false")
    args = parser.parse_args()
    models = {name: load_model(name, torch.device("cpu")) for name in args.models}
    rows = []
    for scan in scans_of(args.data):
        prepared, reference = prepare_image(scan), read_reference(scan)
        for name, model in models.items():
            found = [label(prepared, model, args.mirror, turned) for turned in (False, True)]
            rows.append({"scan": scan.name.split("_")[0], "model": name, **score(found, reference)})
            write_table(pd.DataFrame(rows), args.out / "symmetry.tsv")
    text = markdown(pd.DataFrame(rows))
    (args.out / "symmetry.md").write_text(text, encoding="utf-8")
    print(text)


def label(prepared: PreparedImage, model: Model, mirror: bool, turned: bool) -> _Labels:
    """Labels of a scan on its own grid, made of the scan or of its mirror image."""
    image, mask = prepared.image, prepared.mask
    if turned:
        image, mask = image.flip(0), mask.flip(0)
    logits = predict(model, image, mask, mirror=mirror)
    result = segment(logits, prepared.working, prepared.working)
    labels = np.asarray(result.full(result.dseg), np.uint8)
    if turned:
        labels = ASEG.mirror_labels()[labels[::-1]]
    return nearest(np.ascontiguousarray(labels), prepared.working, prepared.native)


def score(found: list[_Labels], reference: _Labels) -> dict[str, float]:
    """One row of the table."""
    straight, turned = found
    against = [dices(labels, reference) for labels in found]
    change = np.abs(asymmetry(straight) - asymmetry(turned))
    return {
        "dice": np.nanmean(against[0]),
        "dice_of_mirror_image": np.nanmean(against[1]),
        "largest_change_of_dice": np.nanmax(np.abs(against[0] - against[1])),
        "agreement": np.nanmean(dices(straight, turned)),
        "change_of_asymmetry": change.mean(),
        "largest_change_of_asymmetry": change.max(),
    }


def dices(labels: _Labels, reference: _Labels) -> npt.NDArray[np.float64]:
    """Dice of each structure."""
    return np.array([dice(labels == s.label, reference == s.label) for s in STRUCTURES])


def asymmetry(labels: _Labels) -> npt.NDArray[np.float64]:
    """Of each structure that has a partner, %."""
    volumes = {s.name: float((labels == s.label).sum()) for s in STRUCTURES}
    pairs = [
        (volume, volumes[partner_of(name)])
        for name, volume in volumes.items()
        if name.startswith("left_")
    ]
    left, right = np.array(pairs).T
    return 200 * (left - right) / np.maximum(left + right, 1)


def markdown(table: pd.DataFrame) -> str:
    """Means over the scans, a row per model."""
    lines = [
        f"{table['scan'].nunique()} scans; changes from a scan to its mirror image",
        "",
        "| model | Dice | Dice of the mirror image | Dice of one with the other | "
        "Dice of a structure changes by at most | asymmetry changes by, mean | at most |",
        "|" + "---|" * 7,
    ]
    for name, rows in table.groupby("model", sort=False):
        mean, most = rows.mean(numeric_only=True), rows.max(numeric_only=True)
        cells = [f"{mean[c]:.4f}" for c in ("dice", "dice_of_mirror_image", "agreement")]
        cells += [
            f"{most['largest_change_of_dice']:.3f}",
            f"{mean['change_of_asymmetry']:.1f} %",
            f"{most['largest_change_of_asymmetry']:.1f} %",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
