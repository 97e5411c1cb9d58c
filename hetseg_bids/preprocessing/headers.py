"""Reading a T1w image and refusing, in one line, what can't be segmented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from hetseg_bids.errors import InputError
from hetseg_bids.images import open_image, read_voxels
from hetseg_bids.preprocessing.normalisation import typical_high

_MIN_EXTENT_MM = 60.0
_MAX_EXTENT_MM = 600.0
_ZOOM_RANGE_MM = (0.2, 7.0)
_SAME_PLACE_MM = 1.0
_SPIKE = 20.0
_SOME = 1_000_000  # voxels that tell what the rest is like
_MAX_VOXELS = 600_000_000


@dataclass(frozen=True)
class T1w:
    """A checked image as stored.

    Attributes
    ----------
    path : Path
    data : (I, J, K) float32 array
        Finite; NaN and infinite voxels were set to zero.
    affine : (4, 4) float64 array
        Voxel to scanner RAS, mm.
    warnings : tuple of str
        What was odd but usable.
    """

    path: Path
    data: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    warnings: tuple[str, ...] = ()


def read_t1w(path: Path) -> T1w:
    """Read and check a T1w image.

    Parameters
    ----------
    path : Path
        NIfTI file.

    Raises
    ------
    InputError
        If the file can't be read, isn't one 3-D scalar volume, has an unusable geometry
        or holds no signal; the message names the file and the remedy.
    """
    image = open_image(path)
    _check_shape(path, image)
    affine = _checked_affine(path, image)
    data = read_voxels(path, image)
    data = data.reshape(data.shape[:3])
    warnings = _doubts_about_place(image)
    bad = ~np.isfinite(data)
    share = float(bad.mean())
    if share == 1:
        raise InputError(f"{path}: every voxel is NaN or infinite; convert the scan again")
    if share > 0:
        data[bad] = 0
        warnings.append(f"{share:.2%} of the voxels are NaN or infinite and were set to 0")
    low, high = float(data.min()), float(data.max())
    if low == high:
        what = "zero" if low == 0 else f"{low:g}"
        raise InputError(f"{path}: every voxel is {what}; convert or transfer the scan again")
    warnings += _clip_spikes(data, max(-low, high))
    if _is_mask(data):
        raise InputError(f"{path}: only two values, a mask or label image; give the T1w itself")
    return T1w(path, data, affine, tuple(warnings))


def _clip_spikes(data: npt.NDArray[np.float32], largest: float) -> list[str]:
    """Bring absurd values down, in place: a single one would leave no contrast to the brain."""
    some = np.abs(data.reshape(-1)[:: max(1, data.size // _SOME)])
    limit = _SPIKE * typical_high(some)
    if not limit or largest <= limit:
        return []
    count = int((data > limit).sum()) + int((data < -limit).sum())
    np.clip(data, -limit, limit, out=data)
    return [f"{count} voxels over {_SPIKE:g} times the 99th percentile were clipped"]


def _is_mask(data: npt.NDArray[np.float32]) -> bool:
    """Whether there are two values only; the rest is read only where the first part says so."""
    return all(
        len(np.unique(part)) <= 2
        for part in (data.reshape(-1)[:: max(1, data.size // _SOME)], data)
    )


def _doubts_about_place(image: nib.Nifti1Image) -> list[str]:
    """Warnings where the header doesn't say for sure which side is left."""
    qform, q_code = image.get_qform(coded=True)
    sform, s_code = image.get_sform(coded=True)
    if not q_code and not s_code:
        return ["neither qform nor sform: orientation and sides are a guess"]
    if q_code and s_code and not np.allclose(qform, sform, atol=_SAME_PLACE_MM):
        return ["qform and sform differ; the sform is used"]
    return []


def _check_shape(path: Path, image: nib.Nifti1Image) -> None:
    shape = image.shape
    spatial = shape[:3]
    if len(shape) < 3 or any(n < 1 for n in shape):
        raise InputError(f"{path}: shape {shape} is not a 3-D volume")
    if len(shape) > 3 and any(n != 1 for n in shape[3:]):
        raise InputError(
            f"{path}: {len(shape)}-D image of shape {shape}; "
            "store one 3-D T1w volume a file (average or split the frames)"
        )
    if np.prod([int(n) for n in spatial]) > _MAX_VOXELS:
        raise InputError(f"{path}: shape {shape} is too large for a head scan; check the header")
    dtype = image.get_data_dtype()
    if dtype.fields is not None or dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels are {dtype}, not plain numbers; export a grey T1w")


def _checked_affine(path: Path, image: nib.Nifti1Image) -> npt.NDArray[np.float64]:
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise InputError(f"{path}: the affine holds NaN or infinity; repair qform/sform")
    zooms = nib.affines.voxel_sizes(affine)
    if (zooms <= 0).any() or abs(np.linalg.det(affine[:3, :3] / zooms)) < 0.05:
        raise InputError(f"{path}: the affine is singular; repair qform/sform")
    low, high = _ZOOM_RANGE_MM
    if (zooms < low).any() or (zooms > high).any():
        text = " x ".join(f"{z:.3g}" for z in zooms)
        raise InputError(
            f"{path}: voxels of {text} mm are outside {low}-{high} mm; check the header's units"
        )
    extent = zooms * np.array(image.shape[:3])
    if (extent < _MIN_EXTENT_MM).any() or (extent > _MAX_EXTENT_MM).any():
        text = " x ".join(f"{e:.0f}" for e in extent)
        raise InputError(f"{path}: field of view of {text} mm doesn't hold one whole head")
    return affine
