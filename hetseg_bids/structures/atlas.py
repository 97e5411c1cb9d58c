"""The atlas: where each structure of the shipped models lies in 20 brains, in template space.

Made by `benchmarks/atlas.py` from 20 label maps and their mirror images. Every map is moved by the
affine of its own centroids (`alignment.template_affine`), as scans are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hetseg_bids.structures.aseg import aseg_part
from hetseg_bids.structures.label_sets import LabelSet, partner_of

ATLAS = Path(str(resources.files("hetseg_bids"))) / "data" / "atlas.npz"
ZOOM = 3.0
"""Edge of a cell, mm."""
FIRST = (-82.5, -117.0, -90.0)
"""Centre of the first cell, mm; the last one's x is its mirror image."""
SHAPE = (56, 68, 60)
WHOLE = 100  # percent
STEPS_PER_MM = 10
FARTHEST_MM = 15.0
VENTRICLE = "lateral_ventricle"
SIZES = 250  # steps of the ventricle's size up to the largest one; SIZES + 1: never there


@dataclass(frozen=True)
class Atlas:
    """Structures of the maps on a grid of `SHAPE`.

    Attributes
    ----------
    version : str
        Changes with the content; part of every result's record.
    label_set : LabelSet
    share : (S, X, Y, Z) float32 array
        Mean share of a cell that belongs to a structure, 0-1.
    beyond_mm : (S, X, Y, Z) float32 array
        Distance to the nearest cell that holds the structure in any map, at most 15 mm.
    size_range : (S, 2) float64 array
        Smallest and largest volume in the maps, relative to that of all structures.
    needs : (X, Y, Z) float32 array
        Size of the smallest left lateral ventricle that reaches a cell, as a share of all
        structures; infinite where no map's ventricle lies.
    """

    version: str
    label_set: LabelSet
    share: npt.NDArray[np.float32]
    beyond_mm: npt.NDArray[np.float32]
    size_range: npt.NDArray[np.float64]
    needs: npt.NDArray[np.float32]

    def ventricle_beyond_mm(
        self, name: str, size: float, other: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """Distance to the cells in which a lateral ventricle of a scan may lie.

        These are the cells of ventricles up to a size in the maps, and the mirror image of the
        other ventricle of the same scan.

        Parameters
        ----------
        name : str
            ``left_lateral_ventricle`` or ``right_lateral_ventricle``.
        size : float
            Its volume as a share of all structures, 0-1.
        other : (X, Y, Z) bool array
            Cells in which the ventricle of the other side lies.

        Returns
        -------
        beyond_mm : (X, Y, Z) float32 array
            0 inside, at most 15 mm.
        """
        needs = self.needs if name.startswith("left_") else self.needs[::-1]
        beyond = ndimage.distance_transform_edt((needs > size) & ~other[::-1]) * ZOOM
        return np.minimum(beyond, FARTHEST_MM).astype(np.float32)


def to_cells() -> npt.NDArray[np.float64]:
    """The (4, 4) affine from template mm to cells.

    Examples
    --------
    >>> to_cells() @ (*FIRST, 1)
    array([0., 0., 0., 1.])
    """
    affine = np.diag([1 / ZOOM, 1 / ZOOM, 1 / ZOOM, 1.0])
    affine[:3, 3] = -np.array(FIRST) / ZOOM
    return affine


@cache
def load_atlas() -> Atlas:
    """The shipped atlas.

    Examples
    --------
    >>> atlas = load_atlas()
    >>> atlas.share.shape, atlas.size_range.shape
    ((28, 56, 68, 60), (28, 2))
    """
    with np.load(ATLAS) as content:
        label_set = aseg_part(content["names"].tolist())
        share, beyond = (_both_sides(content[name], label_set) for name in ("share", "beyond"))
        size_range = content["size_range"]
        needs = content["needs"].astype(np.float32) * (
            size_range[_left_ventricle(label_set), 1] / SIZES
        )
        needs[content["needs"] > SIZES] = np.inf
        version = str(content["version"])
    return Atlas(
        version,
        label_set,
        (share / np.float32(WHOLE)).astype(np.float32),
        (beyond / np.float32(STEPS_PER_MM)).astype(np.float32),
        size_range,
        needs,
    )


def stored(label_set: LabelSet) -> list[int]:
    """Indices of the structures in the file: left and midline; the right is mirrored."""
    return [i for i, s in enumerate(label_set.structures) if s.hemisphere != "R"]


def _both_sides(half: npt.NDArray[np.uint8], label_set: LabelSet) -> npt.NDArray[np.uint8]:
    names = label_set.names
    rows = {names[i]: row for i, row in zip(stored(label_set), half, strict=True)}
    return np.stack([rows[n] if n in rows else rows[partner_of(n)][::-1] for n in names])


def _left_ventricle(label_set: LabelSet) -> int:
    return label_set.names.index(f"left_{VENTRICLE}")
