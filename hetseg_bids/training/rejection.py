"""Sporadic error rejection: labels that all three views deny with confidence.

Source: paper section 2.2 (design section 1, system 4).  A (voxel, task) whose label the
axial, the coronal and the sagittal prediction each contradict with q < 0.001 is taken out
of the loss until the next look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from hetseg_bids.files import atomic_path
from hetseg_bids.images import open_image
from hetseg_bids.inference import add_view, brain_box
from hetseg_bids.network import HetsegNet
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.structures import N_TASKS, task_membership
from hetseg_bids.training.tasks import pack_tasks
from hetseg_bids.training.volumes import LabelledVolume
from hetseg_bids.uncertainty import trained_flip

_FILE = re.compile(r"step-(\d+)_scan-(\d+)_rejected\.nii\.gz")


@dataclass(frozen=True)
class RejectionConfig:
    """When and what to reject.

    Attributes
    ----------
    first, every : int
        Optimiser step of the first look, and steps from look to look.
    confidence : float
        Largest q at which a contradiction counts.
    """

    first: int
    every: int
    confidence: float = 0.001

    def due(self, step: int) -> bool:
        """Whether a look falls on a step."""
        return step >= self.first and (step - self.first) % self.every == 0


def find_sporadic_errors(
    network: HetsegNet, volume: LabelledVolume, patch: tuple[int, int], confidence: float
) -> Tensor:
    """Labels that all three views contradict with q below `confidence`.

    Parameters
    ----------
    network : HetsegNet
        Heteroscedastic, one of the label-flip system.
    volume : LabelledVolume
    patch : tuple of 2 int
        Rows and columns of the training stacks.
    confidence : float

    Returns
    -------
    rejected : (X, Y, Z) int32 tensor
        Bit t is set where the label of task t is rejected.
    """
    brain = volume.image > BACKGROUND
    box = brain_box(brain)
    image, labels = volume.image[box], volume.labels[box]
    membership = torch.from_numpy(task_membership()).T.contiguous()
    wrong = torch.ones(N_TASKS, *image.shape, dtype=torch.bool)
    for plane in PLANES.values():
        # what one view clears needs no second opinion
        open_cases = wrong.any(dim=0).permute(*plane.axes).flatten(1).any(dim=1)
        output = torch.zeros(2 * N_TASKS, *image.shape)
        every = torch.arange(2 * N_TASKS)
        for _ in add_view(network, image, plane, patch, every, output, open_cases):
            pass
        for task in range(N_TASKS):
            says = output[task] > 0
            sure = trained_flip(output[N_TASKS + task]) < confidence
            wrong[task] &= (says != membership[task][labels.int()]) & sure
    rejected = torch.zeros(volume.labels.shape, dtype=torch.int32)
    rejected[box] = pack_tasks(wrong)
    return rejected


def save_masks(folder: Path, step: int, volumes: list[LabelledVolume], masks: list[Tensor]) -> None:
    """Write one int32 NIfTI image a scan, for eyes (it lies over the scan) and for resuming."""
    for scan, (volume, mask) in enumerate(zip(volumes, masks, strict=True)):
        path = folder / f"step-{step:08d}_scan-{scan:03d}_rejected.nii.gz"
        with atomic_path(path) as temporary:
            image = nib.Nifti1Image(mask.numpy(), volume.affine, dtype=np.int32)
            nib.save(image, temporary)


def load_masks(folder: Path, step: int) -> list[Tensor] | None:
    """The newest masks that were written at `step` or before, None if there are none."""
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob("*_rejected.nii.gz"):
        match = _FILE.fullmatch(path.name)
        if match and int(match[1]) <= step:
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    if not found:
        return None
    scans = found[max(found)]
    return [
        torch.from_numpy(np.asarray(open_image(scans[i]).dataobj).astype(np.int32))
        for i in sorted(scans)
    ]
