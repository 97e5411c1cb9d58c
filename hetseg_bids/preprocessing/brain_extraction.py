"""Which voxels are brain: deepbet, a mask from the dataset, or the image itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn

from hetseg_bids.errors import MaskError
from hetseg_bids.preprocessing.field import Box, find_field, foreground, head_box
from hetseg_bids.preprocessing.number_formats import inference_format
from hetseg_bids.preprocessing.transfer import CPU

log = logging.getLogger(__name__)

# non-background signal of a stripped adult or child brain, with or without CSF; more than a skull
# can hold means dura, marrow or haze around the brain, which would shift the standard scores
_STRIPPED_RANGE_ML = (500.0, 2000.0)
_RIM = 1.15  # an interpolated rim adds less than this to a brain
_MIN_BRAIN_ML = 300.0
_MAX_BRAIN_ML = 2800.0
_LARGE_BRAIN_ML = 2200.0  # deepbet's mask has little fluid around the brain
_NO_ROOM = ("out of memory", "ALLOC_FAILED")  # PyTorch; cuDNN and cuBLAS
_MARGIN = 8  # mm of air around the head: what deepbet finds hardly depends on it

# A stripped image that was interpolated has a rim where brain fades to background. Of the voxels
# at the border of 31 stripped scans 0-11 % are fainter than _VERY_FAINT of the brightest voxel
# within about 1 mm, of interpolated ones 30-66 %
_VERY_FAINT = 0.15
_FADED_SHARE = 0.2
_HALF = 0.45  # of that voxel: where half of an interpolated voxel was brain
_MOST_LAYERS = 8


def stripped_brain(
    image: npt.NDArray[np.float32], background: float, zooms: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """The brain of a stripped image, found on the grid on which the image is stored.

    Everything but the background, without the outer half of a rim that an earlier interpolation
    left.

    Parameters
    ----------
    image : (X, Y, Z) float32 array
    background : float
        Value around the brain.
    zooms : (3,) float array
        Voxel size, mm.

    Returns
    -------
    mask : (X, Y, Z) bool array

    Examples
    --------
    >>> image = np.zeros((9, 9, 9), np.float32)
    >>> image[3:6, 3:6, 3:6] = 100
    >>> int(stripped_brain(image, 0.0, np.ones(3)).sum())
    27
    """
    mask = foreground(image, background)
    if mask.sum() * zooms.prod() / 1000 > _RIM * _STRIPPED_RANGE_ML[1] or not mask.any():
        return mask
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    signal = np.abs(image[box] - background)
    around = [2 * max(1, round(1 / zoom)) + 1 for zoom in zooms]
    share = signal / np.maximum(ndimage.maximum_filter(signal, around), np.finfo(np.float32).tiny)
    inside = mask[box]
    for _ in range(_MOST_LAYERS):
        rim = inside & ~ndimage.binary_erosion(inside)
        if not rim.any() or (share[rim] < _VERY_FAINT).mean() < _FADED_SHARE:
            break
        inside = inside & ~(rim & (share < _HALF))
    mask[box] = inside
    return mask


def is_stripped(brain_ml: float) -> bool:
    """Whether this volume of non-background signal is a brain without skull and skin.

    A stripped image has one constant background, and the rest is as large as a brain; a head
    with a zeroed (defaced) background is two to four times as large.

    Parameters
    ----------
    brain_ml : float
        Volume of all that isn't background, ml.

    Examples
    --------
    >>> is_stripped(1400), is_stripped(4500)
    (True, False)
    """
    low, high = _STRIPPED_RANGE_ML
    return low <= brain_ml <= high


def extract_brain(
    image: npt.NDArray[np.float32], device: torch.device = CPU, around: Box | None = None
) -> npt.NDArray[np.bool_]:
    """Brain mask of a whole head by deepbet.

    deepbet scales its input to a fixed number of voxels and its values to their percentiles, so
    the image is cut or padded to the head with a margin that always has the same width.

    Parameters
    ----------
    image : (X, Y, Z) float32 array
        RAS, 1 mm.
    device : torch.device
        Where deepbet runs. Where it has no room there, it runs on the CPU, with a warning.
    around : tuple of 3 slice, optional
        The `head_box` of the image, where that is known.

    Returns
    -------
    mask : (X, Y, Z) bool array

    Raises
    ------
    MaskError
        If no brain is found; without a path, which an array doesn't have.

    Notes
    -----
    Fisch et al. 2024, deepbet; its weights come with its wheel.
    """
    box, (background, _) = around or head_box(image), find_field(image)
    wide = tuple(
        slice(max(0, s.start - _MARGIN), min(n, s.stop + _MARGIN))
        for s, n in zip(box, image.shape, strict=True)
    )
    missing = [
        (_MARGIN - (s.start - w.start), _MARGIN - (w.stop - s.stop))
        for s, w in zip(box, wide, strict=True)
    ]
    head = np.pad(image[wide], missing, constant_values=background)
    inside = tuple(
        slice(low, low + w.stop - w.start) for (low, _), w in zip(missing, wide, strict=True)
    )
    mask = np.zeros(image.shape, bool)
    mask[wide] = _deepbet_anywhere(head, device)[inside]
    return mask


def _deepbet_anywhere(head: npt.NDArray[np.float32], device: torch.device) -> npt.NDArray[np.bool_]:
    """Run deepbet on a device, or on the CPU where the device has no room for it."""
    try:
        return _deepbet(head, device)
    except RuntimeError as error:  # also what Apple's GPUs raise without room
        if device.type == "cpu" or not any(words in str(error) for words in _NO_ROOM):
            raise
    _warn_of_no_room(str(device))  # outside of the clause, which keeps the GPU's arrays alive
    return _deepbet(head, CPU)


@cache  # once in a process
def _warn_of_no_room(device: str) -> None:
    log.warning(
        "no room for brain extraction on %s: done on the CPU (slower); "
        "free the device's memory, or run fewer processes on it",
        device,
    )


def _deepbet(head: npt.NDArray[np.float32], device: torch.device) -> npt.NDArray[np.bool_]:
    from deepbet.bet import BrainExtraction as DeepBet  # pulls in torch.jit models

    scaled = head - head.min()
    try:
        with warnings.catch_warnings(), _as_on_a_cpu(device):
            warnings.simplefilter("ignore")
            bet = DeepBet(no_gpu=True)  # its own choice of a GPU knows no numbers
            bet.model = _InFormat(bet.model, device)
            bet.bbox_model = _InFormat(bet.bbox_model, device)
            probability = bet.run_model(scaled.copy())
            return np.asarray(bet.postprocess(probability > 0.5, 0)) > 0
    except (AssertionError, ValueError, IndexError) as error:
        log.debug("deepbet: %s", error)
        raise MaskError("deepbet found no brain", "check orientation and contrast") from None


class _InFormat(nn.Module):
    """One of deepbet's networks, on a device, where a CPU may compute in half precision.

    Takes and returns float32. On a GPU it stays in float32: what half precision does there to masks
    isn't known.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self._kind = inference_format(device) if device.type == "cpu" else torch.float32
        self._network = network.to(device, self._kind)

    def forward(self, image: Tensor) -> Tensor:
        said: Tensor = self._network(image.to(self._kind))
        return said.float()


