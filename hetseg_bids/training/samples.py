"""From volumes to the stacks a network is trained on.

The stream of samples is a function of the seed alone: block b of it comes from
``default_rng((seed, b))``, so neither the number of workers nor an interruption
changes what the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from hetseg_bids.network import STACK_DEPTH
from hetseg_bids.planes import PLANES, Plane
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.structures import ASEG, LabelSet
from hetseg_bids.training.augmentation import (
    AugmentationConfig,
    StackTransform,
    sample_transform,
)
from hetseg_bids.training.tasks import mirror_tasks
from hetseg_bids.training.volumes import LabelledVolume, VolumeSource


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
        Share of stacks centred on a slice through a random structure, so that small
        structures are seen often; the others cut a uniform slice of the brain.
    augmentation : AugmentationConfig
    """

    patch: tuple[int, int] = (176, 144)
    volumes_per_block: int = 6
    stacks_per_volume: int = 32
    structure_rate: float = 0.5
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)

    @property
    def block_size(self) -> int:
        """Samples a block."""
        return self.volumes_per_block * self.stacks_per_volume


@dataclass(frozen=True)
class Block:
    """Samples in the order they are trained on.

    Attributes
    ----------
    images : (N, 1, 7, H, W) float16 tensor
    labels : (N, H, W) uint8 tensor
        aseg ids of the middle slice.
    rejected : (N, H, W) int32 tensor or None
        See `LabelledVolume`.
    """

    images: Tensor
    labels: Tensor
    rejected: Tensor | None


class BlockDataset(Dataset[Block]):
    """Blocks by number: the same number gives the same block, on any worker.

    Parameters
    ----------
    source : VolumeSource
    config : SamplingConfig
    seed : int
    label_set : LabelSet
    """

    def __init__(
        self,
        source: VolumeSource,
        config: SamplingConfig,
        seed: int,
        label_set: LabelSet = ASEG,
    ) -> None:
        self.source = source
        self.config = config
        self.seed = seed
        self.label_set = label_set

    def __getitem__(self, number: int) -> Block:
        rng = np.random.default_rng((self.seed, number))
        stacks: list[Stack] = []
        for _ in range(self.config.volumes_per_block):
            volume = self.source.draw(rng)
            count = self.config.stacks_per_volume
            stacks += [
                cut_random_stack(rng, volume, self.config, self.label_set) for _ in range(count)
            ]
        stacks = [stacks[i] for i in rng.permutation(len(stacks))]
        rejected = [s.rejected for s in stacks if s.rejected is not None]
        return Block(
            torch.stack([s.image for s in stacks])[:, None],
            torch.stack([s.labels for s in stacks]),
            torch.stack(rejected) if rejected else None,
        )


@dataclass(frozen=True)
class Stack:
    """One sample.

    Attributes
    ----------
    image : (7, H, W) float16 tensor
    labels : (H, W) uint8 tensor
        Of the middle slice.
    rejected : (H, W) int32 tensor or None
    """

    image: Tensor
    labels: Tensor
    rejected: Tensor | None


def cut_random_stack(
    rng: np.random.Generator, volume: LabelledVolume, config: SamplingConfig, label_set: LabelSet
) -> Stack:
    """One augmented stack and the labels of its middle slice."""
    plane = list(PLANES.values())[rng.integers(len(PLANES))]
    transform = sample_transform(rng, config.augmentation)
    across = _random_slice(rng, volume, plane, config.structure_rate, label_set)
    centre = (np.array(volume.labels.shape) - 1) / 2
    centre[plane.axes[0]] = across
    return resample_stack(volume, plane, centre, transform, config.patch, label_set)


def _random_slice(
    rng: np.random.Generator,
    volume: LabelledVolume,
    plane: Plane,
    structure_rate: float,
    label_set: LabelSet,
) -> float:
    present = volume.presence[plane.axes[0]]
    if rng.random() < structure_rate:
        structure = label_set.structures[rng.integers(len(label_set.structures))]
        places = np.flatnonzero(present[:, list(structure.members)].any(axis=1))
    else:
        places = np.flatnonzero(present[:, 1:].any(axis=1))
    if not len(places):
        places = np.arange(len(present))
    return float(places[rng.integers(len(places))])


def resample_stack(
    volume: LabelledVolume,
    plane: Plane,
    centre: np.ndarray,
    transform: StackTransform,
    patch: tuple[int, int],
    label_set: LabelSet = ASEG,
) -> Stack:
    """Cut the stack whose middle pixel is `centre`, through the transform.

    Parameters
    ----------
    volume : LabelledVolume
    plane : Plane
    centre : (3,) float array
        Voxel of the volume that becomes the middle of the stack, before the shift.
    transform : StackTransform
    patch : tuple of 2 int
        Rows and columns.
    label_set : LabelSet
        Says which labels change places in a mirrored stack.
    """
    sizes = (STACK_DEPTH, *patch)
    shift = (0.0, *transform.offset)
    offsets = [
        torch.arange(n, dtype=torch.float32) - (n - 1) // 2 + float(s)
        for n, s in zip(sizes, shift, strict=True)
    ]
    basis = torch.zeros(3, 3)  # column i: step of stack axis i, in source voxels
    for i, axis in enumerate(plane.axes):
        basis[:, i] = torch.from_numpy(transform.matrix[:, axis])
    shape = torch.tensor(volume.image.shape, dtype=torch.float32)
    origin = torch.from_numpy(np.asarray(centre, dtype=np.float32))
    points = (
        origin
        + offsets[0].view(-1, 1, 1, 1) * basis[:, 0]
        + offsets[1].view(1, -1, 1, 1) * basis[:, 1]
        + offsets[2].view(1, 1, -1, 1) * basis[:, 2]
    )
    # grid_sample wants (z, y, x) in -1..1
    grid = (2 * points / (shape - 1) - 1).flip(-1)[None]
    image = (volume.image - BACKGROUND)[None, None]
    stack = functional.grid_sample(image, grid, mode="bilinear", align_corners=True)[0, 0]
    stack = stack * transform.scale + (BACKGROUND + transform.shift)
    middle = points[STACK_DEPTH // 2]
    labels = _nearest(volume.labels, middle)
    rejected = None if volume.rejected is None else _nearest(volume.rejected, middle)
    if transform.mirrored:
        labels = torch.from_numpy(label_set.mirror_labels())[labels.to(torch.int64)]
        rejected = None if rejected is None else mirror_tasks(rejected, label_set)
    return Stack(stack.to(torch.float16), labels, rejected)


def _nearest(labels: Tensor, points: Tensor) -> Tensor:
    flat = torch.zeros(points.shape[:-1], dtype=torch.int64)
    inside = torch.ones(points.shape[:-1], dtype=torch.bool)
    for axis, size in enumerate(labels.shape):
        index = points[..., axis].round().to(torch.int64)
        inside &= (index >= 0) & (index < size)
        flat = flat * size + index.clamp(0, size - 1)
    return torch.where(inside, labels.reshape(-1)[flat], torch.zeros((), dtype=labels.dtype))
