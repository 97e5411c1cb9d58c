"""Augmentation of stacks: parameters are drawn here and applied in `samples`.

Source: paper section 2.4 (design section 1): reflection about the midline with a swap
of left and right labels, rotation about a random principal axis, intensity shift and scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the stack augmentation.

    Attributes
    ----------
    reflection_rate : float
        Share of stacks in which left and right are exchanged, 0-1.
    rotation_deg : float
        Half-range of the rotation about one principal axis, degrees.
    offset : float
        Half-range of the in-plane shift, voxels.
    scale, shift : float
        Half-ranges of the intensity factor (about 1) and offset (standard scores).
    """

    reflection_rate: float = 0.5
    rotation_deg: float = 12.0
    offset: float = 8.0
    scale: float = 0.15
    shift: float = 0.2


@dataclass(frozen=True)
class StackTransform:
    """One sampled augmentation.

    Attributes
    ----------
    matrix : (3, 3) float array
        From offsets in the augmented RAS volume to offsets in the source volume.
    mirrored : bool
        Whether left and right labels change places.
    offset : (2,) float array
        In-plane shift, voxels.
    scale, shift : float
        Factor on the intensities, and what is added to them in standard scores.
    """

    matrix: npt.NDArray[np.float64]
    mirrored: bool
    offset: npt.NDArray[np.float64]
    scale: float
    shift: float


def sample_transform(rng: np.random.Generator, config: AugmentationConfig) -> StackTransform:
    """Draw one augmentation.

    Examples
    --------
    >>> transform = sample_transform(np.random.default_rng(0), AugmentationConfig())
    >>> transform.matrix.shape, transform.offset.shape, transform.mirrored
    ((3, 3), (2,), True)
    """
    axis = int(rng.integers(3))
    angle = np.deg2rad(rng.uniform(-config.rotation_deg, config.rotation_deg))
    a, b = (i for i in range(3) if i != axis)
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = np.cos(angle)
    matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
    mirrored = bool(rng.random() < config.reflection_rate)
    if mirrored:
        matrix = np.diag((-1.0, 1.0, 1.0)) @ matrix
    return StackTransform(
        matrix=matrix,
        mirrored=mirrored,
        offset=rng.uniform(-config.offset, config.offset, 2),
        scale=float(1 + rng.uniform(-config.scale, config.scale)),
        shift=float(rng.uniform(-config.shift, config.shift)),
    )
