"""From logits on the working grid to labels and flip probabilities on the grid of the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.conform import resample
from hetseg_bids.preprocessing.lesions import Lesion
from hetseg_bids.preprocessing.transfer import to_device, to_host
from hetseg_bids.segmentation.dividing import Divider
from hetseg_bids.segmentation.inference import Logits
from hetseg_bids.segmentation.islands import most_probable
from hetseg_bids.segmentation.lesioned import Covered, doubt_lesion_
from hetseg_bids.segmentation.uncertainty import (
    FlipSums,
    StructureUncertainty,
    probability_map,
    sums_of_maps,
)
from hetseg_bids.segmentation.views import OUTSIDE_LOGIT
from hetseg_bids.structures.divisions import Division, undivided
from hetseg_bids.structures.label_sets import LabelSet

_SLAB_VALUES = 1 << 20  # 4 MiB per temporary: fits the cache, and the allocator keeps it
_GPU_SLAB_VALUES = 1 << 26  # 256 MiB: more work than it takes to start it

LEVELS = 255
"""Steps of a probability in uint8."""

MAX_FLIP_PROBABILITY, MAX_PROBABILITY = 0.5, 1.0
"""The flip probability and the probability that `LEVELS` stands for."""


@dataclass(frozen=True)
class LevelMaps:
    """Probabilities as they are written, to 1/255 of the largest: a quarter of float32's memory.

    Attributes
    ----------
    levels : (S, x, y, z) uint8 array
    highest : float
        What level 255 means; 0 means 0.

    Examples
    --------
    >>> maps = LevelMaps(np.array([[[[0, 51, 255]]]], np.uint8), highest=0.5)
    >>> maps.levels * maps.step
    array([[[[0. , 0.1, 0.5]]]])
    """

    levels: npt.NDArray[np.uint8]
    highest: float

    @property
    def step(self) -> float:
        """Probability of one level."""
        return self.highest / LEVELS

    @property
    def slope(self) -> float:
        """`step` in float32, as images hold it, rounded down: none is read as more than `highest`.

        Examples
        --------
        >>> maps = LevelMaps(np.zeros((1, 1, 1, 1), np.uint8), highest=1.0)
        >>> 255 * float(np.float32(maps.step)) > 1, 255 * maps.slope > 1
        (True, False)
        """
        slope = np.float32(self.step)
        return float(slope if float(slope) <= self.step else np.nextafter(slope, np.float32(0)))


def to_levels(values: Tensor, highest: float) -> Tensor:
    """Probabilities as uint8 levels of 0 to `highest`, rounded and clipped.

    Examples
    --------
    >>> to_levels(torch.tensor([0, 0.1, 0.5]), 0.5)
    tensor([  0,  51, 255], dtype=torch.uint8)
    """
    return (values * (LEVELS / highest)).round_().clamp_(0, LEVELS).to(torch.uint8)


@dataclass(frozen=True)
class Segmentation:
    """Result on one grid, cropped to `box`; everything outside is background.

    Attributes
    ----------
    grid : Grid
        Of the whole result.
    box : tuple of 3 slice
        The part of `grid` on which all arrays lie.
    dseg : (x, y, z) uint8 array
        `Structure.label` values.
    flip_probability : LevelMaps or None
        Of each of the S structures, 0 outside the brain.
    probability : LevelMaps or None
        Of each structure, if it was asked for.
    label_set : LabelSet
        The structures.
    uncertainty : tuple of S StructureUncertainty, or None
        Summed from flip probabilities before they were rounded to levels.
    covered : Covered or None
        How much of each structure a lesion covers; None without a lesion.
    probability_sums : (S,) float64 array or None
        Sum of the probability of each structure over all voxels, before it was rounded.
    """

    grid: Grid
    box: tuple[slice, slice, slice]
    dseg: npt.NDArray[np.uint8]
    flip_probability: LevelMaps | None
    probability: LevelMaps | None
    label_set: LabelSet
    uncertainty: tuple[StructureUncertainty, ...] | None = None
    covered: Covered | None = None
    probability_sums: npt.NDArray[np.float64] | None = None

    def full(self, cropped: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Put a (..., x, y, z) array of the box back on the whole grid, zero elsewhere.

        x runs fastest in memory, as in a NIfTI file.

        Examples
        --------
        >>> from hetseg_bids.structures.aseg import ASEG
        >>> box = (slice(2, 4), slice(0, 5), slice(0, 6))
        >>> dseg = np.ones((2, 5, 6), np.uint8)
        >>> result = Segmentation(Grid((4, 5, 6), np.eye(4)), box, dseg, None, None, ASEG)
        >>> result.full(dseg)[:, 0, 0]
        array([0, 0, 1, 1], dtype=uint8)
        """
        lead = cropped.shape[:-3]
        out = np.zeros((*lead, *self.grid.shape[::-1]), dtype=cropped.dtype).swapaxes(-1, -3)
        out[(..., *self.box)] = cropped
        return out


