"""From volumes to the stacks on which a network is trained.

The stream of samples depends on the seed alone: its block b comes from ``default_rng((seed,
b))``. So neither the number of workers nor an interruption changes the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from hetseg_bids.network.architecture import StackDepth
from hetseg_bids.planes import PLANES, Plane
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.training.augmentation import (
    AugmentationConfig,
    StackTransform,
    sample_transform,
)
from hetseg_bids.training.tasks import mirror_tasks
from hetseg_bids.training.volumes import LabelledVolume, VolumeSource

_PAPER = StackDepth()


@dataclass(frozen=True)
class SamplingConfig:
    """How stacks are cut.

    Attributes
    ----------
    patch : tuple of 2 int
        Rows and columns of a stack, voxels.
    volumes_per_block, stacks_per_volume : int
        A block of samples is drawn from that many volumes and shuffled.
    structure_rate : float
        Share of stacks whose middle slice holds a random structure, 0-1, so that small
        structures are seen often; the middle of the others is any slice of the brain.
    augmentation : AugmentationConfig
    """

    patch: tuple[int, int] = (176, 144)
    volumes_per_block: int = 6
    stacks_per_volume: int = 32
    structure_rate: float = 0.5
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    @property
    def block_size(self) -> int:
        """Samples per block."""
        return self.volumes_per_block * self.stacks_per_volume


@dataclass(frozen=True)
class Lesson:
    """What a teacher knows of the samples of a block.

    Attributes
    ----------
    maps : (N, L, H, W, 2 S) uint8 tensor
        See `LabelledVolume.taught`.
    known : (N,) bool tensor
        Whether the sample has a teacher; the maps of others are zero.
    """

    maps: Tensor
    known: Tensor

    def taken(self, which: slice | Tensor) -> Lesson:
        """Those of some of the samples."""
        return Lesson(self.maps[which], self.known[which])


@dataclass(frozen=True)
class Block:
    """Samples in the order in which they are trained on.

    Attributes
    ----------
    images : (N, 1, D, H, W) float16 tensor
        Stacks of D slices, standard scores.
    labels : (N, L, H, W) uint8 tensor
        aseg ids of the labelled slices.
    rejected : (N, L, H, W) int32 tensor or None
        See `LabelledVolume`.
    lesson : Lesson or None
        None where no sample has a teacher.
    told : (N, P) bool tensor or None
        Whether the labels have each of the P parts; None where there are no parts to learn.
    """

    images: Tensor
    labels: Tensor
    rejected: Tensor | None = None
    lesson: Lesson | None = None
    told: Tensor | None = None

    def taken(self, which: slice | Tensor) -> Block:
        """Some of the samples."""
        rejected = None if self.rejected is None else self.rejected[which]
        lesson = None if self.lesson is None else self.lesson.taken(which)
        told = None if self.told is None else self.told[which]
        return Block(self.images[which], self.labels[which], rejected, lesson, told)


def joined(parts: Sequence[Block]) -> Block:
    """Samples one after the other, on the CPU.

    Where one of the parts has a lesson or rejected labels, the others have a lesson that isn't
    known and no rejected label.
    """
    masks = [part.rejected for part in parts]
    told = [part.told for part in parts if part.told is not None]
    maps = [None if part.lesson is None else part.lesson.maps for part in parts]
    counts = [len(part.labels) for part in parts]
    lesson = None
    if any(part.lesson is not None for part in parts):
        known = [torch.full((len(part.labels),), part.lesson is not None) for part in parts]
        lesson = Lesson(_filled(maps, counts), torch.cat(known))
    return Block(
        torch.cat([part.images for part in parts]).cpu(),
        torch.cat([part.labels for part in parts]).cpu(),
        _filled(masks, counts) if any(mask is not None for mask in masks) else None,
        lesson,
        torch.cat(told) if told else None,
    )


def _filled(parts: Sequence[Tensor | None], counts: Sequence[int]) -> Tensor:
    """Rows one after the other, zeros where a part has none: at least one has some."""
    empty = next(part for part in parts if part is not None)[:0]
    rows = [
        empty.new_zeros(count, *empty.shape[1:]) if part is None else part
        for part, count in zip(parts, counts, strict=True)
    ]
    return torch.cat(rows).cpu()


class BlockDataset(Dataset[Block]):
    """Blocks by number: the same number gives the same block, on any worker.

    Parameters
    ----------
    source : VolumeSource
    config : SamplingConfig
    seed : int
    label_set : LabelSet
    depth : StackDepth
    """

    def __init__(
        self,
        source: VolumeSource,
        config: SamplingConfig,
        seed: int,
        label_set: LabelSet = ASEG,
        depth: StackDepth = _PAPER,
    ) -> None:
        self.source = source
        self.config = config
        self.seed = seed
        self.label_set = label_set
        self.depth = depth

    def __getitem__(self, number: int) -> Block:
        rng = np.random.default_rng((self.seed, number))
        parts: list[Block] = []
        for _ in range(self.config.volumes_per_block):
            volume = self.source.draw(rng)
            parts += self._cut(rng, volume)
        order = torch.from_numpy(rng.permutation(self.config.block_size))
        return joined(parts).taken(order)

    def _cut(self, rng: np.random.Generator, volume: LabelledVolume) -> list[Block]:
        config, count = self.config, self.config.stacks_per_volume
        cuts = [draw_cut(rng, volume, config, self.label_set) for _ in range(count)]
        # the caches of a CPU hold one stack at a time; a GPU is faster with many at once
        together = 1 if volume.image.device.type == "cpu" else count
        return [
            resample_stacks(
                volume, cuts[i : i + together], config.patch, self.label_set, self.depth
            )
            for i in range(0, count, together)
        ]


@dataclass(frozen=True)
class Cut:
    """Where and how a stack is cut out of a volume.

    Attributes
    ----------
    plane : Plane
    centre : (3,) float array
        Voxel of the volume that becomes the middle of the stack; the in-plane shift is added.
    transform : StackTransform
    """

    plane: Plane
    centre: npt.NDArray[np.float64]
    transform: StackTransform


def draw_cut(
    rng: np.random.Generator, volume: LabelledVolume, config: SamplingConfig, label_set: LabelSet
) -> Cut:
    """Draw a slice of a random plane, and an augmentation."""
    plane = list(PLANES.values())[rng.integers(len(PLANES))]
    transform = sample_transform(rng, config.augmentation)
    across = _random_slice(rng, volume, plane, config.structure_rate, label_set)
    centre = (np.array(volume.labels.shape) - 1) / 2
    centre[plane.axes[0]] = across
    return Cut(plane, centre, transform)


def _random_slice(
    rng: np.random.Generator,
    volume: LabelledVolume,
    plane: Plane,
    structure_rate: float,
    label_set: LabelSet,
) -> float:
    present = volume.presence[plane.axes[0]]
    if rng.random() < structure_rate:
        told = zip(label_set.parts, volume.tells(label_set.parts), strict=True)
        wanted = (*label_set.structures, *(part for part, here in told if here))
        structure = wanted[rng.integers(len(wanted))]
        places = np.flatnonzero(present[:, list(structure.members)].any(axis=1))
    else:
        places = np.flatnonzero(present[:, 1:].any(axis=1))
    if not len(places):
        places = np.arange(len(present))
    return float(places[rng.integers(len(places))])


def resample_stacks(
    volume: LabelledVolume,
    cuts: Sequence[Cut],
    patch: tuple[int, int],
    label_set: LabelSet = ASEG,
    depth: StackDepth = _PAPER,
) -> Block:
    """Cut stacks out of a volume, on its device.

    Parameters
    ----------
    volume : LabelledVolume
    cuts : sequence of N Cut
    patch : tuple of 2 int
        Rows and columns.
    label_set : LabelSet
        Its labels of the two sides are exchanged in a mirrored stack.
    depth : StackDepth

    Returns
    -------
    block : Block
        One sample per cut, in the same order.

    Examples
    --------
    >>> from hetseg_bids.planes import AXIAL
    >>> volume = LabelledVolume(torch.zeros(32, 32, 32), torch.zeros(32, 32, 32, dtype=torch.uint8))
    >>> transform = StackTransform(np.eye(3), False, np.zeros(2), 1.0, 0.0)
    >>> block = resample_stacks(volume, [Cut(AXIAL, np.full(3, 15.5), transform)], (24, 16))
    >>> block.images.shape, block.labels.shape
    (torch.Size([1, 1, 7, 24, 16]), torch.Size([1, 1, 24, 16]))
    """
    device = volume.image.device
    points = _points(volume, cuts, (depth.slices, *patch))
    shape = torch.tensor(volume.image.shape, dtype=torch.float32, device=device)
    # grid_sample wants (z, y, x) in -1..1
    grid = (2 * points / (shape - 1) - 1).flip(-1).flatten(0, 1)[None]
    image = (volume.image - BACKGROUND)[None, None]
    stacks = functional.grid_sample(image, grid, mode="bilinear", align_corners=True)
    scale, shift, mirrored = (
        torch.tensor(values, device=device).view(-1, 1, 1, 1)
        for values in (
            [cut.transform.scale for cut in cuts],
            [BACKGROUND + cut.transform.shift for cut in cuts],
            [cut.transform.mirrored for cut in cuts],
        )
    )
    stacks = stacks.view(points.shape[:-1]) * scale + shift
    middle = points.narrow(1, (depth.slices - depth.labelled) // 2, depth.labelled)
    labels = _nearest(volume.labels, middle)
    other_side = torch.from_numpy(label_set.mirror_labels()).to(device)
    labels = torch.where(mirrored, other_side[labels.to(torch.int64)], labels)
    rejected = None
    if volume.rejected is not None:
        rejected = _nearest(volume.rejected, middle)
        rejected = torch.where(mirrored, mirror_tasks(rejected, label_set), rejected)
    lesson = _lesson(volume, middle, mirrored, label_set)
    told = torch.tensor([volume.tells(label_set.parts)] * len(cuts)) if label_set.parts else None
    return Block(stacks.to(torch.float16)[:, None], labels, rejected, lesson, told)


def _lesson(
    volume: LabelledVolume, points: Tensor, mirrored: Tensor, label_set: LabelSet
) -> Lesson | None:
    """The teacher's maps at (N, L, H, W, 3) points, those of the other side in mirrored stacks."""
    if volume.taught is None:
        return None
    maps = _nearest(volume.taught, points)
    count = len(label_set.structures)
    order = torch.from_numpy(label_set.mirror_permutation()[:count])
    turned = maps[..., torch.cat((order, count + order))]
    known = torch.ones(len(points), dtype=torch.bool)
    return Lesson(torch.where(mirrored[..., None], turned, maps), known)


