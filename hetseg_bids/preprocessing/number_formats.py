"""In which number format a device computes what a network says."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


def inference_format(device: torch.device) -> torch.dtype:
    """Number format of a network that isn't trained.

    On CUDA it is float16, as fast as bfloat16 and eight times as exact: docs/performance.md has
    what that means for labels. It isn't for training, whose gradients may be too small for it.

    Examples
    --------
    >>> inference_format(torch.device("cuda"))
    torch.float16
    """
    if not computes_bf16(device):
        return torch.float32
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def computes_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16, and faster than in float32."""
    if device.type == "cpu":
        # without these instructions bf16 is emulated
        if torch.cpu._is_amx_tile_supported():
            return True
        # on an Intel CPU without AMX, or whose AMX a virtual machine hides, convolutions take 1.3
        # times as long as in float32; on AMD's they take half of it
        return torch.cpu._is_avx512_bf16_supported() and not _made_by_intel()
    return device.type == "cuda"


@cache
def _made_by_intel() -> bool:
    about = platform.processor()  # Windows
    if Path("/proc/cpuinfo").exists():
        about += Path("/proc/cpuinfo").read_text(errors="replace")
    return "GenuineIntel" in about
