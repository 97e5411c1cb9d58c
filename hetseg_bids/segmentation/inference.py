"""Tri-planar logits of a volume.

Source: paper section 2.3 (design section 1, point 5): one network sees axial, coronal
and sagittal stacks; the ensemble's logits are the mean of the views' logits. The mirror image
is ours: it makes the network treat the two sides of the brain alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hetseg_bids.network.fitted import Border
from hetseg_bids.network.models import Model, Plan
from hetseg_bids.network.systems import Heteroscedastic, PooledEnsemble
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.head import within
from hetseg_bids.preprocessing.transfer import to_device, volume_device
from hetseg_bids.segmentation.islands import dismiss_islands_
from hetseg_bids.segmentation.smoothing import SMOOTHED, smooth_, soften
from hetseg_bids.segmentation.views import OUTSIDE_LOGIT, View, add_view_, empty_logits, views_of
from hetseg_bids.structures.label_sets import LabelSet

_MARGIN = 2  # voxels kept around the brain, where borders are still drawn
# share of the blur of resampling that is taken off the smoothing: volumes of MNI152 at 0.8 mm then
# are those at 1 mm within 3 % (with a share of 1 the third ventricle is 3.5 % larger, with 0 the
# fourth ventricle and the corpus callosum are 4.4 % smaller)
_BLUR_COUNTS = 0.75


@dataclass(frozen=True)
class Logits:
    """Ensemble logits inside a box of the working grid.

    Attributes
    ----------
    label : (S + P, x, y, z) float32 tensor
        Logit a of each of the S structures, smoothed, small detached pieces dismissed (`islands`),
        then those of P parts where they were asked for. On the device that `volume_device` says.
    second_output : (S + P, x, y, z) float32 tensor or None
        Second output of each of them, where the model has one.
    system : Heteroscedastic or None
        What the second output means: `Plan.system`, or `PooledEnsemble` for a model with a
        `Pooling`.
    box : tuple of 3 slice
        Where the box lies on the working grid.
    label_set : LabelSet
        The structures, and the parts.
    """

    label: Tensor
    second_output: Tensor | None
    system: Heteroscedastic | None
    box: tuple[slice, slice, slice]
    label_set: LabelSet

    def of_structures(self) -> Logits:
        """Those of the structures, in the same memory."""
        count = len(self.label_set.structures)
        second = None if self.second_output is None else self.second_output[:count]
        whole = replace(self.label_set, parts=())
        system = None if self.system is None else self.system.of_rows(slice(count))
        return replace(
            self,
            label=self.label[:count],
            second_output=second,
            system=system,
            label_set=whole,
        )


def predict(
    model: Model,
    image: Tensor,
    mask: Tensor,
    *,
    views: Sequence[str] = tuple(PLANES),
    mirror: bool = True,
    blur: Sequence[float] = (0.0, 0.0, 0.0),
    parts: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Logits:
    """Logits of all structures, averaged over the views.

    Parameters
    ----------
    model : Model
    image : (X, Y, Z) float32 tensor
        Standard scores, RAS, 1 mm.
    mask : (X, Y, Z) bool tensor
        Brain; the network only runs on its bounding box, and is asked about what is near it
        (`near_mask`).
    views : sequence of str
        Names of `PLANES`.
    mirror : bool
        Average over the views of the mirror image, too, turned back, if the plan does.
    blur : sequence of 3 float
        How much resampling will smooth the logits along each axis, voxels squared
        (`conform.interpolation_blur`): here they are smoothed less by most of that.
    parts : bool
        Whether the model's parts (`LabelSet.parts`) are wanted, too.
    progress : callable, optional
        Called with the number of slices just done and that of all slices.

    Returns
    -------
    logits : Logits
    """
    box = brain_box(mask)
    seen = views_of(model, views, mirror=mirror, parts=parts)
    mean = mean_outputs(model, image[box], seen, progress, near=near_mask(mask[box]))
    return to_logits_(mean, model.plan, box, blur)


def mean_outputs(
    model: Model,
    image: Tensor,
    views: Sequence[View],
    progress: Callable[[int, int], None] | None = None,
    *,
    near: Tensor | None = None,
) -> Tensor:
    """Mean outputs (`kept_outputs`) of an image, softened as planned: (C, x, y, z) float32.

    With `near`, an (x, y, z) bool tensor, only those voxels are computed: half of a brain's box is
    empty. The others are `OUTSIDE_LOGIT`. Of a network on a CUDA GPU, the outputs are there
    (`volume_device`).
    """
    there = volume_device(model.device)
    softened = soften(to_device(image, there), model.plan.smoothing)
    near = None if near is None else to_device(near, there)
    total = empty_logits(len(views[0].keep), softened.shape, there)
    slices = sum(softened.shape[view.plane.axes[0]] for view in views)
    tell = None if progress is None else lambda done: progress(done, slices)
    for view in views:
        add_view_(total, softened, view, near, progress=tell)
    return mean_of_views_(total, len(views), near)


def mean_of_views_(total: Tensor, views: int, near: Tensor | None) -> Tensor:
    """The mean from the sum of a number of views; see `mean_outputs`."""
    # equal weights: weights fitted for each structure and view changed mean Dice by 0.001 at most
    total /= views
    if near is not None:
        total += torch.where(near, 0.0, OUTSIDE_LOGIT)
    return total


def to_logits_(
    mean: Tensor,
    plan: Plan,
    box: tuple[slice, slice, slice],
    blur: Sequence[float] = (0.0, 0.0, 0.0),
) -> Logits:
    """Draw borders (`draw_borders_`), remove islands, and tell second outputs apart (`separate_`).

    Parameters
    ----------
    mean : (C, x, y, z) float32 tensor
        Mean of the views' outputs (`kept_outputs`); changes, and the result holds parts of it.
    plan : Plan
    box : tuple of 3 slice
        Where `mean` lies on the working grid.
    blur : sequence of 3 float
        See `predict`.
    """
    label = mean[: len(mean) // (1 + plan.heteroscedastic)]
    draw_borders_(label, plan, blur)
    dismiss_islands_(label[: len(plan.label_set.structures)], plan.label_set)
    return separate_(mean, plan, box)


def draw_borders_(label: Tensor, plan: Plan, blur: Sequence[float] = (0.0, 0.0, 0.0)) -> None:
    """Smooth and shift the (S, x, y, z) or (S + P, x, y, z) label logits (`Plan.borders`)."""
    rows = plan.label_set.rows[: len(label)]
    borders = [plan.borders.get(row.name, Border()) for row in rows]
    shares = torch.tensor([border.smoothing for border in borders])
    # smoothed twice, thin structures would shrink on grids that aren't the working one
    taken_off = torch.tensor([_BLUR_COUNTS * b / SMOOTHED for b in blur])
    smooth_(label, (shares[:, None] - taken_off).clamp_(min=0))
    label += torch.tensor([border.offset for border in borders], device=label.device)[
        :, None, None, None
    ]


def separate_(mean: Tensor, plan: Plan, box: tuple[slice, slice, slice]) -> Logits:
    """Label logits and second outputs, these pooled where the plan says how; see `to_logits_`."""
    rows = len(mean) // (1 + plan.heteroscedastic)
    label, second_output = mean.tensor_split([rows])
    label_set = plan.label_set
    if rows == len(label_set.structures):
        label_set = replace(label_set, parts=())
    if not isinstance(plan.system, Heteroscedastic):
        return Logits(label, None, None, box, label_set)
    if plan.pooling is None:
        return Logits(label, second_output, plan.system, box, label_set)
    second_output.mul_(plan.pooling.views).add_(label, alpha=plan.pooling.ensemble)
    known = plan.pooling.structures
    more = tuple(known.get(row.name, 0.0) for row in label_set.rows) if known else ()
    return Logits(label, second_output, PooledEnsemble(plan.pooling.answer, more), box, label_set)


def brain_box(mask: Tensor) -> tuple[slice, slice, slice]:
    """Bounding box of a mask with a margin of 2 voxels, inside the image.

    Examples
    --------
    >>> mask = torch.zeros(20, 20, 20, dtype=torch.bool)
    >>> mask[5:9, 0:4, 10:20] = True
    >>> brain_box(mask)
    (slice(3, 11, None), slice(0, 6, None), slice(8, 20, None))
    """
    box = []
    for axis, size in enumerate(mask.shape):
        others = [i for i in range(3) if i != axis]
        places = torch.nonzero(mask.any(dim=others[1]).any(dim=others[0]))
        low, high = int(places[0]), int(places[-1])
        box.append(slice(max(0, low - _MARGIN), min(size, high + 1 + _MARGIN)))
    return box[0], box[1], box[2]


def near_mask(mask: Tensor) -> Tensor:
    """A mask and all voxels up to 2 from it along each axis.

    Examples
    --------
    >>> mask = torch.zeros(9, 1, 1, dtype=torch.bool)
    >>> mask[4] = True
    >>> near_mask(mask).flatten().int()
    tensor([0, 0, 1, 1, 1, 1, 1, 0, 0], dtype=torch.int32)
    """
    return within(mask, _MARGIN)
