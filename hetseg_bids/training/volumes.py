"""Training volumes: an image with its labels, RAS with voxels of 1 mm, all of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.structures.label_sets import MAX_ASEG_ID, Structure

FRAME = (160, 192, 160)  # voxels of 1 mm, RAS: large enough for an adult brain


def frame_affine() -> npt.NDArray[np.float64]:
    """Voxel to mm of a frame without a place in scanner space: its middle is the origin.

    Examples
    --------
    >>> frame_affine()[:3, 3]
    array([-79.5, -95.5, -79.5])
    """
    affine = np.eye(4)
    affine[:3, 3] = -(np.array(FRAME) - 1) / 2
    return affine


@dataclass(frozen=True)
class LabelledVolume:
    """One training volume.

    Attributes
    ----------
    image : (X, Y, Z) float32 tensor
        Standard scores as `preprocessing.normalisation.standardise` makes them.
    labels : (X, Y, Z) uint8 tensor
        aseg ids on which the network is trained (weak labels).
    rejected : (X, Y, Z) int32 tensor or None
        Bit t is set where the label of task t is left out of the loss.
    taught : (X, Y, Z, 2 S) uint8 tensor or None
        What a teacher knows of the S structures: `teaching.taught_maps`.
    affine : (4, 4) float array
        Voxel to scanner mm, so that images on the frame lie over the scan.
    foreign : tuple of int
        Ids that mean something else in `labels` than in the table of parts.

    Examples
    --------
    >>> labels = torch.zeros(4, 5, 6, dtype=torch.uint8)
    >>> labels[2, 3, 4] = 10
    >>> volume = LabelledVolume(labels.float(), labels)
    >>> volume.presence[0].shape, volume.presence[0][:, 10]
    ((4, 256), array([False, False,  True, False]))
    """

    image: Tensor
    labels: Tensor
    rejected: Tensor | None = None
    taught: Tensor | None = None
    affine: npt.NDArray[np.float64] = field(default_factory=frame_affine)
    foreign: tuple[int, ...] = ()

    def tells(self, parts: Sequence[Structure]) -> list[bool]:
        """Whether the labels have each of some parts, on one side at least.

        Examples
        --------
        >>> from hetseg_bids.structures.aseg import PARTS
        >>> labels = torch.tensor([2, 5, 24], dtype=torch.uint8).view(3, 1, 1)
        >>> volume = LabelledVolume(labels.float(), labels, foreign=(24,))
        >>> [part.name for part, told in zip(PARTS, volume.tells(PARTS), strict=True) if told]
        ['left_inferior_lateral_ventricle', 'right_inferior_lateral_ventricle']
        """
        there = set(np.flatnonzero(self.presence[0].any(axis=0))) - set(self.foreign)
        found = {part.bare_name for part in parts if there.intersection(part.members)}
        return [part.bare_name in found for part in parts]

    @cached_property
    def presence(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """For each axis a (size, 256) table: which ids occur in which slice."""
        labels = self.labels.int()  # an index, which uint8 isn't
        tables = []
        for axis, size in enumerate(labels.shape):
            table = torch.zeros(size, MAX_ASEG_ID + 1, dtype=torch.bool, device=labels.device)
            rows = torch.arange(size, device=labels.device)
            table[rows.view([-1 if axis == i else 1 for i in range(3)]), labels] = True
            tables.append(table.cpu().numpy())
        return tuple(tables)


class VolumeSource(Protocol):
    """Where training volumes come from."""

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """Draw a volume that depends on the state of `rng` alone."""
        ...

    def fingerprint(self) -> dict[str, object]:
        """Facts about the source for plan.json: kind, files, settings."""
        ...


@runtime_checkable
class FixedSource(VolumeSource, Protocol):
    """A fixed set of volumes, each drawn many times, whose labels can be left out."""

    def volumes(self) -> list[LabelledVolume]:
        """All of them, in a fixed order."""
        ...

    def reject(self, masks: list[Tensor]) -> None:
        """Leave labels out from now on: one `LabelledVolume.rejected` per volume."""
        ...


class MixedSource:
    """Draws from several sources.

    Parameters
    ----------
    sources : sequence of VolumeSource
    shares : sequence of float
        How often each is drawn from, relative to the others.
    """

    def __init__(self, sources: Sequence[VolumeSource], shares: Sequence[float]) -> None:
        self.sources = tuple(sources)
        total = sum(shares)
        self.shares = tuple(share / total for share in shares)

    def fingerprint(self) -> dict[str, object]:
        """Those of the sources, and how often each is drawn from."""
        parts = [source.fingerprint() for source in self.sources]
        return {"kind": "mixed", "shares": self.shares, "sources": parts}

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """A volume of one of the sources."""
        return self.sources[rng.choice(len(self.sources), p=self.shares)].draw(rng)


def frame_corner(centre: npt.NDArray[np.floating], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The voxel that becomes (0, 0, 0) when `centre` becomes the middle of `shape`.

    Examples
    --------
    >>> frame_corner(np.array([10.0, 20, 30]), (8, 8, 8))
    (6, 16, 26)
    """
    return tuple(round(float(c)) - n // 2 for c, n in zip(centre, shape, strict=True))


def centre_in_frame(
    volume: npt.NDArray[np.generic],
    centre: npt.NDArray[np.floating],
    shape: tuple[int, int, int],
    fill: float = 0,
) -> npt.NDArray[np.generic]:
    """Crop and pad a volume so that voxel `centre` becomes the middle of `shape`.

    Parameters
    ----------
    volume : (X, Y, Z) array
    centre : (3,) float array
        Voxels.
    shape : tuple of 3 int
    fill : float
        Value beyond the volume.

    Examples
    --------
    >>> volume = np.arange(1, 10).reshape(9, 1, 1)
    >>> centre_in_frame(volume, np.array([8, 0, 0]), (4, 1, 1)).ravel()
    array([7, 8, 9, 0])
    """
    out = np.full(shape, fill, dtype=volume.dtype)
    source, target = [], []
    for size, want, start in zip(volume.shape, shape, frame_corner(centre, shape), strict=True):
        low, high = max(0, start), min(size, start + want)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    out[tuple(target)] = volume[tuple(source)]
    return out
