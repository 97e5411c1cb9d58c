"""Precision and recall of sporadic error rejection where every error is known.

    python benchmarks/paper/rejected.py WORK LEVEL MODEL TABLE

Applies the three-view rule with other limits of q than the paper's to the training scans of a
noise level, with a label-flip network that was trained on them.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from noise import LEVELS
from scipy import ndimage

from hetseg_bids.files import atomic_path
from hetseg_bids.images import Grid
from hetseg_bids.network.devices import set_threads
from hetseg_bids.network.models import load_model
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.structures.aseg import ASEG, N_TASKS
from hetseg_bids.training.paired import PairedSource
from hetseg_bids.training.rejection import contradictions
from hetseg_bids.training.tasks import unpack_tasks

_STEP = re.compile(r"step-(\d+)_")
_FOUND = 0.5  # share of a blob's wrong voxels that must be rejected for the blob to count


Counts = dict[str, int]
LIMITS = (3e-9, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)  # the first: the paper's


def main() -> None:
    """Write one row per limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("level", choices=LEVELS)
    parser.add_argument("model")
    parser.add_argument("table", type=Path)
    args = parser.parse_args()
    set_threads(1)
    model = load_model(args.model, torch.device("cpu"))
    experiment = f"noise/{args.level}"
    source = PairedSource(args.work / experiment / "train")
    rows: list[list[Counts]] = [[] for _ in LIMITS]
    for number, volume in enumerate(source.volumes()):
        frame = Grid(tuple(volume.labels.shape), volume.affine)
        known = KnownErrors.read(args.work, experiment, number, frame)
        doubts, box = contradictions(
            model.network, volume, model.plan.patch, max(LIMITS), corrected=True
        )
        rejected = np.zeros((N_TASKS, *frame.shape), dtype=bool)
        for place, limit in enumerate(LIMITS):
            rejected[(slice(None), *box)] = (doubts < limit).numpy()
            rows[place].append(known.judge(rejected))
    table = pd.DataFrame(
        {"level": args.level, "limit": limit, **totals(counts)}
        for limit, counts in zip(LIMITS, rows, strict=True)
    )
    with atomic_path(args.table) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.5g", na_rep="n/a")


def judge_masks(work: Path, experiment: str, run: Path) -> pd.DataFrame:
    """Compare each look's masks with the errors that were put into the labels.

    Returns
    -------
    table : DataFrame
        One row per look: (voxel, task) pairs rejected, precision, recall of sporadic errors and of
        moved boundaries, and how many sporadic blobs were found.
    """
    steps = {_STEP.match(path.name)[1] for path in (run / "rejected").iterdir()}
    rows = []
    for step in sorted(steps):
        counts = []
        for number, path in enumerate(sorted((run / "rejected").glob(f"step-{step}_*"))):
            image = nib.load(path)
            mask = torch.from_numpy(np.asarray(image.dataobj).astype(np.int32))
            frame = Grid(image.shape, image.affine)
            known = KnownErrors.read(work, experiment, number, frame)
            counts.append(known.judge(unpack_tasks(mask[None], N_TASKS)[0].numpy()))
        where = {"level": experiment.removeprefix("noise/"), "seed": run.name[len("seed-") :]}
        rows.append({**where, "step": int(step), **totals(counts)})
    return pd.DataFrame(rows)


def totals(scans: list[Counts]) -> dict[str, float]:
    """What the scans' counts come to; NaN for shares of nothing."""
    total = pd.DataFrame(scans).sum()
    return {
        "rejected": int(total["rejected"]),
        "precision": total["right"] / total["rejected"],
        "recall_sporadic": total["sporadic_found"] / total["sporadic"],
        "recall_boundary": total["boundary_found"] / total["boundary"],
        "blobs": int(total["blobs"]),
        "blobs_found": int(total["blobs_found"]),
    }


@dataclass(frozen=True)
class KnownErrors:
    """Where the labels of a training scan are wrong, on the training frame.

    Attributes
    ----------
    wrong : (31, X, Y, Z) bool array
    kinds : (X, Y, Z) uint8 array
        As noise.py writes them: 1 boundary moved, 2 sporadic error.
    """

    wrong: np.ndarray
    kinds: np.ndarray

    @classmethod
    def read(cls, work: Path, experiment: str, number: int, frame: Grid) -> KnownErrors:
        """Compare a scan's weak labels with its clean ones."""
        name, root = f"sub-{number:02d}", work / experiment
        noisy = on_frame(root / "train" / name / "anat" / f"{name}_dseg.nii.gz", frame)
        clean = on_frame(work / "noise" / "clean" / f"{name}_dseg.nii.gz", frame)
        kinds = on_frame(root / "kinds" / f"{name}_kinds.nii.gz", frame)
        table = ASEG.membership()
        return cls(np.moveaxis(table[noisy] != table[clean], -1, 0), kinds)

    def judge(self, rejected: np.ndarray) -> Counts:
        """Counts of (31, X, Y, Z) rejected labels; see `judge_masks`."""
        hit = self.wrong & rejected
        blobs, count = ndimage.label(self.kinds == 2, np.ones((3, 3, 3)))
        size = np.bincount(blobs.ravel(), minlength=count + 1)[1:]
        found = np.bincount(blobs.ravel(), hit.any(axis=0).ravel(), minlength=count + 1)[1:]
        return {
            "rejected": int(rejected.sum()),
            "right": int(hit.sum()),
            "sporadic": int((self.wrong & (self.kinds == 2)).sum()),
            "sporadic_found": int((hit & (self.kinds == 2)).sum()),
            "boundary": int((self.wrong & (self.kinds == 1)).sum()),
            "boundary_found": int((hit & (self.kinds == 1)).sum()),
            "blobs": count,
            "blobs_found": int((found >= _FOUND * size).sum()),
        }


def on_frame(path: Path, frame: Grid) -> np.ndarray:
    """An integer image on the training frame, nearest neighbour."""
    image = nib.load(path)
    data = np.asarray(image.dataobj).astype(np.uint8)
    return nearest(data, Grid(data.shape, image.affine), frame)


if __name__ == "__main__":
    main()
