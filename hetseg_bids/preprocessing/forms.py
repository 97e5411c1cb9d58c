"""The two forms of a NIfTI header, qform and sform, and what to do if they don't agree."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from hetseg_bids.errors import HeaderError
from hetseg_bids.images import Grid, grid_of

_ZOOM_RANGE_MM = (0.2, 7.0)
_SAME_PLACE_MM = 1.0
_FLAT = 0.05  # determinant of the directions: 1 for a right-angled grid
_UNCODED = (
    "neither qform nor sform is coded, so programs place this image in different ways and "
    "orientation and sides are a guess: check left and right, and set a form"
)
_MIRRORED = "THEIR SIDES DIFFER: one of them takes left for right, find out which"

Affine = npt.NDArray[np.float64]


def find_place(path: Path, image: nib.nifti1.Nifti1Pair) -> tuple[Grid, list[str]]:
    """The grid of an image, by its sform or else by its qform, and warnings.

    An impossible form is ignored where the other one is good.

    Parameters
    ----------
    path : Path
        For the messages.
    image : Nifti1Pair
        Only its header is read.

    Returns
    -------
    grid : Grid
    warnings : list of str

    Raises
    ------
    HeaderError
        If no form can be used; the problem names the form.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4))
    >>> image.set_qform(np.diag([-1, 1, 1, 1]), code=1)
    >>> grid, warnings = find_place(Path("sub-01_T1w.nii.gz"), image)
    >>> grid.codes, len(warnings)  # the forms have different sides on the left
    ((2, 2), 1)
    """
    forms = _coded_forms(image)
    codes = (forms["qform"][1], forms["sform"][1])
    coded = {name: affine for name, (affine, code) in forms.items() if code}
    if not coded:
        grid = grid_of(image)
        if fault := _fault(grid.affine):
            raise HeaderError(f"without a form, {fault.problem}", fault.remedy, path=path)
        return Grid(grid.shape, grid.affine, codes), [_UNCODED]
    faults = {name: fault for name, affine in coded.items() if (fault := _fault(affine))}
    good = [name for name in ("sform", "qform") if name in coded and name not in faults]
    if not good:
        name = "sform" if "sform" in faults else "qform"
        fault = faults[name]
        raise HeaderError(f"{name}: {fault.problem}", fault.remedy, path=path)
    used, shape = good[0], grid_of(image).shape
    if faults or len(coded) == 1:
        codes = (forms[used][1], forms[used][1])
    grid = Grid(shape, np.asarray(coded[used], dtype=np.float64), codes)
    warnings = [f"{name}: {fault}; the {used} is used" for name, fault in faults.items()]
    if len(good) > 1:
        warnings += _differences(coded["qform"], grid)
        if warnings:
            grid = Grid(shape, grid.affine, (codes[1], codes[1]))
    return grid, warnings


def _coded_forms(image: nib.nifti1.Nifti1Pair) -> dict[str, tuple[Affine, int]]:
    """Affine and code of each form; of one that can't be computed, NaN."""
    header = image.header
    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):  # no rotation, or voxel sizes below zero
        qform = np.full((4, 4), np.nan)
    return {
        "qform": (qform, int(header["qform_code"])),
        "sform": (np.asarray(header.get_sform(), dtype=np.float64), int(header["sform_code"])),
    }


def _fault(affine: Affine) -> HeaderError | None:
    """The error of an impossible affine; None for a possible one."""
    if not np.isfinite(affine).all():
        return HeaderError("the affine holds NaN or infinity or no rotation", "repair it")
    zooms = nib.affines.voxel_sizes(affine)
    if (zooms <= 0).any() or abs(np.linalg.det(affine[:3, :3] / zooms)) < _FLAT:
        return HeaderError("the affine is singular", "repair it")
    low, high = _ZOOM_RANGE_MM
    if (zooms < low).any() or (zooms > high).any():
        text = " x ".join(f"{z:.3g}" for z in zooms)
        problem = f"voxels of {text} mm are outside {low}-{high} mm"
        return HeaderError(problem, "check the header's units")
    return None


def _differences(qform: Affine, grid: Grid) -> list[str]:
    """A warning if two forms put a corner of the image in different places."""
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in grid.shape))])
    apart = np.linalg.norm((corners @ (qform - grid.affine).T)[:, :3], axis=1).max()
    if apart <= _SAME_PLACE_MM:
        return []
    text = f"qform and sform differ by {apart:.0f} mm at a corner of the image; the sform is used"
    return [f"{text}. {_MIRRORED}" if _sides_differ(qform, grid.affine) else text]


def _sides_differ(a: Affine, b: Affine) -> bool:
    """Whether two affines mirror each other, or have opposite ends of an axis as the left."""
    if np.linalg.det(a[:3, :3]) * np.linalg.det(b[:3, :3]) < 0:
        return True
    from_left = [affine[0, :3] / np.linalg.norm(affine[0, :3]) for affine in (a, b)]
    return bool(from_left[0] @ from_left[1] < 0)
