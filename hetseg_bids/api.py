"""hetseg in a script: a function for one image, and one for many."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import pandas as pd
from tqdm.auto import tqdm

from hetseg_bids.config import BRAIN_EXTRACTION_CHOICES
from hetseg_bids.dataset.files import images_below, is_folder, mask_beside
from hetseg_bids.errors import HetsegError, OptionError
from hetseg_bids.network.devices import resolve_device
from hetseg_bids.network.models import Model, head_model_beside, load_model
from hetseg_bids.outputs.derivatives import placed_image, write_scaled
from hetseg_bids.planes import PLANES, are_planes
from hetseg_bids.preprocessing.pipeline import PreparedImage, prepare_image
from hetseg_bids.quality.image_quality import quality_of
from hetseg_bids.runs.scan import explained
from hetseg_bids.segmentation.intracranial import Intracranial, measure_intracranial
from hetseg_bids.segmentation.labels import LevelMaps, Segmentation
from hetseg_bids.segmentation.labels import segment as label_grid
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.plausibility import Plausibility, doubt_implausible_
from hetseg_bids.segmentation.upright import predict_upright
from hetseg_bids.segmentation.wholes import whole_rows, with_wholes
from hetseg_bids.structures.divisions import Division


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
    views: str | Sequence[str] = tuple(PLANES),
    mirror: bool = True,
    brain_extraction: str = "auto",
    mask: str | os.PathLike[str] | None = None,
    lesion_mask: str | os.PathLike[str] | None = None,
    lesion_label: str = "background",
) -> Segmented:
    """Segment one T1w image.

    Parameters
    ----------
    t1w : path
        File of a head or of a stripped brain, NIfTI or FreeSurfer's ``.mgz`` or ``.mgh``.
    model : str
        Name of a shipped model, or a model folder.
    device : {"auto", "cpu", "cuda", "cuda:N", "mps"}
        ``auto`` takes a GPU where there is one.
    structures : {"paper", "aseg"}
        The paper's 28 structures, or all 43 labels of FreeSurfer's aseg.
    views : str or sequence of str
        ``axial``, ``coronal``, ``sagittal`` or some of them.
    mirror : bool
        Average over the mirror image, too, where the model does (the default model doesn't).
    brain_extraction : {"auto", "deepbet", "mask", "skip"}
        ``auto`` takes deepbet, or ``skip`` for images that are stripped already.
    mask : path, optional
        Brain mask, with ``brain_extraction="mask"``.
    lesion_mask : path, optional
        Mask of a lesion in the space of the T1w: its voxels don't count for the standardisation,
        their labels are unknown (flip probability 0.5).
    lesion_label : {"background", "surrounding"}
        What the lesion is labelled as: nothing, or the tissue around it.

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
    _check_extraction(brain_extraction, mask)
    around, network = _label_lesion(lesion_label), load_model(model, resolve_device(device))
    how = _How(network, network.plan.division(structures), _planes(views), mirror, around)
    brain, lesion = (None if path is None else Path(path) for path in (mask, lesion_mask))
    prepared = prepare_image(Path(t1w), brain_extraction, brain, lesion, network.device)
    return _segmented(prepared, how)


def segment_all(
    t1ws: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    model: str = "label-flip",
    device: str = "auto",
    structures: str = "paper",
    views: str | Sequence[str] = tuple(PLANES),
    mirror: bool = True,
    brain_extraction: str = "auto",
    progress: bool = True,
) -> Iterator[tuple[Path, Segmented | HetsegError]]:
    """Segment T1w images one after another, with each result as soon as it is there.

    An image that can't be segmented gives its error in place of a result; the others go on.

    Parameters
    ----------
    t1ws : path or iterable of paths
        Images, and folders that are searched as by ``hetseg FOLDER OUT --no-bids``.
    model, device, structures, views, mirror, brain_extraction
        As for `segment`. With ``brain_extraction="mask"`` the mask lies beside the image:
        ``X_desc-brain_mask``, ``X_brain_mask`` or ``X_mask``.
    progress : bool
        Whether to show a progress bar.

    Yields
    ------
    t1w : Path
        The image.
    result : Segmented or HetsegError

    Raises
    ------
    hetseg_bids.errors.DatasetError, ModelError, OptionError
        At once, if a folder holds no T1w image, or model, device or an option can't be used.

    Examples
    --------
    >>> from hetseg_bids import Segmented, segment_all
    >>> for t1w, result in segment_all("scans"):  # doctest: +SKIP
    ...     if isinstance(result, Segmented):
    ...         result.volumes.to_csv(f"{t1w.name}.csv")
    ...     else:
    ...         print(result)  # one line: the file, what is wrong, the remedy
    """
    _check_extraction(brain_extraction)
    given = [t1ws] if isinstance(t1ws, str | os.PathLike) else t1ws
    paths = [image for path in map(Path, given) for image in _images_of(path)]
    network = load_model(model, resolve_device(device))
    how = _How(network, network.plan.division(structures), _planes(views), mirror)

    def one(path: Path) -> Segmented | HetsegError:
        try:
            mask = mask_beside(path) if brain_extraction == "mask" else None
            prepared = prepare_image(path, brain_extraction, mask, device=network.device)
            return _segmented(prepared, how)
        except Exception as error:  # the failure of one image must not stop the others
            return explained(error, path)

    return ((path, one(path)) for path in tqdm(paths, unit="scan", disable=not progress))


def _images_of(path: Path) -> list[Path]:
    """The path itself or, of a folder, the T1w images in it."""
    return images_below(path) if is_folder(path) else [path]


@dataclass(frozen=True)
class _How:
    """What doesn't change from image to image."""

    network: Model
    division: Division
    views: Sequence[str]
    mirror: bool
    label_lesion: bool = False


def _planes(views: str | Sequence[str]) -> tuple[str, ...]:
    names = (views,) if isinstance(views, str) else tuple(views)
    if not are_planes(names):
        raise OptionError(f"{names}: give any of {', '.join(PLANES)}, each once", option="views")
    return names


def _check_extraction(method: str, mask: str | os.PathLike[str] | None = None) -> None:
    if method not in BRAIN_EXTRACTION_CHOICES:
        choices = ", ".join(BRAIN_EXTRACTION_CHOICES)
        raise OptionError(f"{method!r}: give one of {choices}", option="brain_extraction")
    if mask is not None and method != "mask":
        raise OptionError("is used with brain_extraction='mask' only", option="mask")


def _label_lesion(choice: str) -> bool:
    if choice not in ("background", "surrounding"):
        raise OptionError(f"{choice!r}: give background or surrounding", option="lesion_label")
    return choice == "surrounding"


def _segmented(prepared: PreparedImage, how: _How) -> Segmented:
    seen = predict_upright(
        how.network,
        prepared,
        prepared.native,
        views=how.views,
        mirror=how.mirror,
        parts=how.division.of_parts,
    )
    plausibility = doubt_implausible_(seen.logits, seen.grid, prepared.lesion)
    result = label_grid(
        seen.logits,
        seen.grid,
        prepared.native,
        division=how.division,
        probability=True,
        extent=seen.extent,
        lesion=prepared.lesion,
        label_lesion=how.label_lesion,
    )
    noise, surplus = quality_of(prepared, result).noise, plausibility.surplus_mm3
    volumes = measure(result, noise=noise, surplus_mm3=surplus, divided=how.division.divided)
    found = measure_intracranial(head_model_beside(how.network), prepared, result)
    volumes = with_wholes(volumes, whole_rows(volumes, found))
    warnings = (*prepared.warnings, *found.doubts)
    return _in_memory(result, volumes, warnings, plausibility, found)


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