def segment(
    logits: Logits,
    working: Grid,
    output: Grid,
    *,
    division: Division | None = None,
    probability: bool = False,
    extent: Grid | None = None,
    lesion: Lesion | None = None,
    label_lesion: bool = False,
) -> Segmentation:
    """Resample logits to a grid and label it: boundaries are as smooth as the grid allows.

    Parameters
    ----------
    logits : Logits
        On a box of `working`.
    working, output : Grid
    division : Division, optional
        Which labels are written; all structures of the logits unless it is given.
    probability : bool
        Whether to keep the probabilities.
    extent : Grid, optional
        The box that is labelled; that of the logits unless it is given.
    lesion, label_lesion : Lesion and bool, optional
        Its voxels have q = 0.5 (`doubt_lesion_`), and no label, or what the network saw there.
    """
    box_grid = working.part(logits.box)
    division = division or undivided(logits.label_set)
    divider = Divider.of(division, logits.label, box_grid)
    label_set = division.label_set
    target_box = covering_box(extent or box_grid, output)
    target = output.part(target_box)
    maps = (len(label_set.structures), *target.shape)
    device = logits.label.device
    dseg = torch.empty(target.shape, dtype=torch.uint8, device=device)
    q_levels = _levels(maps, device, wanted=logits.second_output is not None)
    p_levels = _levels(maps, device, wanted=probability)
    there = None if lesion is None else to_device(torch.from_numpy(lesion.on(target)), device)
    sums, covered, expected = list[FlipSums](), list[Covered](), np.zeros(maps[0])
    for slab, part in _slabs(target, maps[0], device):
        label, q, p = _written(logits, divider, box_grid, part)
        winner = most_probable(label)
        # a lesion without a label has no soft volume
        soft = p if there is None or label_lesion else p * ~there[slab]
        expected += sums_of_maps(soft)
        if there is not None:
            found, inside = [p] if q is None else [q, p], there[slab]
            covered.append(doubt_lesion_(label, found, winner, inside, keep=label_lesion))
        dseg[slab] = label_values(label_set).to(device)[winner]
        if q_levels is not None and q is not None:
            q_levels[:, slab] = to_levels(q, MAX_FLIP_PROBABILITY)
            sums.append(FlipSums.of_tensors(winner, q))
        if p_levels is not None:
            p_levels[:, slab] = to_levels(p, MAX_PROBABILITY)
    uncertainty = reduce(add, sums).summaries() if sums else None
    sums_of = (uncertainty, reduce(add, covered) if covered else None, expected)
    q_maps, p_maps = _on_host(q_levels, MAX_FLIP_PROBABILITY), _on_host(p_levels, MAX_PROBABILITY)
    made = to_host(dseg).numpy()
    return Segmentation(output, target_box, made, q_maps, p_maps, label_set, *sums_of)


