"""Flags of up to 31 tasks packed into the bits of one int32."""

from __future__ import annotations

import torch
from torch import Tensor

from hetseg_bids.structures.label_sets import LabelSet

MOST_TASKS = 31


def pack_tasks(flags: Tensor) -> Tensor:
    """(T, ...) bool to (...) int32, bit t for task t; T is at most 31.

    Examples
    --------
    >>> pack_tasks(torch.tensor([[True, False], [True, True]]))  # 2 tasks, 2 voxels
    tensor([3, 2], dtype=torch.int32)
    """
    packed = torch.zeros(flags.shape[1:], dtype=torch.int32)
    for task, flag in enumerate(flags):
        packed |= flag.to(torch.int32) << task
    return packed


def unpack_tasks(packed: Tensor, count: int) -> Tensor:
    """Undo `pack_tasks`: (B, ...) int32 to (B, count, ...) bool.

    Examples
    --------
    >>> unpack_tasks(torch.tensor([[3, 2]], dtype=torch.int32), 2)
    tensor([[[ True, False],
             [ True,  True]]])
    """
    bits = torch.arange(count, dtype=torch.int32, device=packed.device)
    return ((packed[..., None] >> bits) & 1).bool().movedim(-1, 1)


def mirror_tasks(packed: Tensor, label_set: LabelSet) -> Tensor:
    """Packed flags (...) of an image whose sides were exchanged.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> mirror_tasks(torch.tensor([0b01], dtype=torch.int32), ASEG)  # left to right white matter
    tensor([2], dtype=torch.int32)
    """
    flags = unpack_tasks(packed[None], len(label_set.tasks))[0]
    return pack_tasks(flags[torch.from_numpy(label_set.mirror_permutation())])
