"""Small pieces of a structure that are detached from its main part.

In anatomy every structure but the lateral ventricles is one piece. A 2.5-D network sees 7 slices at
a time and may put another piece elsewhere: in two real scans 97 % of such voxels were wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from hetseg_bids.network.flip import logistic
from hetseg_bids.preprocessing.transfer import to_device, to_host
from hetseg_bids.structures.label_sets import LabelSet

_SMALL = 0.1  # of the largest piece
_DISMISSED = -3.0  # logit: one such voxel in twenty is right
_TOUCHING = np.ones((3, 3, 3), bool)
_ALMOST_ONE = 0.999  # logits stay finite, which resampling needs
_SLAB = 16  # voxels
_ROUNDS = 2  # the new label of a voxel may be a detached piece of another structure


def dismiss_islands_(label: Tensor, label_set: LabelSet) -> None:
    """Lower the logits of small detached pieces of `Structure.single`.

    The other logits become those of the probabilities given that the voxel isn't this structure.

    Parameters
    ----------
    label : (S, x, y, z) float32 tensor
        Logits of the structures; changes.
    label_set : LabelSet
        The S structures.

    Examples
    --------
    >>> from hetseg_bids.structures.label_sets import Structure
    >>> brainstem = Structure("brainstem", 16, (16,), (119, 159, 176), single=True)
    >>> logits = torch.full((1, 40, 3, 3), -5.0)
    >>> logits[0, :20] = logits[0, 30] = 3  # its main part, and a piece of one slice
    >>> dismiss_islands_(logits, LabelSet((brainstem,)))
    >>> float(logits[0, 10, 1, 1]), float(logits[0, 30, 1, 1])
    (3.0, -3.0)
    """
    # slab by slab: the numbers of all voxels at once are 8 bytes each
    winners = [most_probable(slab).to(torch.uint8) for slab in label.split(_SLAB, dim=1)]
    winner = to_host(torch.cat(winners)).numpy()
    single = {i for i, s in enumerate(label_set.structures) if s.single}
    left = single
    for _ in range(_ROUNDS):
        boxes = ndimage.find_objects(winner, max_label=len(label_set.structures))
        gained: set[int] = set()
        for i in sorted(left):
            box = boxes[i]
            if box is None:
                continue
            islands = _islands(winner[box] == i + 1)
            if islands is not None:
                where = to_device(torch.from_numpy(islands), label.device)
                instead = _exclude_(label[(slice(None), *box)], i, where)
                winner[box][islands] = instead
                gained.update((np.unique(instead[instead > 0]) - 1).tolist())
        left = gained & single


def most_probable(label: Tensor) -> Tensor:
    """1 + the index of the structure with the largest p where that exceeds 0.5, else 0.

    Parameters
    ----------
    label : (S, ...) float tensor
        Logits.

    Returns
    -------
    winner : (...) int64 tensor

    Examples
    --------
    >>> logits = torch.tensor([[2.0, -1], [3.0, -2]])  # 2 structures, 2 voxels
    >>> most_probable(logits)
    tensor([2, 0])
    """
    best, index = label.max(dim=0)
    return torch.where(best > 0, index + 1, 0)


def _islands(segment: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    pieces, count = ndimage.label(segment, _TOUCHING)
    if count < 2:
        return None
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    small = sizes < _SMALL * sizes.max()
    small[0] = False
    if not small.any():
        return None
    islands: npt.NDArray[np.bool_] = small[pieces]
    return islands


def _exclude_(label: Tensor, number: int, where: Tensor) -> npt.NDArray[np.uint8]:
    """Lower a structure's logits somewhere; returns what wins there instead."""
    p = logistic(label[:, where])
    rest = (1 - p[number]).clamp_min(1 - _ALMOST_ONE)
    given = (p / rest).clamp(1 - _ALMOST_ONE, _ALMOST_ONE)
    logits = torch.logit(given)
    logits[number] = _DISMISSED
    label[:, where] = logits
    winner: npt.NDArray[np.uint8] = most_probable(logits).to(torch.uint8).cpu().numpy()
    return winner