@contextmanager
def _as_on_a_cpu(device: torch.device) -> Iterator[None]:
    """On CUDA: no kernels are compiled, which takes seconds."""
    if device.type != "cuda":
        yield
        return
    with torch.jit.optimized_execution(False):
        yield


def check_brain(mask: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    """Refuse masks whose volume isn't one brain's, and warn about unusually large ones.

    Parameters
    ----------
    mask : (X, Y, Z) bool array
        Voxels of 1 mm.

    Returns
    -------
    warnings : tuple of str

    Raises
    ------
    MaskError
        If they can't; without a path, which an array doesn't have.

    Examples
    --------
    >>> check_brain(np.ones((120, 120, 100), bool))  # 1440 ml
    ()
    """
    volume = mask.sum() / 1000
    if not _MIN_BRAIN_ML <= volume <= _MAX_BRAIN_ML:
        raise MaskError(
            f"brain mask of {volume:.0f} ml is not one brain "
            f"({_MIN_BRAIN_ML:.0f}-{_MAX_BRAIN_ML:.0f} ml expected)",
            "give a mask with --brain-extraction mask, or check the scan",
        )
    if volume > _LARGE_BRAIN_ML:
        return (f"brain mask of {volume:.0f} ml is larger than brains are; look at its contour",)
    return ()
