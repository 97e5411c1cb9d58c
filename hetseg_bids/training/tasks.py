"""Flags of the 31 tasks packed into the bits of one int32."""

from __future__ import annotations

import torch
from torch import Tensor

from hetseg_bids.structures import N_TASKS, mirror_permutation


def pack_tasks(flags: Tensor) -> Tensor:
    """(T, ...) bool to (...) int32, bit t for task t; T is at most 31."""
    packed = torch.zeros(flags.shape[1:], dtype=torch.int32)
    for task, flag in enumerate(flags):
        packed |= flag.to(torch.int32) << task
    return packed


def unpack_tasks(packed: Tensor) -> Tensor:
    """Undo `pack_tasks`: (B, ...) int32 to (B, 31, ...) bool."""
    bits = torch.arange(N_TASKS, dtype=torch.int32, device=packed.device)
    return ((packed[..., None] >> bits) & 1).bool().movedim(-1, 1)


def mirror_tasks(packed: Tensor) -> Tensor:
    """Packed flags of a (H, W) image whose sides were exchanged."""
    flags = unpack_tasks(packed[None])[0]
    return pack_tasks(flags[torch.from_numpy(mirror_permutation())])
