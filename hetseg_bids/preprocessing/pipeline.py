"""The steps in order, from a file to the image that the network sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.errors import HetsegError, ImageError, MaskError
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.preprocessing import brain_extraction as strip
from hetseg_bids.preprocessing.conform import resample, resample_inside, working_grid
from hetseg_bids.preprocessing.field import Box, head_box
from hetseg_bids.preprocessing.head import Head, find_head
from hetseg_bids.preprocessing.headers import MAX_EXTENT_MM, T1w, read_t1w
from hetseg_bids.preprocessing.lesions import Lesion, fill_lesion, place_lesion, read_lesion
from hetseg_bids.preprocessing.mp2rage import darken_noise, is_unit1
from hetseg_bids.preprocessing.normalisation import standardise
from hetseg_bids.preprocessing.transfer import CPU, to_device, to_host, volume_device

_MM2_PER_CM2 = 100.0


@dataclass(frozen=True)
class PreparedImage:
    """A scan on the working grid.

    Attributes
    ----------
    native, working : Grid
        The grid of the T1w, and the RAS grid of 1 mm on which the network sees it.
    image : (X, Y, Z) float32 tensor
        Standard scores on the working grid.
    mask : (X, Y, Z) bool tensor
        Brain on the working grid; a lesion that was given belongs to it.
    extraction : str
        How the mask was made: ``deepbet``, ``mask`` or ``skip``.
    head : Head or None
        The head around it; None for an image that is stripped, or given as stripped.
    content : tuple of 3 slice
        The scanned box, in voxels of `native`.
    cut_cm2 : float
        Largest area in which the brain meets a face of the scanned box (padding left out), cm2.
    warnings : tuple of str
        What was unusual but could be used.
    lesion : Lesion or None
        The lesion that was given; None also where its mask is empty.
    shown : (X, Y, Z) float32 tensor or None
        The scan on the working grid, for the page; None of a stripped image, which lacks what
        isn't brain.
    """

    native: Grid
    working: Grid
    image: Tensor
    mask: Tensor
    extraction: str
    head: Head | None
    content: Box
    cut_cm2: float
    warnings: tuple[str, ...]
    lesion: Lesion | None = None
    shown: Tensor | None = None


def prepare_image(
    path: Path,
    extraction: str = "auto",
    mask_path: Path | None = None,
    lesion_path: Path | None = None,
    device: torch.device = CPU,
) -> PreparedImage:
    """Read, check, conform, strip and standardise a T1w or UNIT1 image.

    Parameters
    ----------
    path : Path
    extraction : {"auto", "deepbet", "mask", "skip"}
        ``auto`` skips the extraction for images that are stripped already.
    mask_path : Path, optional
        Brain mask of the scan, needed for ``mask``.
    lesion_path : Path, optional
        Lesion mask of the scan: its voxels don't count for the standard scores, and the network
        sees healthy brain there (`fill_lesion`).
    device : torch.device
        Which device interpolates and extracts the brain; the result is in the computer's memory.

    Returns
    -------
    prepared : PreparedImage

    Raises
    ------
    ImageError
        If the scan can't be used.
    MaskError
        If its mask can't be used, or none is found.
    """
    scan = read_t1w(path)
    working = _working_grid(scan)
    brain = strip.stripped_brain(scan.data, scan.background, scan.grid.zooms)
    stripped = strip.is_stripped(float(brain.sum()) * scan.grid.voxel_volume / 1000)
    chosen = "skip" if stripped else "deepbet"
    method = chosen if extraction == "auto" else extraction
    bare = stripped or method == "skip"
    try:
        conformed, signal = _conformed(scan, brain if bare else None, working, device)
        shown = _whole(path, scan, conformed, working, bare=bare)
        mask = signal
        if method != "skip":
            mask = _brain_mask(shown, method, mask_path, working, device)
        doubts = strip.check_brain(mask.numpy())
        healed = _healed(conformed, mask, lesion_path, working)
        scores = standardise(healed.image, healed.mask, healed.lesioned)
    except HetsegError as error:
        raise error.at(path) from None
    except ValueError as error:
        raise ImageError(str(error), path=path) from None
    mask, warnings = healed.mask, (*scan.warnings, *doubts, *healed.warnings)
    cut = cut_area(mask, working, scan.grid, scan.content)
    seen = (scores, mask, method, shown.head, scan.content)
    whole = None if bare else conformed
    return PreparedImage(scan.grid, working, *seen, cut, warnings, healed.lesion, whole)


def _conformed(
    scan: T1w, brain: npt.NDArray[np.bool_] | None, working: Grid, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Image on the working grid, and where a stripped one has signal (nowhere for a head)."""
    there = volume_device(device)
    if brain is None:
        volume = to_device(torch.from_numpy(scan.data), there)[None]
        image = resample(volume, scan.grid, working, outside=scan.background)[0]
        return to_host(image), torch.zeros(0, dtype=torch.bool)
    # the brain is found before interpolation, which mixes it with the background
    return resample_inside(
        scan.data, brain, scan.grid, working, outside=scan.background, device=there
    )


