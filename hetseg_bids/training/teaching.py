"""Learning from a model that is trained already, beside the labels (Hinton et al. 2015).

The teacher sees each training volume as inference shows it a scan: three planes, mean logits. The
network learns the teacher's probability and flip probability of every structure from single
stacks. Stacks are mirrored at random and the teacher's maps with them, so that the network treats
both sides alike on the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.flip import flip_focal, logistic
from hetseg_bids.network.models import Model
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.segmentation.inference import brain_box, mean_outputs, near_mask, separate_
from hetseg_bids.segmentation.labels import (
    LEVELS,
    MAX_FLIP_PROBABILITY,
    MAX_PROBABILITY,
    to_levels,
)
from hetseg_bids.segmentation.views import views_of
from hetseg_bids.training.volumes import LabelledVolume, VolumeSource


@dataclass(frozen=True)
class TaughtSource:
    """Volumes of another source with the maps of a teacher.

    Attributes
    ----------
    source : VolumeSource
    teacher : Model
        A label-flip model that labels what is learned.
    """

    source: VolumeSource
    teacher: Model

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """A volume of the source with `LabelledVolume.taught`."""
        volume = self.source.draw(rng)
        return replace(volume, taught=taught_maps(self.teacher, volume.image))

    def fingerprint(self) -> dict[str, object]:
        """That of the source, with the checksum of the teacher's weights."""
        return {**self.source.fingerprint(), "teacher": self.teacher.plan.weights_sha256}


def taught_maps(teacher: Model, image: Tensor) -> Tensor:
    """Probabilities of the structures and their flip probabilities, as the teacher has them.

    Parameters
    ----------
    teacher : Model
    image : (X, Y, Z) float32 tensor
        Standard scores.

    Returns
    -------
    maps : (X, Y, Z, 2 S) uint8 tensor
        sigmoid(a) in steps of 1/255, then flip probabilities in steps of 1/510. Of mean logits of
        three planes that are neither smoothed nor freed of islands, as a network learns logits
        that inference treats afterwards.
    """
    count = len(teacher.plan.label_set.structures)
    maps = torch.zeros(*image.shape, 2 * count, dtype=torch.uint8, device=image.device)
    inside = image != BACKGROUND
    if not inside.any():
        return maps
    box = brain_box(inside)
    views, near = views_of(teacher, mirror=False), near_mask(inside[box])
    mean = mean_outputs(teacher, image[box], views, near=near)
    said = separate_(mean, teacher.plan, box)
    assert said.system is not None  # noqa: S101 (only label-flip teaches)
    assert said.second_output is not None  # noqa: S101
    q = said.system.flip_probability(said.label, said.second_output)
    levels = (to_levels(logistic(said.label), MAX_PROBABILITY), to_levels(q, MAX_FLIP_PROBABILITY))
    maps[box] = torch.cat(levels).permute(1, 2, 3, 0).to(image.device)
    return maps


@torch.no_grad()
def hints(model: HetsegNet, stacks: Tensor) -> Tensor:
    """What a model's encoder finds, for another encoder to find (Romero et al. 2015, "FitNets").

    Parameters
    ----------
    model : HetsegNet
        Where it takes more slices than the stacks have, the outermost are repeated.
    stacks : (B, 1, D, H, W) float tensor

    Returns
    -------
    found : (B, C, H/2, W/2) float tensor
    """
    missing = (model.config.depth.slices - stacks.shape[2]) // 2
    whole = functional.pad(stacks, (0, 0, 0, 0, missing, missing), mode="replicate")
    return model.encoded(whole).float()


def teaching_losses(output: Tensor, taught: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of a label-flip network's outputs from the teacher's maps.

    Parameters
    ----------
    output : (B, 2 T, H, W) float tensor
        Label logits and flip logits of T tasks; those of the structures come first.
    taught : (B, H, W, 2 S) uint8 tensor
        See `taught_maps`.

    Returns
    -------
    losses : (B, S, H, W) tensor
        The cross-entropy of the probabilities plus the focal loss expected at the teacher's flip
        probability.
    probability : (B, S, H, W) tensor
        The teacher's.

    Examples
    --------
    >>> taught = torch.zeros(1, 8, 8, 56, dtype=torch.uint8)  # no structure, and sure of it
    >>> losses, probability = teaching_losses(torch.full((1, 62, 8, 8), -20.0), taught)
    >>> losses.max() < 1e-6, probability.shape
    (tensor(True), torch.Size([1, 28, 8, 8]))
    """
    label, flip_logits = output.chunk(2, dim=1)
    count = taught.shape[-1] // 2
    maps = taught.permute(0, 3, 1, 2).float() / LEVELS
    probability, flip_probability = maps[:, :count], maps[:, count:] * MAX_FLIP_PROBABILITY
    known = label[:, :count]
    fit = functional.binary_cross_entropy_with_logits(known, probability, reduction="none")
    return fit + flip_focal(flip_logits[:, :count], flip_probability), probability
