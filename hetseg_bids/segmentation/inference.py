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

from hetseg_bids.network.architecture import DOWNSAMPLING, HetsegNet, NetworkConfig
from hetseg_bids.network.devices import autocast, inference_format
from hetseg_bids.network.models import Border, Model, Plan
from hetseg_bids.network.systems import Heteroscedastic, PooledEnsemble
from hetseg_bids.planes import PLANES, Plane
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.transfer import CPU, to_device, volume_device
from hetseg_bids.segmentation.islands import dismiss_islands_
from hetseg_bids.segmentation.smoothing import SMOOTHED, smooth_, soften
from hetseg_bids.structures.label_sets import LabelSet

_MARGIN = 2  # voxels kept around the brain box
_CHUNK = {"cpu": 8, "cuda": 32, "mps": 16}  # slices per pass
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
        return replace(self, label=self.label[:count], second_output=second, label_set=whole)


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
        Brain; the network only runs on its bounding box.
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
    mean = mean_outputs(model, image[box], seen, progress)
    return to_logits_(mean, model.plan, box, blur)


def mean_outputs(
    model: Model,
    image: Tensor,
    views: Sequence[View],
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Mean outputs (`kept_outputs`) of an image, softened as planned: (C, x, y, z) float32.

    Of a network on a CUDA GPU, they are there (`volume_device`).
    """
    there = volume_device(model.device)
    softened = soften(to_device(image, there), model.plan.smoothing)
    total = empty_logits(len(views[0].keep), softened.shape, there)
    slices = sum(softened.shape[view.plane.axes[0]] for view in views)
    tell = None if progress is None else lambda done: progress(done, slices)
    for view in views:
        add_view_(total, softened, view, progress=tell)
    # equal weights: weights fitted for each structure and view changed mean Dice by 0.001 at most
    return total.div_(len(views))


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
    rows = (*plan.label_set.structures, *plan.label_set.parts)[: len(label)]
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
    return Logits(label, second_output, PooledEnsemble(plan.pooling.answer), box, label_set)


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


@dataclass(frozen=True)
class View:
    """A plane in which a network sees a volume or its mirror image; the ensemble is their mean.

    Attributes
    ----------
    network : HetsegNet
    plane : Plane
    patch : tuple of 2 int
        Rows and columns of the training stacks.
    keep : (C,) int64 tensor
        Outputs of the network that are wanted.
    mirrored : bool
        The network sees the mirror image; its logits are turned back.
    pooled : Heteroscedastic or None
        The network's system: instead of its second outputs their `evidence` is wanted.
    half : bool
        Whether it may compute in half precision, where the device does (`inference_format`).
    """

    network: HetsegNet
    plane: Plane
    patch: tuple[int, int]
    keep: Tensor
    mirrored: bool = False
    pooled: Heteroscedastic | None = None
    half: bool = True

    @property
    def name(self) -> str:
        """Plane, and whether it is of the mirror image."""
        return f"{self.plane.name} mirrored" if self.mirrored else self.plane.name

    def parts(self, logits: Tensor) -> tuple[Tensor, ...]:
        """What is averaged, one after the other, from the (C, rows, columns) outputs of a slice."""
        if self.pooled is None:
            return (logits,)
        label, second_output = logits.chunk(2)
        return label, self.pooled.evidence(label, second_output)


def views_of(
    model: Model,
    names: Sequence[str] = tuple(PLANES),
    *,
    mirror: bool = True,
    parts: bool = False,
) -> list[View]:
    """The views that `predict` averages: those of some planes, then those of the mirror image.

    A model whose plan leaves the mirror image out has none of it. With `parts`, they keep the
    outputs of parts, too.

    Examples
    --------
    >>> from hetseg_bids.network.devices import CPU
    >>> from hetseg_bids.network.models import load_model
    >>> [view.name for view in views_of(load_model("plain", CPU), ["axial", "coronal"])]
    ['axial', 'coronal', 'axial mirrored', 'coronal mirrored']
    >>> [view.name for view in views_of(load_model("label-flip", CPU), ["axial", "coronal"])]
    ['axial', 'coronal']
    """
    plan = model.plan
    system = plan.system if plan.pooling else None
    pooled = system if isinstance(system, Heteroscedastic) else None
    return [
        View(model.network, PLANES[name], plan.patch, keep, mirrored, pooled)
        for mirrored in ((False, True) if mirror and plan.mirror else (False,))
        for keep in (kept_outputs(plan, mirrored=mirrored, parts=parts),)
        for name in names
    ]


def add_view_(
    total: Tensor,
    image: Tensor,
    view: View,
    wanted: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Add one view's logits to `total`.

    Parameters
    ----------
    total : (C, x, y, z) float32 tensor
        As `empty_logits` makes it; changes.
    image : (x, y, z) float32 tensor
        Standard scores, on the device of `total`.
    view : View
    wanted : (slices of the plane,) bool tensor, optional
        Passes without a wanted slice are left out.
    progress : callable, optional
        Called with the number of slices just done.
    """
    network, plane = view.network, view.plane
    device = next(network.parameters()).device
    keep, kind = view.keep.to(device), inference_format(device)
    reach = network.config.reach
    seen = image.flip(0) if view.mirrored else image
    stack, window = _padded_stack(seen, plane, view.patch, network.config)
    # where the stack's (slice, row, column) axes lie in the volume
    into = total.permute(0, *(1 + axis for axis in plane.axes))
    # the stack axis that runs from left to right
    turned = plane.axes.index(0) if view.mirrored else None
    depth = image.shape[plane.axes[0]]
    chunk = _CHUNK.get(device.type, 8)
    for start in range(0, depth, chunk):
        stop = min(start + chunk, depth)
        if wanted is None or wanted[start:stop].any():
            block = stack[start : stop + 2 * reach].to(device)
            half = view.half and kind != torch.float32
            with torch.inference_mode(), autocast(device, enabled=half, dtype=kind):
                for place, logits in enumerate(network.forward_slices(block, keep), start):
                    parts = view.parts(logits[:, window[0], window[1]])
                    for part, target in zip(parts, into.chunk(len(parts)), strict=True):
                        # all channels of a voxel at once: both tensors have that memory order
                        _add_slice_(target, place, part.to(total.device), turned)
        if progress is not None:
            progress(stop - start)


def _add_slice_(into: Tensor, place: int, logits: Tensor, turned: int | None) -> None:
    """Add a slice to a (C, slices, rows, columns) view of a volume, turned back along an axis."""
    if turned is None:
        into[:, place] += logits
    elif turned == 0:
        into[:, into.shape[1] - 1 - place] += logits
    else:
        into[:, place] += logits.flip(turned)


def _padded_stack(
    image: Tensor, plane: Plane, patch: tuple[int, int], config: NetworkConfig
) -> tuple[Tensor, tuple[slice, slice]]:
    """The volume in stack order, padded to the size on which the network was trained.

    Instance norm sees the whole slice, so a slice must hold about as much background
    as the training stacks did.
    """
    stack = image.permute(*plane.axes)
    depth, *size = stack.shape
    padded = [max(n, p) for n, p in zip(size, patch, strict=True)]
    padded = [-(-n // DOWNSAMPLING) * DOWNSAMPLING for n in padded]
    reach = config.reach
    start = [(p - n) // 2 for n, p in zip(size, padded, strict=True)]
    out = torch.full((depth + 2 * reach, *padded), BACKGROUND, device=image.device)
    rows, columns = (slice(s, s + n) for s, n in zip(start, size, strict=True))
    out[reach : reach + depth, rows, columns] = stack
    return out, (rows, columns)


def kept_outputs(plan: Plan, *, mirrored: bool = False, parts: bool = False) -> Tensor:
    """Numbers of the outputs for the structures; the auxiliary tasks only help training.

    Returns
    -------
    keep : (S,) or (2 S,) int64 tensor
        In the order of the structures; for a mirrored image those of the other side. With second
        outputs, these follow in the same order. With `parts`, they come after the structures.
    """
    label_set = plan.label_set
    label = torch.arange(len(label_set.structures))
    if parts:
        first = len(label_set.tasks) - len(label_set.parts)
        label = torch.cat((label, torch.arange(first, len(label_set.tasks))))
    if mirrored:
        label = torch.from_numpy(label_set.mirror_permutation())[label]
    second = len(label_set.tasks) + label
    return torch.cat((label, second)) if plan.heteroscedastic else label


def empty_logits(channels: int, shape: Sequence[int], device: torch.device = CPU) -> Tensor:
    """Zeros of shape (channels, x, y, z), a voxel's channels side by side in memory.

    The logits of all three planes have that order, so writing them fills whole cache lines.

    Examples
    --------
    >>> logits = empty_logits(28, (10, 12, 14))
    >>> logits.shape, logits.stride()[0]
    (torch.Size([28, 10, 12, 14]), 1)
    """
    return torch.zeros(*shape, channels, device=device).permute(3, 0, 1, 2)
