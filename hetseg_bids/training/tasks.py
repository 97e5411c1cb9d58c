"""Flags of up to 31 tasks packed into the bits of one int32."""

from __future__ import annotations

import torch
from torch import Tensor

from hetseg_bids.structures.label_sets import LabelSet

MOST_TASKS = 31


def pack_tasks(flags: Tensor) -> Tensor:
    """(T, ...) bool to (...) int32, bit t for task t; T is at most 31."""
    packed = torch.zeros(flags.shape[1:], dtype=torch.int32)
    for task, flag in enumerate(flags):
        packed |= flag.to(torch.int32) << task
    return packed


def unpack_tasks(packed: Tensor, count: int) -> Tensor:
    """Undo `pack_tasks`: (B, ...) int32 to (B, count, ...) bool."""
    bits = torch.arange(count, dtype=torch.int32, device=packed.device)
    return ((packed[..., None] >> bits) & 1).bool().movedim(-1, 1)


def mirror_tasks(packed: Tensor, label_set: LabelSet) -> Tensor:
    """Packed flags (...) of an image whose sides were exchanged."""
    flags = unpack_tasks(packed[None], len(label_set.tasks))[0]
    return pack_tasks(flags[torch.from_numpy(label_set.mirror_permutation())])
