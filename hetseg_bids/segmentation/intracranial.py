"""The inside of the skull: its mask and volume, with an interval.

A small network sees the whole head at 2 mm, before the brain is extracted. What counts: brain,
ventricles, the fluid around the brain, meninges and venous sinuses, down to 3 mm below the
cerebellum, about the foramen magnum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from hetseg_bids.images import Grid
from hetseg_bids.network.models import Model
from hetseg_bids.network.systems import Heteroscedastic
from hetseg_bids.preprocessing.conform import resample
from hetseg_bids.preprocessing.field import largest_piece
from hetseg_bids.preprocessing.head import Head, near_skull
from hetseg_bids.preprocessing.pipeline import PreparedImage, cut_area
from hetseg_bids.preprocessing.transfer import to_device, to_host, volume_device
from hetseg_bids.segmentation.inference import brain_box, draw_borders_, mean_outputs
from hetseg_bids.segmentation.labels import Segmentation, covering_box
from hetseg_bids.segmentation.mask_fit import MaskFit
from hetseg_bids.segmentation.uncertainty import FlipSums, StructureUncertainty
from hetseg_bids.segmentation.views import views_of
from hetseg_bids.structures.head import INTRACRANIAL, WHOLE_BRAIN

_OUTSIDE = -8.0  # logit
_HOLE = 0.5  # logit of holes in the mask, which are bone or air that the network took for outside
_LARGEST_CUT_CM2 = 10.0  # a cap of 1 ml is missing then
_RANGE_ML = (700.0, 2600.0)  # a newborn's is smaller; none was trained on
_LEAST_BRAIN = 0.97  # of the labelled voxels have to lie inside

_SHARED = 0.65  # of the flip variance: an error all around the brain has one sign
_SHARE = 0.01  # of the volume, beyond what the flip map says
_REPEAT_SHARE = 0.005  # more than copies of three heads differ (docs/intracranial.md)

STRIPPED = (
    "the image is stripped, or was given as stripped: what lies between brain and skull isn't in it"
)


@dataclass(frozen=True)
class Intracranial:
    """What is known of the inside of the skull.

    Attributes
    ----------
    mask : (X, Y, Z) uint8 array or None
        On the grid of the results; None where there is no volume.
    volume_mm3 : float
        Of the mask; NaN where it isn't known.
    uncertainty : StructureUncertainty or None
        Of the mask at 2 mm, in voxels of 8 mm3.
    reason : str or None
        Why the volume isn't known.
    doubts : tuple of str
        Why the brain mask doesn't fit this head (`MaskFit`); empty for a stripped image.
    """

    mask: npt.NDArray[np.uint8] | None
    volume_mm3: float
    uncertainty: StructureUncertainty | None
    reason: str | None
    doubts: tuple[str, ...] = ()

    @classmethod
    def unknown(cls, reason: str) -> Intracranial:
        """No volume, and why."""
        return cls(None, float("nan"), None, reason)


def measure_intracranial(
    model: Model, prepared: PreparedImage, result: Segmentation
) -> Intracranial:
    """Find the inside of the skull, and whether the brain mask fits it.

    Parameters
    ----------
    model : Model
        `load_head_model`.
    prepared : PreparedImage
    result : Segmentation
        The structures, which have to lie inside.

    Returns
    -------
    found : Intracranial
        Without a volume, but with the reason, where the image can't tell: never a guess.
    """
    if prepared.head is None:
        return Intracranial.unknown(STRIPPED)
    seen, grid = see_head(model, prepared.head), prepared.head.grid
    found = _measured(seen, volume_device(model.device), prepared, result)
    skull_ml = float((seen.inside > 0).sum()) * grid.voxel_volume / 1000
    if not _RANGE_ML[0] <= skull_ml <= _RANGE_ML[1]:
        return found  # the head model failed: nothing to compare with
    fit = MaskFit.of(prepared.mask, prepared.working, seen.inside, seen.brain, grid)
    return replace(found, doubts=fit.doubts)


def _measured(
    seen: SeenHead, device: torch.device, prepared: PreparedImage, result: Segmentation
) -> Intracranial:
    """The volume and its mask, or why there is none."""
    assert prepared.head is not None  # noqa: S101 (it was seen)
    logits, grid = seen.inside, prepared.head.grid
    cut = cut_area(logits > 0, grid, prepared.native, prepared.content)
    if cut > _LARGEST_CUT_CM2:
        return Intracranial.unknown(f"the image ends inside the skull ({cut:.0f} cm2)")
    mask = mask_on(to_device(logits, device), grid, result.grid)
    volume = float(mask.sum()) * result.grid.voxel_volume
    low, high = _RANGE_ML
    if not low <= volume / 1000 <= high:
        return Intracranial.unknown(f"{volume / 1000:.0f} ml were found, which isn't one skull")
    brain = result.dseg > 0
    inside = float(mask[result.box][brain].mean()) if brain.any() else 0.0
    if inside < _LEAST_BRAIN:
        return Intracranial.unknown(f"{1 - inside:.0%} of the labelled brain lie outside its mask")
    return Intracranial(mask, volume, seen.uncertainty, None)


@dataclass(frozen=True)
class SeenHead:
    """What the head model makes of a head, on the head's grid.

    Attributes
    ----------
    inside, brain : (x, y, z) float32 tensors
        Logits of being inside the skull, and of being brain: one piece without holes each.
    uncertainty : StructureUncertainty
        Of the inside of the skull: sums over voxels of 2 mm.
    """

    inside: Tensor
    brain: Tensor
    uncertainty: StructureUncertainty


def see_head(model: Model, head: Head) -> SeenHead:
    """Run the head model: one view of the head, then all of what lies near the skull.

    Parameters
    ----------
    model : Model
        `load_head_model`.
    head : Head
    """
    system = model.plan.system
    assert isinstance(system, Heteroscedastic)  # noqa: S101 (the shipped model is label-flip)
    # so few channels are slower in bfloat16
    views = [replace(view, half=False) for view in views_of(model)]
    names = model.plan.label_set.names
    place, brain_place = names.index(INTRACRANIAL.name), names.index(WHOLE_BRAIN.name)
    rough = to_host(mean_outputs(model, head.scores, views[-1:]))[place].contiguous()
    near, box = head, (slice(None),) * 3
    if _one_piece_(rough).any():
        near, box = near_skull(head, rough > 0)
    outputs = to_host(mean_outputs(model, near.scores, views))
    draw_borders_(outputs[: len(names)], model.plan)
    label, second = outputs[place].contiguous(), outputs[len(names) + place].contiguous()
    q = system.flip_probability(label, second)
    mask = _one_piece_(label)
    inside = torch.full(head.scores.shape, _OUTSIDE)
    brain = torch.full_like(inside, _OUTSIDE)
    inside[box], brain[box] = label, outputs[brain_place]
    _one_piece_(brain)
    return SeenHead(inside, brain, FlipSums.of(mask, q.numpy()[None]).summaries()[0])


def _one_piece_(label: Tensor) -> npt.NDArray[np.bool_]:
    """Leave one piece without holes in the (x, y, z) logits; returns its mask."""
    found = (label > 0).numpy()
    mask = np.asarray(ndimage.binary_fill_holes(largest_piece(found)), bool)
    label[torch.from_numpy(found & ~mask)] = _OUTSIDE
    label[torch.from_numpy(mask & ~found)] = _HOLE
    return mask


def mask_on(logits: Tensor, source: Grid, target: Grid) -> npt.NDArray[np.uint8]:
    """The mask on another grid, decided after resampling: (X, Y, Z) uint8 array."""
    mask = np.zeros(target.shape[::-1], np.uint8).T  # x runs fastest, as in a NIfTI file
    if not (logits > 0).any():
        return mask
    inner = brain_box(logits > 0)
    part = source.part(inner)
    box = covering_box(part, target)
    there = resample(logits[None, *inner], part, target.part(box), outside=_OUTSIDE)[0]
    mask[box] = to_host(there > 0).numpy()
    return mask


def volume_sd(volume_mm3: float, flip_variance_mm3: float) -> float:
    """Standard deviation of a reference's volume about hetseg's, mm3.

    Parameters
    ----------
    volume_mm3 : float
    flip_variance_mm3 : float
        `StructureUncertainty.flip_variance` times the volume of a voxel.

    Examples
    --------
    >>> round(volume_sd(1.5e6, 3e4) / 1000, 1)  # ml
    24.6
    """
    return float(np.hypot(_SHARED * flip_variance_mm3, _SHARE * volume_mm3))


def repeat_sd(volume_mm3: float) -> float:
    """Standard deviation of the volume over scans of one head, mm3."""
    return _REPEAT_SHARE * volume_mm3