def _slabs(target: Grid, maps: int, device: torch.device) -> Iterator[tuple[slice, Grid]]:
    """Slabs of a grid across its first axis, of as many voxels as suit a device."""
    first, *others = target.shape
    values = _SLAB_VALUES if device.type == "cpu" else _GPU_SLAB_VALUES
    planes = max(1, values // (maps * others[0] * others[1]))
    for start in range(0, first, planes):
        slab = slice(start, min(start + planes, first))
        yield slab, target.part((slab, slice(0, others[0]), slice(0, others[1])))


def _levels(shape: tuple[int, ...], device: torch.device, *, wanted: bool) -> Tensor | None:
    return torch.empty(shape, dtype=torch.uint8, device=device) if wanted else None


def _on_host(levels: Tensor | None, highest: float) -> LevelMaps | None:
    return None if levels is None else LevelMaps(to_host(levels).numpy(), highest)


def _written(
    logits: Logits, divider: Divider, source: Grid, target: Grid
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Logits of the written labels on a grid, q where there are second outputs, and p."""
    label = resample(logits.label, source, target, outside=OUTSIDE_LOGIT)
    q = None
    if logits.second_output is not None and logits.system is not None:
        second = resample(logits.second_output, source, target, outside=OUTSIDE_LOGIT)
        q = logits.system.flip_probability(label, second)
    if not divider.division.of_parts:
        count = len(divider.division.rows)
        label, q = label[:count], None if q is None else q[:count]
        return label, q, probability_map(label, q)
    label, p = divider.divided(label, probability_map(label, q), target)
    if q is not None:
        q = torch.where(label > 0, 1 - p, p).clamp_max_(MAX_FLIP_PROBABILITY)
    return label, q, p


def decide(logits: Tensor, label_set: LabelSet) -> Tensor:
    """Labels of (S, ...) logits: the structure of the largest logit, where that exceeds 0.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> logits = torch.full((len(ASEG.structures), 2), -5.0)
    >>> logits[ASEG.names.index("left_thalamus"), 0] = 3
    >>> decide(logits, ASEG)  # the second voxel is background
    tensor([10,  0], dtype=torch.uint8)
    """
    if len(logits) != len(label_set.structures):
        raise ValueError(f"expected {len(label_set.structures)} structures, got {len(logits)}")
    return label_values(label_set)[most_probable(logits)]


def label_values(label_set: LabelSet) -> Tensor:
    """`Structure.label` of each structure, after a 0 for no structure: (S + 1,) uint8 tensor."""
    return torch.tensor([0, *(s.label for s in label_set.structures)], dtype=torch.uint8)


def covering_box(inner: Grid, outer: Grid) -> tuple[slice, slice, slice]:
    """The smallest box of `outer` that holds all voxel centres of `inner`.

    Parameters
    ----------
    inner, outer : Grid

    Returns
    -------
    box : tuple of 3 slice
        Cut off at the faces of `outer`; at least one voxel.

    Examples
    --------
    >>> one_mm, two_mm = Grid((20, 20, 20), np.eye(4)), Grid((20, 20, 20), np.diag([2.0, 2, 2, 1]))
    >>> inner = one_mm.part((slice(4, 10), slice(0, 20), slice(5, 6)))
    >>> covering_box(inner, two_mm)
    (slice(2, 6, None), slice(0, 11, None), slice(2, 4, None))
    """
    ends = np.array([(0, n - 1) for n in inner.shape])
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    mapping = np.linalg.inv(outer.affine) @ inner.affine
    moved = corners @ mapping[:3, :3].T + mapping[:3, 3]
    low = np.maximum(np.floor(moved.min(axis=0) + 1e-3), 0).astype(int)
    high = np.minimum(np.ceil(moved.max(axis=0) - 1e-3) + 1, outer.shape).astype(int)
    a, b, c = (slice(int(p), max(int(p) + 1, int(q))) for p, q in zip(low, high, strict=True))
    return a, b, c
