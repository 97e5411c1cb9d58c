"""What a network says of a volume that it sees in one plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hetseg_bids.network.architecture import DOWNSAMPLING, HetsegNet, NetworkConfig
from hetseg_bids.network.devices import autocast
from hetseg_bids.network.models import Model, Plan
from hetseg_bids.network.systems import Heteroscedastic
from hetseg_bids.planes import PLANES, Plane
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.number_formats import inference_format
from hetseg_bids.preprocessing.transfer import CPU

OUTSIDE_LOGIT = -20.0
"""Logit, and second output of any system, where a structure certainly isn't."""

_CHUNK = {"cpu": 8, "cuda": 32, "mps": 16}  # slices per pass


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

    def added(self, logits: Tensor) -> Tensor:
        """What is averaged of the (N, C) outputs of some pixels, in float32."""
        if self.pooled is None:
            return logits.float()
        label, second_output = logits.chunk(2, dim=1)
        return torch.cat((label.float(), self.pooled.evidence(label, second_output)), dim=1)


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
    >>> from hetseg_bids.preprocessing.transfer import CPU
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
    where: Tensor | None = None,
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
    where : (x, y, z) bool tensor, optional
        Voxels whose logits are wanted, on the same device; all by default. Passes without any are
        left out.
    progress : callable, optional
        Called with the number of slices just done.
    """
    network, plane = view.network, view.plane
    device = next(network.parameters()).device
    keep, kind = view.keep.to(device), inference_format(device)
    reach = network.config.reach
    seen = image.flip(0) if view.mirrored else image
    stack, (top, left) = _padded_stack(seen, plane, view.patch, network.config)
    wanted = _in_stack_order(where, image, view)
    first, (on, down, across) = _numbering(image.shape, view)
    voxels = total.permute(1, 2, 3, 0).flatten(0, 2)
    depth = image.shape[plane.axes[0]]
    chunk = _CHUNK.get(device.type, 8)
    for start in range(0, depth, chunk):
        stop = min(start + chunk, depth)
        if wanted[start:stop].any():
            block = stack[start : stop + 2 * reach].to(device)
            places = [torch.nonzero(slice_, as_tuple=True) for slice_ in wanted[start:stop]]
            pixels = [(top + row) * stack.shape[2] + left + column for row, column in places]
            half = view.half and kind != torch.float32
            with torch.inference_mode(), autocast(device, enabled=half, dtype=kind):
                said = network.forward_pixels(block, [p.to(device) for p in pixels], keep)
                for number, ((row, column), logits) in enumerate(
                    zip(places, said, strict=True), start
                ):
                    into = first + number * on + row * down + column * across
                    voxels.index_add_(0, into, view.added(logits).to(total.device))
        if progress is not None:
            progress(stop - start)


def _in_stack_order(where: Tensor | None, image: Tensor, view: View) -> Tensor:
    """Which voxels are wanted: (slices, rows, columns) bool."""
    if where is None:
        where = torch.ones(image.shape, dtype=torch.bool, device=image.device)
    return (where.flip(0) if view.mirrored else where).permute(*view.plane.axes)


def _numbering(shape: Sequence[int], view: View) -> tuple[int, tuple[int, int, int]]:
    """Number of the first voxel in stack order, and the way to the next slice, row and column.

    Examples
    --------
    >>> view = View(None, PLANES["coronal"], (8, 8), torch.arange(2), mirrored=True)
    >>> _numbering((5, 4, 3), view)  # slices along y, rows along x, columns along z
    (48, (3, -12, 1))
    """
    x, y, z = shape
    first, steps = 0, [y * z, z, 1]
    if view.mirrored:
        first, steps[0] = (x - 1) * steps[0], -steps[0]
    on, down, across = (steps[axis] for axis in view.plane.axes)
    return first, (on, down, across)


def _padded_stack(
    image: Tensor, plane: Plane, patch: tuple[int, int], config: NetworkConfig
) -> tuple[Tensor, tuple[int, int]]:
    """The volume in stack order, padded to the size on which the network was trained.

    With it comes the row and the column of the padded slices where the volume's first ones are.

    Instance norm sees the whole slice, so a slice must hold about as much background
    as the training stacks did.
    """
    stack = image.permute(*plane.axes)
    depth, *size = stack.shape
    padded = [max(n, p) for n, p in zip(size, patch, strict=True)]
    padded = [-(-n // DOWNSAMPLING) * DOWNSAMPLING for n in padded]
    reach = config.reach
    top, left = ((p - n) // 2 for n, p in zip(size, padded, strict=True))
    out = torch.full((depth + 2 * reach, *padded), BACKGROUND, device=image.device)
    out[reach : reach + depth, top : top + size[0], left : left + size[1]] = stack
    return out, (top, left)


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
