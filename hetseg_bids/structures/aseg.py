"""The 28 structures of the shipped models and their parts, after FreeSurfer's ``aseg``.

This table is their only description: names, ids, colours, and which ids of a reference count as
each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hetseg_bids.structures.divisions import whole_aseg
from hetseg_bids.structures.label_sets import LabelSet, Structure

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

# finer structures and others of FreeSurfer's aseg, with the ids and colours of its table
_FINER: tuple[tuple[str, tuple[int, ...], tuple[int, int, int]], ...] = (
    ("inferior_lateral_ventricle", (5, 44), (196, 58, 250)),
    ("cerebellum_white_matter", (7, 46), (220, 248, 164)),
    ("choroid_plexus", (31, 63), (0, 200, 200)),
    ("vessel", (30, 62), (160, 32, 240)),
    ("csf", (24,), (60, 60, 60)),
    ("wm_hypointensities", (77,), (200, 70, 255)),
    ("optic_chiasm", (85,), (234, 169, 30)),
)


# narrow passages fall below the size of a voxel
_OF_SEVERAL_PIECES = ("lateral_ventricle",)


def _build_structures() -> tuple[Structure, ...]:
    rows = []
    for name, left, right, color in _LATERAL:
        single = name not in _OF_SEVERAL_PIECES
        rows.append(Structure(f"left_{name}", left[0], left, color, single))
        rows.append(Structure(f"right_{name}", right[0], right, color, single))
    for name, ids, color in _MIDLINE:
        rows.append(Structure(name, ids[0], ids, color, single=True))
    return tuple(rows)


def _build_parts() -> tuple[Structure, ...]:
    return tuple(
        Structure(f"{side}{name}", label, (label,), color)
        for name, ids, color in _FINER
        for side, label in zip(("left_", "right_") if len(ids) > 1 else ("",), ids, strict=True)
    )


STRUCTURES: tuple[Structure, ...] = _build_structures()
PARTS: tuple[Structure, ...] = _build_parts()

# Ids that belong to a side or to parenchyma; they may become structures, too.
_SIDED = ((30, 31, 25, 78), (62, 63, 57, 79))
_LESIONS = (25, 78, 57, 79, 77)


def aseg_part(names: Sequence[str], parts: Sequence[str] = ()) -> LabelSet:
    """Some structures of the table, in the order of their names.

    A model that was trained before the table got another structure keeps its own.

    Parameters
    ----------
    names : sequence of str
    parts : sequence of str
        Names of `PARTS`.

    Raises
    ------
    KeyError
        If a name isn't in the table.

    Examples
    --------
    >>> part = aseg_part(["left_thalamus", "right_thalamus"])
    >>> part.names
    ('left_thalamus', 'right_thalamus')
    >>> bool(part.membership()[2, part.task_names.index("left_hemisphere")])  # white matter
    True
    """
    by_name = {s.name: s for s in STRUCTURES}
    chosen = tuple(by_name[name] for name in names)
    taken = {i for s in chosen for i in s.members}
    others = [s for s in STRUCTURES if s not in chosen]
    left, right = (
        tuple(i for i in dict.fromkeys((*ids, *_members_of(others, side))) if i not in taken)
        for side, ids in zip(("L", "R"), _SIDED, strict=True)
    )
    tissue = [i for s in others if not s.fluid for i in s.members]
    finer = {s.name: s for s in PARTS}
    return LabelSet(
        chosen,
        (left, right),
        tuple(dict.fromkeys((*_LESIONS, *tissue))),
        tuple(finer[name] for name in parts),
    )


def _members_of(structures: Sequence[Structure], side: str) -> list[int]:
    return [i for s in structures if s.hemisphere == side for i in s.members]


def is_whole(names: Iterable[str]) -> bool:
    """Whether these are the names of all labels of an aseg.

    Examples
    --------
    >>> is_whole(ASEG.names), is_whole(WHOLE_ASEG.names)
    (False, True)
    """
    return tuple(names) == WHOLE_ASEG.names


def is_aseg(label_set: LabelSet) -> bool:
    """Whether names and values of all structures are those of the table, so of FreeSurfer.

    Examples
    --------
    >>> is_aseg(ASEG), is_aseg(aseg_part(["brainstem"])), is_aseg(WHOLE_ASEG)
    (True, True, True)
    """
    known = {(s.name, s.label) for s in (*STRUCTURES, *WHOLE_ASEG.structures)}
    return known.issuperset((s.name, s.label) for s in label_set.structures)


ASEG = aseg_part([s.name for s in STRUCTURES])
"""All structures of the table: the label set of the shipped models."""

WITH_PARTS = aseg_part(ASEG.names, [s.name for s in PARTS])
"""The same structures, and parts to learn."""

WHOLE_DIVISION = whole_aseg(WITH_PARTS)
"""How models with parts give every label of an aseg."""

WHOLE_ASEG = WHOLE_DIVISION.label_set
"""Every label of an aseg."""

N_STRUCTURES: int = len(STRUCTURES)
N_TASKS: int = len(ASEG.tasks)