@dataclass(frozen=True)
class _Healed:
    """An image without its lesion; `lesioned` are the voxels that were filled, if any."""

    image: Tensor
    mask: Tensor
    lesioned: Tensor | None = None
    lesion: Lesion | None = None
    warnings: tuple[str, ...] = ()


def _healed(image: Tensor, mask: Tensor, path: Path | None, working: Grid) -> _Healed:
    """The image and the brain mask with the lesion of a file filled in."""
    if path is None:
        return _Healed(image, mask)
    lesion = read_lesion(path)
    if not lesion.mask.any():
        return _Healed(image, mask, warnings=(f"the lesion mask {path.name} is empty",))
    inside, warnings = place_lesion(lesion, mask.numpy(), working, path)
    filled = fill_lesion(image, inside, mask.numpy())
    lesioned = torch.from_numpy(inside)
    return _Healed(filled, mask | lesioned, lesioned, lesion, tuple(warnings))


@dataclass(frozen=True)
class _Whole:
    """What deepbet sees; of a whole head also the box around it, and what the head model sees."""

    image: Tensor
    around: Box | None = None
    head: Head | None = None


def _whole(path: Path, scan: T1w, conformed: Tensor, working: Grid, *, bare: bool) -> _Whole:
    """An image that isn't bare as a whole head; a UNIT1 without the noise of its air."""
    if bare:
        return _Whole(conformed)
    image, background = conformed, scan.background
    if is_unit1(path):
        dark = torch.from_numpy(darken_noise(scan.data))
        image, background = resample(dark[None], scan.grid, working)[0], 0.0
    around = head_box(image.numpy())
    return _Whole(image, around, find_head(image, working, background, around))


def _working_grid(scan: T1w) -> Grid:
    """The 1 mm grid of the image, or of its content where padding makes the image very large."""
    extent = scan.grid.zooms * np.array(scan.grid.shape)
    part = scan.grid if extent.max() <= MAX_EXTENT_MM else scan.grid.part(scan.content)
    return working_grid(part)


def _brain_mask(
    shown: _Whole, method: str, mask_path: Path | None, working: Grid, device: torch.device
) -> Tensor:
    if method == "deepbet":
        return torch.from_numpy(strip.extract_brain(shown.image.numpy(), device, shown.around))
    if mask_path is None:
        raise MaskError("no brain mask found", "see --brain-extraction in the usage notes")
    try:
        labels, grid = read_labels(mask_path)
    except ImageError as error:
        raise MaskError(error.problem, error.remedy, path=error.path, form=error.form) from None
    return resample(torch.from_numpy((labels > 0).astype(np.float32))[None], grid, working)[0] > 0.5


def cut_area(mask: Tensor, working: Grid, native: Grid, content: Box) -> float:
    """Largest area in which a mask meets a face of a box, cm2.

    Parameters
    ----------
    mask : (X, Y, Z) bool tensor
        On `working`.
    working, native : Grid
    content : tuple of 3 slice
        The box, in voxels of `native`.

    Returns
    -------
    area : float
        cm2; 0 if the mask meets no face.

    Examples
    --------
    >>> grid = Grid((20, 20, 20), np.eye(4))
    >>> mask = torch.zeros(grid.shape, dtype=torch.bool)
    >>> mask[:5, 10:] = True  # ends at two faces, one of 10 x 20 mm and one of 5 x 20 mm
    >>> float(cut_area(mask, grid, grid, (slice(0, 20), slice(0, 20), slice(0, 20))))
    2.0
    """
    areas = [0.0]
    volume = mask.float()[None]
    for axis, zoom in enumerate(native.zooms):
        for place in (content[axis].start, content[axis].stop - 1):
            box = list(content)
            box[axis] = slice(place, place + 1)
            face = native.part((box[0], box[1], box[2]))
            count = int((resample(volume, working, face)[0] > 0.5).sum())
            areas.append(count * face.voxel_volume / zoom / _MM2_PER_CM2)
    return max(areas)
