"""Copies between a computer's memory and a GPU's.

Volumes go in once and results come out once; between the two everything stays on the GPU. The
copies use page-locked ("pinned") memory, which a GPU reads and writes by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

CPU = torch.device("cpu")


def volume_device(device: torch.device) -> torch.device:
    """Where volumes are worked on when the network is on a device.

    The device itself where it is CUDA's. Apple's has no double precision: CPU.

    Examples
    --------
    >>> volume_device(torch.device("cuda:1")), volume_device(torch.device("mps"))
    (device(type='cuda', index=1), device(type='cpu'))
    """
    return device if device.type == "cuda" else CPU


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the same one if it is there already."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        held = torch.empty_like(tensor, pin_memory=True).copy_(tensor)
        return held.to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensor: Tensor) -> Tensor:
    """A tensor in the computer's memory; the same one if it is there already."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    held = torch.empty_like(tensor, device=CPU, pin_memory=True)
    return held.copy_(tensor)  # waits for the GPU
