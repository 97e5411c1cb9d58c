"""hetseg in a script: one function, one result."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import pandas as pd

from hetseg_bids.network.devices import resolve_device
from hetseg_bids.network.models import load_head_model, load_model
from hetseg_bids.outputs.derivatives import placed_image, write_scaled
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.conform import interpolation_blur
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.quality.image_quality import quality_of
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.intracranial import Intracranial, measure_intracranial
from hetseg_bids.segmentation.labels import LevelMaps, Segmentation
from hetseg_bids.segmentation.labels import segment as label_grid
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.plausibility import Plausibility, doubt_implausible_
from hetseg_bids.segmentation.wholes import whole_rows, with_wholes


@dataclass(frozen=True)
class Segmented:
    """The result of `segment`, on the grid of the T1w.

    Attributes
    ----------
    dseg : Nifti1Image
        Labels, (X, Y, Z) uint8: column ``index`` of `volumes`.
    probability : Nifti1Image
        Probability of each structure, (X, Y, Z, S), in the order of `volumes`. Held as uint8
        with a scale, as in a file: ``probability.dataobj[..., i]`` scales the map of one structure
        only, ``probability.get_fdata(dtype="float32")`` all of them. At most 1/510 from the exact
        value.
    flip_probability : Nifti1Image or None
        Probability that the label of a structure is wrong, 0-0.5, held like `probability`, at most
        1/1020 from the exact value; None if the model's system has no such map. With q for the
        flip probability, the probability is q or 1 - q.
    volumes : DataFrame
        One row per structure, then the whole head (`segmentation.wholes`); columns as in
        `segmentation.morphometry.COLUMNS`: volume in mm3 with its standard deviation over scans of
        one person and the 95 % interval for the volume in a reference segmentation, mean flip
        probability, expected Dice.
    warnings : tuple of str
        What was unusual about the scan but could be used.
    plausibility : Plausibility
        Structures of which a part lies where no brain of the atlas has them.
    intracranial : Nifti1Image or None
        Mask of the inside of the skull, (X, Y, Z) uint8; None where it isn't known.
    intracranial_reason : str or None
        Why it isn't known: a stripped image, or one that ends inside the skull.
    """

    dseg: nib.Nifti1Image
    probability: nib.Nifti1Image
    flip_probability: nib.Nifti1Image | None
    volumes: pd.DataFrame
    warnings: tuple[str, ...]
    plausibility: Plausibility
    intracranial: nib.Nifti1Image | None
    intracranial_reason: str | None


def segment(
    t1w: str | os.PathLike[str],
    *,
    model: str = "label-flip",
    device: str = "auto",
    structures: str = "paper",
    views: Sequence[str] = tuple(PLANES),
    mirror: bool = True,
    brain_extraction: str = "auto",
    mask: str | os.PathLike[str] | None = None,
) -> Segmented:
    """Segment one T1w image.

    Parameters
    ----------
    t1w : path
        NIfTI file of a head or of a stripped brain.
    model : str
        Name of a shipped model, or a model folder.
    device : {"auto", "cpu", "cuda", "cuda:N", "mps"}
        ``auto`` takes a GPU where there is one.
    structures : {"paper", "aseg"}
        The paper's 28 structures, or all 43 labels of FreeSurfer's aseg.
    views : sequence of str
        ``axial``, ``coronal``, ``sagittal`` or some of them.
    mirror : bool
        Average over the mirror image, too, where the model does (the default model doesn't).
    brain_extraction : {"auto", "deepbet", "mask", "skip"}
        ``auto`` takes deepbet, or ``skip`` for images that are stripped already.
    mask : path, optional
        Brain mask, with ``brain_extraction="mask"``.

    Raises
    ------
    hetseg_bids.errors.ImageError, MaskError, ModelError, OptionError
        If the scan, the mask, the model or the device can't be used; `HeaderError`, an
        `ImageError`, if format, shape, voxel type or place in space of the scan can't.

    Examples
    --------
    >>> from hetseg_bids import segment
    >>> result = segment("sub-01_T1w.nii.gz")  # doctest: +SKIP
    >>> result.volumes.set_index("name").loc["left_hippocampus", "volume_mm3"]  # doctest: +SKIP
    """
    where = resolve_device(device)
    network = load_model(model, where)
    division = network.plan.division(structures)
    prepared = prepare_image(Path(t1w), brain_extraction, Path(mask) if mask is not None else None)
    blur = interpolation_blur(prepared.working, prepared.native)
    seen = (network, prepared.image, prepared.mask)
    logits = predict(*seen, views=views, mirror=mirror, blur=blur, parts=division.of_parts)
    plausibility = doubt_implausible_(logits, prepared.working)
    result = label_grid(
        logits, prepared.working, prepared.native, division=division, probability=True
    )
    noise, surplus = quality_of(prepared, result).noise, plausibility.surplus_mm3
    volumes = measure(result, noise=noise, surplus_mm3=surplus, divided=division.divided)
    found = measure_intracranial(load_head_model(where), prepared, result)
    volumes = with_wholes(volumes, whole_rows(volumes, found))
    return _in_memory(result, volumes, prepared.warnings, plausibility, found)


def _in_memory(
    result: Segmentation,
    volumes: pd.DataFrame,
    warnings: tuple[str, ...],
    plausibility: Plausibility,
    found: Intracranial,
) -> Segmented:
    p, q = result.probability, result.flip_probability
    assert p is not None  # noqa: S101 (asked for)
    return Segmented(
        dseg=placed_image(result.full(result.dseg), result.grid),
        probability=_image(result, p),
        flip_probability=None if q is None else _image(result, q),
        volumes=volumes,
        warnings=warnings,
        plausibility=plausibility,
        intracranial=None if found.mask is None else placed_image(found.mask, result.grid),
        intracranial_reason=found.reason,
    )


def _image(result: Segmentation, maps: LevelMaps) -> nib.Nifti1Image:
    """The file that `hetseg` would write, in memory and not compressed."""
    stream = io.BytesIO()
    write_scaled(stream, result, maps)
    stream.seek(0)
    return nib.Nifti1Image.from_stream(stream)
