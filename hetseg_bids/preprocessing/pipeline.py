"""The steps in order: what the network gets, and how to return to the native grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.errors import InputError
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.preprocessing import brain_extraction as strip
from hetseg_bids.preprocessing.conform import resample, working_grid
from hetseg_bids.preprocessing.headers import read_t1w
from hetseg_bids.preprocessing.normalisation import standardise


@dataclass(frozen=True)
class PreparedImage:
    """A scan on the working grid.

    Attributes
    ----------
    native, working : Grid
    image : (X, Y, Z) float32 tensor
        Standard scores on the working grid.
    mask : (X, Y, Z) bool tensor
        Brain on the working grid.
    extraction : str
        How the mask was made: ``deepbet``, ``mask`` or ``skip``.
    warnings : tuple of str
    """

    native: Grid
    working: Grid
    image: Tensor
    mask: Tensor
    extraction: str
    warnings: tuple[str, ...]


def prepare(path: Path, extraction: str = "auto", mask_path: Path | None = None) -> PreparedImage:
    """Read, check, conform, strip and standardise a T1w image.

    Parameters
    ----------
    path : Path
    extraction : {"auto", "deepbet", "mask", "skip"}
        ``auto`` skips the extraction for images that are stripped already.
    mask_path : Path, optional
        Brain mask of the scan, needed for ``mask``.

    Raises
    ------
    InputError
        If the scan or its mask can't be used; the message names the file.
    """
    scan = read_t1w(path)
    native = Grid(scan.data.shape, scan.affine)
    working = working_grid(native)
    border = float(np.median(scan.data[:, :, [0, -1]]))
    volume = torch.from_numpy(scan.data)[None]
    conformed = resample(volume, native, working, outside=border)[0]
    method = extraction
    if extraction == "auto":
        method = "skip" if strip.is_stripped(conformed.numpy()) else "deepbet"
    try:
        mask = _brain_mask(conformed.numpy(), method, mask_path, working)
        strip.check_brain(mask)
        inside = torch.from_numpy(mask)
        scores = standardise(conformed, inside)
    except (InputError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None
    return PreparedImage(native, working, scores, inside, method, scan.warnings)


def _brain_mask(
    image: npt.NDArray[np.float32], method: str, mask_path: Path | None, working: Grid
) -> npt.NDArray[np.bool_]:
    if method == "deepbet":
        return strip.extract_brain(image)
    if method == "skip":
        return strip.foreground(image)
    if mask_path is None:
        raise InputError("no brain mask found; see --brain-extraction in the usage notes")
    labels, grid = read_labels(mask_path)
    moved = resample(torch.from_numpy((labels > 0).astype(np.float32))[None], grid, working)
    return np.asarray(moved[0].numpy() > 0.5)
