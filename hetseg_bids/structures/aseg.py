"""The 28 structures of the shipped models, after FreeSurfer's ``aseg``.

This table is their only description: names, ids, colours, and which ids of a reference count as
each of them.
"""

from __future__ import annotations

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


# Ids that belong to a hemisphere or to parenchyma but are no structure of ours.
_SIDED = ((30, 31, 25, 78), (62, 63, 57, 79))
_LESIONS = (25, 78, 57, 79, 77)

ASEG = LabelSet(_build_structures(), _SIDED, _LESIONS)
"""The label set of the shipped models."""

STRUCTURES: tuple[Structure, ...] = ASEG.structures
N_STRUCTURES: int = len(STRUCTURES)
N_TASKS: int = len(ASEG.tasks)
