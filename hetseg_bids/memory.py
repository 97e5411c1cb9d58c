"""How much memory a scan will take, told from its header before it is read."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np

from hetseg_bids.config import Settings
from hetseg_bids.errors import InputError
from hetseg_bids.images import grid_of, open_image
from hetseg_bids.preprocessing.conform import working_grid
from hetseg_bids.structures import N_STRUCTURES

# Calibrated by benchmarks/memory.py (docs/performance.md)
_PROGRAM_GB = 0.95  # libraries, weights, and what a pass of the network needs
_NATIVE_BYTES = 12  # a voxel of the scan: the file's and two copies in float32
_WORKING_BYTES = 21  # a voxel of 1 mm: image, standard scores, mask and their temporaries
_BRAIN_VOXELS = 5_000_000  # of 1 mm: the box around a large brain
_LOGIT_BYTES = 8  # a voxel of the box and structure: two logits
_MAX_EXTENT_MM = 600.0  # larger images are refused for it when they are read


def needed_gb(t1w: Path, settings: Settings) -> float:
    """Largest memory that a scan is expected to take, GB of 10^9 bytes; 0 if that can't be told.

    Parameters
    ----------
    t1w : Path
        Only its header is read.
    settings : Settings

    Raises
    ------
    InputError
        If the file can't be opened.
    """
    image = open_image(t1w)
    affine = np.asarray(image.affine)
    if len(image.shape) < 3 or not np.isfinite(affine).all():
        return 0.0  # refused when it is read, and better explained there
    grid = grid_of(image)
    zooms = nib.affines.voxel_sizes(affine)
    if not (zooms > 0).all() or (zooms * grid.shape > _MAX_EXTENT_MM).any():
        return 0.0
    native, working = math.prod(grid.shape), math.prod(working_grid(grid).shape)
    box = min(_BRAIN_VOXELS, working)
    written = box if settings.output_resolution == "1mm" else box / grid.voxel_volume
    maps = N_STRUCTURES * (1 + settings.write_probseg) * min(written, native)
    images = _NATIVE_BYTES * native + _WORKING_BYTES * working
    return _PROGRAM_GB + (images + _LOGIT_BYTES * N_STRUCTURES * box + maps) / 1e9


def check_room(t1w: Path, settings: Settings, room_gb: float | None) -> None:
    """Refuse a scan that needs more memory than there is for it; None means no limit.

    Raises
    ------
    InputError
        If it does, or can't be opened.
    """
    if room_gb is None:
        return
    needed = needed_gb(t1w, settings)
    if needed > room_gb:
        raise InputError(
            f"{t1w}: needs about {needed:.1f} GB of memory, {room_gb:.1f} GB are there for it; "
            "give fewer --nprocs or more --mem-gb"
        )
