"""The table of structures and tasks; every other module reads it.

A *structure* is one of the 28 labels hetseg writes.  A *task* is one binary
output of the network: the 28 structures followed by 3 auxiliary tasks
(left hemisphere, right hemisphere, brain parenchyma) that only help training.
Label values are FreeSurfer ``aseg`` ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Hemisphere = Literal["L", "R"]


@dataclass(frozen=True)
class Structure:
    """One output label.

    Attributes
    ----------
    name : str
        Machine name, e.g. ``left_thalamus``.
    label : int
        Value written in the dseg image (the FreeSurfer aseg id).
    members : tuple of int
        Every aseg id that counts as this structure in a reference segmentation.
    hemisphere : {"L", "R", None}
    color : tuple of int
        RGB, 0-255, after FreeSurfer's colour table.
    """

    name: str
    label: int
    members: tuple[int, ...]
    hemisphere: Hemisphere | None
    color: tuple[int, int, int]

    @property
    def title(self) -> str:
        """Name for people, e.g. ``Left thalamus``."""
        return _for_people(self.name)

    @property
    def bare_name(self) -> str:
        """Machine name without the side, e.g. ``thalamus``."""
        return self.name.removeprefix("left_").removeprefix("right_")

    @property
    def both_sides(self) -> str:
        """Name for people of the structure and its partner, e.g. ``Thalamus``."""
        return _for_people(self.bare_name)


def _for_people(name: str) -> str:
    return name.replace("_", " ").capitalize().replace(" dc", " DC")


@dataclass(frozen=True)
class AuxiliaryTask:
    """A task that is trained but not written: `members` as in `Structure`."""

    name: str
    members: tuple[int, ...]


# name, (left id, right id), (left members, right members), colour
_LATERAL: tuple[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, int, int]], ...] = (
    ("cerebral_white_matter", (2,), (41,), (220, 220, 220)),
    ("cerebral_cortex", (3,), (42,), (205, 62, 78)),
    ("lateral_ventricle", (4, 5), (43, 44), (120, 18, 134)),
    ("cerebellum", (8, 7), (47, 46), (230, 148, 34)),
    ("thalamus", (10,), (49,), (0, 118, 14)),
    ("caudate", (11,), (50,), (122, 186, 220)),
    ("putamen", (12,), (51,), (236, 13, 176)),
    ("pallidum", (13,), (52,), (12, 48, 255)),
    ("accumbens", (26,), (58,), (255, 165, 0)),
    ("hippocampus", (17,), (53,), (220, 216, 20)),
    ("amygdala", (18,), (54,), (103, 255, 255)),
    ("ventral_dc", (28,), (60,), (165, 42, 42)),
)
_MIDLINE: tuple[tuple[str, tuple[int, ...], tuple[int, int, int]], ...] = (
    ("third_ventricle", (14,), (204, 182, 142)),
    ("fourth_ventricle", (15,), (42, 204, 164)),
    ("brainstem", (16,), (119, 159, 176)),
    ("corpus_callosum", (255, 251, 252, 253, 254), (0, 200, 220)),
)


def _build_structures() -> tuple[Structure, ...]:
    rows = []
    for name, left, right, color in _LATERAL:
        rows.append(Structure(f"left_{name}", left[0], left, "L", color))
        rows.append(Structure(f"right_{name}", right[0], right, "R", color))
    for name, ids, color in _MIDLINE:
        rows.append(Structure(name, ids[0], ids, None, color))
    return tuple(rows)


STRUCTURES: tuple[Structure, ...] = _build_structures()

# Ids that belong to a hemisphere or to parenchyma but are no structure of ours.
_CHOROID_VESSEL = {"L": (30, 31), "R": (62, 63)}
_LESION = {"L": (25, 78), "R": (57, 79)}
_LESION_UNSIDED = (77,)
_VENTRICLES = frozenset((4, 5, 43, 44, 14, 15))


def _hemisphere_members(side: Hemisphere) -> tuple[int, ...]:
    ids = [i for s in STRUCTURES if s.hemisphere == side for i in s.members]
    return (*ids, *_CHOROID_VESSEL[side], *_LESION[side])


AUXILIARY_TASKS: tuple[AuxiliaryTask, ...] = (
    AuxiliaryTask("left_hemisphere", _hemisphere_members("L")),
    AuxiliaryTask("right_hemisphere", _hemisphere_members("R")),
    AuxiliaryTask(
        "brain_parenchyma",
        (
            *(i for s in STRUCTURES for i in s.members if i not in _VENTRICLES),
            *_LESION["L"],
            *_LESION["R"],
            *_LESION_UNSIDED,
        ),
    ),
)

TASKS: tuple[Structure | AuxiliaryTask, ...] = STRUCTURES + AUXILIARY_TASKS
TASK_NAMES: tuple[str, ...] = tuple(t.name for t in TASKS)
N_STRUCTURES: int = len(STRUCTURES)
N_TASKS: int = len(TASKS)
MAX_ASEG_ID = 255


def task_membership(max_id: int = MAX_ASEG_ID) -> npt.NDArray[np.bool_]:
    """Which tasks each label id belongs to.

    Returns
    -------
    membership : (max_id + 1, N_TASKS) bool array
        ``membership[labels]`` is the one-hot (multi-hot) target of a label image.
    """
    table = np.zeros((max_id + 1, N_TASKS), dtype=bool)
    for column, task in enumerate(TASKS):
        table[list(task.members), column] = True
    return table


def mirror_permutation() -> npt.NDArray[np.int64]:
    """Task order after a left-right reflection.

    Returns
    -------
    permutation : (N_TASKS,) int array
        ``targets[permutation]`` are the targets of the mirrored image.
    """
    index = {name: i for i, name in enumerate(TASK_NAMES)}

    def partner(name: str) -> str:
        for here, there in (("left_", "right_"), ("right_", "left_")):
            if name.startswith(here):
                return there + name.removeprefix(here)
        return name

    return np.array([index[partner(name)] for name in TASK_NAMES], dtype=np.int64)


def mirror_labels() -> npt.NDArray[np.uint8]:
    """The aseg id on the other side: ``mirror_labels()[labels]``, midline ids unchanged.

    Returns
    -------
    table : (256,) uint8 array
    """
    table = np.arange(MAX_ASEG_ID + 1, dtype=np.uint8)
    pairs = zip(_hemisphere_members("L"), _hemisphere_members("R"), strict=True)
    for left, right in pairs:
        table[left], table[right] = right, left
    return table


def color_table() -> npt.NDArray[np.uint8]:
    """RGBA of every value hetseg writes, transparent elsewhere.

    Returns
    -------
    table : (256, 4) uint8 array
    """
    table = np.zeros((MAX_ASEG_ID + 1, 4), dtype=np.uint8)
    for structure in STRUCTURES:
        table[structure.label] = (*structure.color, 255)
    return table


def collapse_to_structures(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Reduce a FreeSurfer-style segmentation to the values hetseg writes.

    Parameters
    ----------
    labels : integer array, any shape
        aseg (or aparc+aseg reduced to aseg) ids.

    Returns
    -------
    collapsed : uint8 array, same shape
        `Structure.label` where the id is a member of a structure, else 0.
    """
    table = np.zeros(MAX_ASEG_ID + 1, dtype=np.uint8)
    for structure in STRUCTURES:
        table[list(structure.members)] = structure.label
    inside = (labels >= 0) & (labels <= MAX_ASEG_ID)
    return table[np.where(inside, labels, 0)]
