"""Structures whose labels are larger in the protocol to be learned than in the label maps.

The SynthSeg maps were labelled by hand, but users compare with FreeSurfer. Relative to caudate and
putamen, its pallida are larger since version 6, and its accumbens in young and middle-aged people,
too (docs/synthesis.md has the figures). Only the labels grow: the image follows the map, because a
structure that is larger in the image would be segmented correctly anyway.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import Hemisphere

# structures from which another one may take voxels: those that it touches and looks like
_TAKES_FROM = {
    "accumbens": (
        "cerebral_white_matter",
        "cerebral_cortex",
        "caudate",
        "putamen",
        "ventral_dc",
    ),
    "pallidum": ("cerebral_white_matter",),
}
_TAKES_UNLABELLED = ("accumbens",)  # the basal forebrain below it
_WIDTH = 1.0  # voxels: smooths a border before it is moved


def grow(labels: Tensor, factors: Iterable[tuple[str, float]]) -> Tensor:
    """A copy of a label map in which some structures are larger, on both sides.

    The voxels taken are those with most of the structure around them, so borders move outward
    evenly and stay smooth.

    Parameters
    ----------
    labels : (X, Y, Z) uint8 tensor
        aseg ids.
    factors : iterable of (str, float)
        `Structure.bare_name` and the factor on its volume, at least 1.

    Returns
    -------
    grown : (X, Y, Z) uint8 tensor

    Raises
    ------
    ValueError
        If a structure can't be grown, or a factor is below 1.

    Examples
    --------
    >>> labels = torch.full((16, 16, 16), 2, dtype=torch.uint8)  # white matter
    >>> labels[4:10, 4:10, 4:10] = 13
    >>> grown = grow(labels, [("pallidum", 1.5)])
    >>> int((labels == 13).sum()), int((grown == 13).sum())
    (216, 324)
    """
    result = labels.cpu().numpy().copy()
    for name, factor in factors:
        if name not in _TAKES_FROM or factor < 1:
            known = ", ".join(_TAKES_FROM)
            raise ValueError(f"can't grow {name} by {factor}: only {known}, by 1 or more")
        for structure in ASEG.structures:
            if structure.bare_name == name:
                _grow_one_(result, structure.label, factor, _sources(name, structure.hemisphere))
    return torch.from_numpy(result).to(labels.device)


def _sources(name: str, side: Hemisphere | None) -> list[int]:
    unlabelled = [0] if name in _TAKES_UNLABELLED else []
    return unlabelled + [
        member
        for structure in ASEG.structures
        if structure.bare_name in _TAKES_FROM[name] and structure.hemisphere == side
        for member in structure.members
    ]


def _grow_one_(labels: np.ndarray, label: int, factor: float, sources: list[int]) -> None:
    """Give a label the voxels of `sources` that have most of it around them."""
    own = labels == label
    wanted = round((factor - 1) * int(own.sum()))
    share = ndimage.gaussian_filter(own.astype(np.float32), _WIDTH)
    places = np.flatnonzero((share > 0) & np.isin(labels, sources))
    order = np.argsort(-share.reshape(-1)[places], kind="stable")
    labels.reshape(-1)[places[order[:wanted]]] = label
