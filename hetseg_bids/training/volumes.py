"""What every training source yields: an image with labels on one 1 mm RAS frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

FRAME = (160, 192, 160)  # mm: holds an adult brain, RAS


@dataclass(frozen=True)
class LabelledVolume:
    """One training volume.

    Attributes
    ----------
    image : (X, Y, Z) float32 tensor
        Standard scores as `preprocessing.normalisation.standardise` makes them.
    labels : (X, Y, Z) uint8 tensor
        aseg ids the network is trained on (weak labels).
    rejected : (X, Y, Z) int32 tensor or None
        Bit t is set where the label of task t is left out of the loss.
    """

    image: Tensor
    labels: Tensor
    rejected: Tensor | None = None


class VolumeSource(Protocol):
    """Where training volumes come from."""

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """A volume that depends on nothing but the state of `rng`."""
        ...

    def fingerprint(self) -> dict[str, object]:
        """Facts about the source for plan.json: kind, files, settings."""
        ...


@runtime_checkable
class FixedSource(VolumeSource, Protocol):
    """A source of a few volumes that come back, whose labels can be left out."""

    def volumes(self) -> list[LabelledVolume]:
        """All of them, in a fixed order."""
        ...

    def reject(self, masks: list[Tensor]) -> None:
        """Leave labels out from now on, a mask a volume."""
        ...


def centre_in_frame(
    volume: npt.NDArray[np.generic],
    centre: npt.NDArray[np.floating],
    shape: tuple[int, int, int],
    fill: float = 0,
) -> npt.NDArray[np.generic]:
    """Crop and pad so that voxel `centre` lands in the middle of `shape`."""
    out = np.full(shape, fill, dtype=volume.dtype)
    source, target = [], []
    for size, want, middle in zip(volume.shape, shape, centre, strict=True):
        start = round(float(middle)) - want // 2
        low, high = max(0, start), min(size, start + want)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    out[tuple(target)] = volume[tuple(source)]
    return out
