"""Sporadic error rejection: labels that all three views contradict with confidence.

Source: paper section 2.2 (design section 1, system 4).  A (voxel, task) whose label the
axial, the coronal and the sagittal prediction each contradict with q < 0.001 is left out
of the loss until the next search.  The paper's q is that of its loss; ours, but for its own
recipe, is the probability that this stands for (`network.flip.flip_probability`).
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
from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.flip import flip_probability, trained_flip
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.segmentation.inference import brain_box
from hetseg_bids.segmentation.views import View, add_view_, empty_logits
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.training.tasks import pack_tasks
from hetseg_bids.training.volumes import LabelledVolume

_ROUNDING = 1e-6  # steps
_FILE = re.compile(r"step-(\d+)_scan-(\d+)_rejected\.nii\.gz")


@dataclass(frozen=True)
class RejectionConfig:
    """When to search for sporadic errors, and what to reject.

    Attributes
    ----------
    first, every : float
        Optimiser step of the first search, and steps from one search to the next.
    confidence : float
        Largest q at which a contradiction counts.
    corrected : bool
        Whether q is the probability of a flip. False as in the paper, where it is the value that
        the focal loss is trained on: 0.001 of that is a probability of 3e-9, which networks
        trained for hours never reach.
    of_run : bool
        Whether `first` and `every` are shares of the run's steps instead, and so follow a run whose
        length changes.
    """

    first: float
    every: float
    confidence: float = 0.001
    corrected: bool = True
    of_run: bool = False

    def due(self, step: int, steps: int, searched: int | None) -> bool:
        """Whether errors are searched for before a step.

        Parameters
        ----------
        step, steps : int
            The step, and how many the run has.
        searched : int or None
            Step of the last search. A length that changes by a little doesn't make another one.

        Examples
        --------
        >>> config = RejectionConfig(first=0.3, every=0.35, of_run=True)
        >>> [config.due(step, 40, None) for step in (11, 12, 13)]
        [False, True, True]
        >>> [config.due(step, 40, 12) for step in (13, 25, 26)]
        [False, False, True]
        """
        scale = steps if self.of_run else 1
        first, every = self.first * scale, self.every * scale
        if step < first - _ROUNDING:
            return False
        wanted = first + (step - first + _ROUNDING) // every * every
        return searched is None or wanted - searched > every / 4


def find_sporadic_errors(
    network: HetsegNet,
    volume: LabelledVolume,
    patch: tuple[int, int],
    config: RejectionConfig,
    label_set: LabelSet = ASEG,
) -> Tensor:
    """Labels that all three views contradict with confidence.

    Parameters
    ----------
    network : HetsegNet
        Heteroscedastic, one of the label-flip system.
    volume : LabelledVolume
    patch : tuple of 2 int
        Rows and columns of the training stacks.
    config : RejectionConfig
    label_set : LabelSet
        Of `pack_tasks`' 31 tasks at most.

    Returns
    -------
    rejected : (X, Y, Z) int32 tensor
        Bit t is set where the label of task t is rejected.
    """
    limit = config.confidence
    doubts, box = contradictions(
        network, volume, patch, limit, corrected=config.corrected, label_set=label_set
    )
    rejected = torch.zeros(volume.labels.shape, dtype=torch.int32)
    rejected[box] = pack_tasks(doubts < limit)
    return rejected


def contradictions(
    network: HetsegNet,
    volume: LabelledVolume,
    patch: tuple[int, int],
    limit: float,
    *,
    corrected: bool,
    label_set: LabelSet = ASEG,
) -> tuple[Tensor, tuple[slice, ...]]:
    """The q of the least confident of three views that all contradict a label.

    Parameters
    ----------
    network, volume, patch, label_set
        As in `find_sporadic_errors`.
    limit : float
        Contradictions with a q of this or more don't count.
    corrected : bool
        See `RejectionConfig`.

    Returns
    -------
    q : (tasks, x, y, z) float tensor
        Of each task in the box of the brain; 1 where a view agrees, or is less sure than `limit`.
    box : tuple of 3 slice
    """
    brain = volume.image > BACKGROUND
    box = brain_box(brain)
    image, labels = volume.image[box], volume.labels[box]
    membership = torch.from_numpy(label_set.membership()).T.contiguous()
    q_of = flip_probability if corrected else trained_flip
    count = len(label_set.tasks)
    largest = torch.zeros(count, *image.shape)
    for plane in PLANES.values():
        # where the views so far reject nothing needn't be predicted again
        open_cases = (largest < limit).any(dim=0)
        output = empty_logits(2 * count, image.shape)
        view = View(network, plane, patch, torch.arange(2 * count))
        add_view_(output, image, view, open_cases)
        for task in range(count):
            denies = (output[task] > 0) != membership[task][labels.int()]
            q = q_of(output[count + task])
            doubt = torch.where(denies & (q < limit), q, torch.ones(()))
            torch.maximum(largest[task], doubt, out=largest[task])
    return largest, box


def save_masks(folder: Path, step: int, volumes: list[LabelledVolume], masks: list[Tensor]) -> None:
    """Write one int32 NIfTI image per scan, for users (it lies over the scan) and for resuming."""
    for scan, (volume, mask) in enumerate(zip(volumes, masks, strict=True)):
        path = folder / f"step-{step:08d}_scan-{scan:03d}_rejected.nii.gz"
        with atomic_path(path) as temporary:
            image = nib.Nifti1Image(mask.numpy(), volume.affine, dtype=np.int32)
            nib.save(image, temporary)


def load_masks(folder: Path, before: int) -> tuple[int, list[Tensor]] | None:
    """The newest masks that were written before a step, and at which; None if there are none."""
    earlier = {step: paths for step, paths in _written(folder).items() if step < before}
    if not earlier:
        return None
    step = max(earlier)
    masks = [np.asarray(open_image(path).dataobj) for _, path in sorted(earlier[step].items())]
    return step, [torch.from_numpy(mask.astype(np.int32)) for mask in masks]


def forget_masks(folder: Path, since: int) -> None:
    """Remove masks of a step and later ones: they come again, or are those of another run."""
    for step, paths in _written(folder).items():
        if step >= since:
            for path in paths.values():
                path.unlink()


def _written(folder: Path) -> dict[int, dict[int, Path]]:
    """Files by step and number of the scan."""
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob("*_rejected.nii.gz"):
        match = _FILE.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    return found
