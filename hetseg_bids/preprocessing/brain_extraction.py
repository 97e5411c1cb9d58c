"""Which voxels are brain: deepbet, a mask from the dataset, or the image itself."""

from __future__ import annotations

import logging
import warnings
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from hetseg_bids.errors import InputError
from hetseg_bids.preprocessing.normalisation import typical_high

log = logging.getLogger(__name__)
BrainExtraction = Literal["auto", "deepbet", "mask", "skip"]
BRAIN_EXTRACTION_CHOICES: tuple[str, ...] = get_args(BrainExtraction)

_FAINT = 1e-3  # of the bright voxels: noise of the conversion, or of an interpolation
# non-background signal of a stripped adult or child brain, with or without CSF; beyond what a skull
# holds there is dura, marrow or haze around it, which would shift the standard scores
_STRIPPED_RANGE_ML = (500.0, 2000.0)
_MIN_BRAIN_ML = 300.0
_MAX_BRAIN_ML = 2800.0


def is_stripped(image: npt.NDArray[np.float32]) -> bool:
    """Whether a 1 mm image shows a brain without skull and skin.

    A stripped image has one constant background, and the rest is brain-sized; a head
    with a zeroed (defaced) background is two to four times as large.
    """
    signal = foreground(image)
    low, high = _STRIPPED_RANGE_ML
    return low <= signal.sum() / 1000 <= high


def foreground(image: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Voxels that differ from the constant value on the image's border."""
    faces = [image[i].ravel() for i in (0, -1)]
    faces += [image[:, i].ravel() for i in (0, -1)]
    faces += [image[:, :, i].ravel() for i in (0, -1)]
    values, counts = np.unique(np.concatenate(faces), return_counts=True)
    background = values[np.argmax(counts)]
    difference = np.abs(image - background)
    return difference > _FAINT * typical_high(difference)


def extract_brain(image: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Brain mask of a whole head by deepbet.

    Parameters
    ----------
    image : (X, Y, Z) float32 array
        RAS, 1 mm.

    Returns
    -------
    mask : (X, Y, Z) bool array

    Raises
    ------
    InputError
        If no brain is found.  The message has no file name; the caller adds it.

    Notes
    -----
    Fisch et al. 2024, deepbet; its weights come with its wheel.
    """
    from deepbet.bet import BrainExtraction as DeepBet  # pulls in torch.jit models

    scaled = image - image.min()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bet = DeepBet(no_gpu=True)
            probability = bet.run_model(scaled.copy())
            mask = np.asarray(bet.postprocess(probability > 0.5, 0)) > 0
    except (AssertionError, ValueError, IndexError) as error:
        log.debug("deepbet: %s", error)
        raise InputError("deepbet found no brain; check orientation and contrast") from None
    return mask


def check_brain(mask: npt.NDArray[np.bool_]) -> None:
    """Refuse masks that can't be one brain.

    Raises
    ------
    InputError
        The message has no file name; the caller adds it.
    """
    volume = mask.sum() / 1000
    if not _MIN_BRAIN_ML <= volume <= _MAX_BRAIN_ML:
        raise InputError(
            f"brain mask of {volume:.0f} ml is not one brain "
            f"({_MIN_BRAIN_ML:.0f}-{_MAX_BRAIN_ML:.0f} ml expected); "
            "give a mask with --brain-extraction mask, or check the scan"
        )
