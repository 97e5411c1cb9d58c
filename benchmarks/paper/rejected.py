"""Precision and recall of sporadic error rejection where every error is known."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.structures import task_membership
from hetseg_bids.training.tasks import unpack_tasks

_STEP = re.compile(r"step-(\d+)_")
_FOUND = 0.5  # share of a blob's wrong voxels that must be rejected for the blob to count


def judge_masks(work: Path, experiment: str, run: Path) -> pd.DataFrame:
    """Compare each look's masks with the errors that were put into the labels.

    Returns
    -------
    table : DataFrame
        A row a look: (voxel, task) pairs rejected, precision, recall of sporadic errors and of
        moved boundaries, and how many sporadic blobs were found.
    """
    steps = {_STEP.match(path.name)[1] for path in (run / "rejected").iterdir()}
    rows = []
    for step in sorted(steps):
        masks = sorted((run / "rejected").glob(f"step-{step}_*"))
        scans = [judge_scan(work, experiment, path, i) for i, path in enumerate(masks)]
        total = pd.DataFrame(scans).sum()
        rows.append(
            {
                "level": experiment.removeprefix("noise/"),
                "seed": run.name.removeprefix("seed-"),
                "step": int(step),
                "rejected": int(total["rejected"]),
                "precision": total["right"] / total["rejected"],
                "recall_sporadic": total["sporadic_found"] / total["sporadic"],
                "recall_boundary": total["boundary_found"] / total["boundary"],
                "blobs": int(total["blobs"]),
                "blobs_found": int(total["blobs_found"]),
            }
        )
    return pd.DataFrame(rows)


def judge_scan(work: Path, experiment: str, path: Path, number: int) -> dict[str, int]:
    """Counts of one scan's mask; see `judge_masks`."""
    image = nib.load(path)
    frame = Grid(image.shape, image.affine)
    mask = torch.from_numpy(np.asarray(image.dataobj).astype(np.int32))
    name, root = f"sub-{number:02d}", work / experiment
    noisy = on_frame(root / "train" / name / "anat" / f"{name}_dseg.nii.gz", frame)
    clean = on_frame(work / "noise" / "clean" / f"{name}_dseg.nii.gz", frame)
    kinds = on_frame(root / "kinds" / f"{name}_kinds.nii.gz", frame)
    table = task_membership()
    wrong = np.moveaxis(table[noisy] != table[clean], -1, 0)
    rejected = unpack_tasks(mask[None])[0].numpy()
    hit = wrong & rejected
    blobs, count = ndimage.label(kinds == 2, np.ones((3, 3, 3)))
    size = np.bincount(blobs.ravel(), minlength=count + 1)[1:]
    found = np.bincount(blobs.ravel(), hit.any(axis=0).ravel(), minlength=count + 1)[1:]
    return {
        "rejected": int(rejected.sum()),
        "right": int(hit.sum()),
        "sporadic": int((wrong & (kinds == 2)).sum()),
        "sporadic_found": int((hit & (kinds == 2)).sum()),
        "boundary": int((wrong & (kinds == 1)).sum()),
        "boundary_found": int((hit & (kinds == 1)).sum()),
        "blobs": count,
        "blobs_found": int((found >= _FOUND * size).sum()),
    }


def on_frame(path: Path, frame: Grid) -> np.ndarray:
    """An integer image on the training frame, nearest neighbour."""
    image = nib.load(path)
    data = np.asarray(image.dataobj).astype(np.uint8)
    return nearest(data, Grid(data.shape, image.affine), frame)