def _points(volume: LabelledVolume, cuts: Sequence[Cut], shape: tuple[int, int, int]) -> Tensor:
    """Voxel of the volume under each voxel of the stacks: (N, D, H, W, 3)."""
    device = volume.image.device
    origins = torch.from_numpy(np.array([cut.centre for cut in cuts], dtype=np.float32)).to(device)
    # step i: along stack axis i, in voxels of the volume
    steps = [[cut.transform.matrix[:, axis] for axis in cut.plane.axes] for cut in cuts]
    basis = torch.from_numpy(np.array(steps, dtype=np.float32)).to(device)
    shifts = [(0.0, *cut.transform.offset) for cut in cuts]
    offsets = torch.from_numpy(np.array(shifts, dtype=np.float32)).to(device)
    points = origins.view(-1, 1, 1, 1, 3)
    for i, size in enumerate(shape):
        line = torch.arange(size, dtype=torch.float32, device=device) - (size - 1) // 2
        view = [-1 if i == j else 1 for j in range(3)]
        along = (line + offsets[:, i : i + 1]).view(len(cuts), *view, 1)
        points = points + along * basis[:, i].view(-1, 1, 1, 1, 3)
    return points


def _nearest(labels: Tensor, points: Tensor) -> Tensor:
    flat = torch.zeros(points.shape[:-1], dtype=torch.int64, device=points.device)
    inside = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
    for axis, size in enumerate(labels.shape[:3]):
        index = points[..., axis].round().to(torch.int64)
        inside &= (index >= 0) & (index < size)
        flat = flat * size + index.clamp(0, size - 1)
    values = labels.flatten(0, 2)[flat]
    inside = inside.view(*inside.shape, *(1,) * (labels.dim() - 3))
    return torch.where(inside, values, torch.zeros((), dtype=labels.dtype, device=points.device))
