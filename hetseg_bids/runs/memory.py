"""How much memory a scan will need, from its header alone, before it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hetseg_bids.config import Settings
from hetseg_bids.errors import OptionError
from hetseg_bids.images import grid_of, open_image
from hetseg_bids.preprocessing.conform import working_grid
from hetseg_bids.preprocessing.headers import MAX_EXTENT_MM
from hetseg_bids.structures.aseg import ASEG, WHOLE_DIVISION
from hetseg_bids.structures.divisions import undivided

# Calibrated by benchmarks/memory.py (docs/performance.md); bytes of a voxel unless they are GB
PROGRAM_GB = 0.35  # libraries and weights
_BRAIN_VOXELS = 4_500_000  # of 1 mm: the box around a brain, its margins included
_LOGITS = 8  # per voxel and structure: two logits in float32
# deepbet works on 256 x 256 x 256 voxels of whatever size; copies of the scan
_EXTRACTION_GB, _EXTRACTION_WORKING, _EXTRACTION_NATIVE = 0.8, 20, 4
_LABELLING_GB, _LABELLING_WORKING = 0.35, 8  # the network's features; image, standard scores
_REPORT_GB, _REPORT_NATIVE = 0.4, 38  # labels, mask and image for the page


@dataclass(frozen=True)
class Need:
    """Memory that a scan is expected to need beside the program, GB of 10^9 bytes.

    Attributes
    ----------
    segmenting : float
        Until it is labelled.
    finishing : float
        While its results are written and its page is drawn.
    """

    segmenting: float
    finishing: float

    @property
    def most(self) -> float:
        """The larger of both."""
        return max(self.segmenting, self.finishing)


def need_of(t1w: Path, settings: Settings) -> Need | None:
    """Memory that a scan is expected to need.

    Parameters
    ----------
    t1w : Path
        Only its header is read.
    settings : Settings

    Returns
    -------
    need : Need or None
        None for an image that will be refused, or cut to its content.

    Raises
    ------
    ImageError
        If the file can't be opened.
    """
    image = open_image(t1w)
    affine = np.asarray(image.affine)
    if len(image.shape) < 3 or min(image.shape) < 1 or not np.isfinite(affine).all():
        return None  # refused when it is read, with a better message
    grid = grid_of(image)
    if not grid.voxel_volume > 0 or (grid.zooms * grid.shape > MAX_EXTENT_MM).any():
        return None  # refused, or cut to its content
    native, working = math.prod(grid.shape), math.prod(working_grid(grid).shape)
    box = min(_BRAIN_VOXELS, working)
    written = box if settings.output_resolution == "1mm" else min(box / grid.voxel_volume, native)
    rows = (WHOLE_DIVISION if settings.structures == "aseg" else undivided(ASEG)).rows
    maps = len(rows) * (1 + settings.write_probseg) * written
    logits = _LOGITS * len(set(rows)) * box
    copies = _EXTRACTION_WORKING * working + _EXTRACTION_NATIVE * native
    extraction = _EXTRACTION_GB + copies / 1e9
    if settings.brain_extraction in ("mask", "skip"):
        extraction = 0
    labelling = _LABELLING_GB + (_LABELLING_WORKING * working + logits + maps) / 1e9
    report = _REPORT_GB + (_REPORT_NATIVE * native + maps) / 1e9
    return Need(max(extraction, labelling), report)


def needed_gb(t1w: Path, settings: Settings) -> float:
    """Largest memory that a process is expected to need for a scan.

    Parameters
    ----------
    t1w, settings
        See `need_of`.

    Returns
    -------
    needed : float
        GB of 10^9 bytes, the program included; 0 for an image that will be refused, or cut to its
        content.

    Raises
    ------
    ImageError
        If the file can't be opened.

    Examples
    --------
    >>> import nibabel as nib
    >>> path = getfixture("tmp_path") / "sub-01_T1w.nii.gz"
    >>> nib.save(nib.Nifti1Image(np.zeros((192, 256, 256), np.uint8), np.eye(4)), path)
    >>> round(needed_gb(path, Settings()), 1)
    1.9
    """
    need = need_of(t1w, settings)
    return 0.0 if need is None else PROGRAM_GB + need.most


def check_room(t1w: Path, settings: Settings, room_gb: float | None) -> None:
    """Refuse a scan that needs more memory than there is for it; None means no limit.

    Raises
    ------
    OptionError
        If it does.
    ImageError
        If it can't be opened.
    """
    if room_gb is None:
        return
    needed = needed_gb(t1w, settings)
    if needed > room_gb:
        raise OptionError(
            f"needs about {needed:.1f} GB of memory, {room_gb:.1f} GB are there for it",
            "give fewer --nprocs or more --mem-gb",
            path=t1w,
        )
