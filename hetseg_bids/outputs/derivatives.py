"""Names, sidecars and writing of a scan's derivatives, each file whole or absent."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from zlib_ng import gzip_ng

from hetseg_bids import __version__
from hetseg_bids.config import Settings
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.errors import OutputError
from hetseg_bids.files import (
    atomic_path,
    write_json,
    write_text,
    write_tsv,
)
from hetseg_bids.images import Grid
from hetseg_bids.network.models import Plan
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.segmentation.labels import LevelMaps, Segmentation
from hetseg_bids.segmentation.lesioned import GivenLesion
from hetseg_bids.segmentation.morphometry import COLUMNS
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.structures.aseg import is_aseg
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import write_label_table

RAW = "raw"  # the input's name in BIDS URIs, the same as fMRIPrep's
_SAME_PLACE_MM = 0.01
_COMPRESSION = 6  # of zlib-ng: smaller files in less time than zlib's; higher levels save little


@dataclass(frozen=True)
class OutputPaths:
    """The names of all files of a scan's results.

    Attributes
    ----------
    folder : Path
        ``OUT/sub-X[/ses-Y]/anat``, without a dataset ``OUT/X``.
    stem : str
        ``sub-X[_ses-Y]...``, the entities of the T1w; without a dataset the name of the file.
    resolution : str
        ``_res-1mm`` or nothing; BIDS puts it between seg and desc.
    report : Path
        The page, ``OUT/sub-X[_ses-Y]....html``.
    """

    folder: Path
    stem: str
    resolution: str
    report: Path

    def _segmentation(self, ending: str) -> Path:
        return self.folder / f"{self.stem}_seg-hetseg{self.resolution}_{ending}"

    @property
    def dseg(self) -> Path:
        """Labels."""
        return self._segmentation("dseg.nii.gz")

    @property
    def flip_probability(self) -> Path:
        """4-D flip probabilities."""
        return self._segmentation("desc-labelflip_probseg.nii.gz")

    @property
    def probseg(self) -> Path:
        """4-D probabilities of the structures."""
        return self._segmentation("probseg.nii.gz")

    @property
    def mask(self) -> Path:
        """Brain mask."""
        return self.folder / f"{self.stem}{self.resolution}_desc-brain_mask.nii.gz"

    @property
    def intracranial(self) -> Path:
        """Mask of the inside of the skull."""
        return self.folder / f"{self.stem}{self.resolution}_desc-intracranial_mask.nii.gz"

    @property
    def morph(self) -> Path:
        """Volumes."""
        return self._segmentation("morph.tsv")

    @property
    def run_log(self) -> Path:
        """Facts about the run that made the results: the only file that differs between runs."""
        return self.report.parent / "logs" / f"{self.report.stem}_run.json"

    @property
    def record(self) -> Path:
        """Sidecar of the dseg: written last, so its presence means a complete scan."""
        return self._segmentation("dseg.json")

    @property
    def labels(self) -> Path:
        """Index, name and colour of each label of the dseg."""
        return self._segmentation("dseg.tsv")

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        images = (self.dseg, self.flip_probability, self.probseg, self.mask, self.intracranial)
        tables = (self.morph, self.morph.with_suffix(".json"), self.labels)
        return (*images, *map(_sidecar, images), *tables, self.report, self.run_log)


def output_paths(out_dir: Path, scan: Scan, settings: Settings) -> OutputPaths:
    """Where a scan's results go.

    Examples
    --------
    >>> scan = Scan(Path("sub-01_T1w.nii.gz"), "sub-01", Path("sub-01/anat"))
    >>> paths = output_paths(Path("OUT"), scan, Settings())
    >>> paths.dseg.as_posix(), paths.report.as_posix()
    ('OUT/sub-01/anat/sub-01_seg-hetseg_dseg.nii.gz', 'OUT/sub-01.html')
    """
    resolution = "_res-1mm" if settings.output_resolution == "1mm" else ""
    report = out_dir / f"{scan.stem}{resolution}.html"
    return OutputPaths(out_dir / scan.folder, scan.stem, resolution, report)


def check_inside(folder: Path, out_dir: Path) -> None:
    """Refuse a folder that a link takes out of the output folder.

    Raises
    ------
    OutputError
        If the folder isn't below the output folder.
    """
    if not folder.resolve().is_relative_to(out_dir.resolve()):
        raise OutputError("a link leads out of the output folder", "remove it", path=folder)


def sources_of(t1w: Path, masks: Sequence[Path | None], bids_dir: Path) -> list[str]:
    """BIDS URIs of the files of the input that a scan's results are made from.

    They look like ``bids:raw:sub-01/anat/sub-01_T1w.nii.gz``; OUT/dataset_description.json says
    where ``raw`` lies.

    Examples
    --------
    >>> sources_of(Path.cwd() / "sub-01/anat/sub-01_T1w.nii.gz", (), Path.cwd())
    ['bids:raw:sub-01/anat/sub-01_T1w.nii.gz']
    """
    root = bids_dir.resolve()
    files = [t1w, *(mask for mask in masks if mask is not None)]
    names = (file.relative_to(root).as_posix() for file in files)
    return [f"bids:{RAW}:{quote(name, safe='/+')}" for name in names]


def write_images(paths: OutputPaths, result: Segmentation, mask: npt.NDArray[np.uint8]) -> None:
    """Write dseg, (X, Y, Z) brain mask and, where there are any, flip map and probabilities."""
    save_image(paths.dseg, result.full(result.dseg), result.grid, intent="label")
    save_image(paths.mask, mask, result.grid, intent="label")
    if result.flip_probability is not None:
        save_scaled(paths.flip_probability, result, result.flip_probability)
    if result.probability is not None:
        save_scaled(paths.probseg, result, result.probability)


def save_image(path: Path, data: npt.NDArray[np.generic], grid: Grid, *, intent: str) -> None:
    """Write an (X, Y, Z) array as a NIfTI image; `intent` is its NIfTI intent, e.g. ``label``."""
    image = placed_image(data, grid)
    image.header.set_intent(intent)
    _save(image, path)


def save_scaled(path: Path, result: Segmentation, maps: LevelMaps) -> None:
    """Write probabilities of a result as a compressed 4-D uint8 image."""
    with _compressed(path) as stream:
        write_scaled(stream, result, maps)


def write_scaled(stream: BufferedIOBase, result: Segmentation, maps: LevelMaps) -> None:
    """Write probabilities as a 4-D uint8 NIfTI image (x, y, z, structure) with their scale."""
    shape = (*result.grid.shape, len(maps.levels))
    image = placed_image(np.broadcast_to(np.uint8(0), shape), result.grid)
    image.header.set_slope_inter(maps.slope, 0)
    image.update_header()
    image.header.write_to(stream)
    for volume in maps.levels:  # the whole grid of one at a time
        stream.write(result.full(volume).T.data)  # x runs fastest


def placed_image(data: npt.NDArray[np.generic], grid: Grid) -> nib.Nifti1Image:
    """A NIfTI image whose forms have the grid's codes, or 0 where a form can't hold the affine.

    Examples
    --------
    >>> grid = Grid((4, 5, 6), np.diag([1.0, 1, 2, 1]), codes=(1, 4))
    >>> image = placed_image(np.zeros(grid.shape, np.uint8), grid)
    >>> int(image.header["qform_code"]), int(image.header["sform_code"])
    (1, 4)
    """
    q_code, s_code = grid.codes
    image = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    image.set_sform(grid.affine, s_code)
    image.set_qform(grid.affine, q_code)
    apart = np.abs(image.get_qform() - grid.affine)[:3] @ (*data.shape[:3], 1)
    if apart.max() > _SAME_PLACE_MM:  # the affine has a shear, which a qform can't hold
        image.set_qform(grid.affine, 0)
        image.set_sform(grid.affine, s_code or q_code)
    image.header.set_xyzt_units("mm")
    return image


def _save(image: nib.Nifti1Image, path: Path) -> None:
    with _compressed(path) as stream:
        image.to_stream(stream)


@contextmanager
def _compressed(path: Path) -> Iterator[BufferedIOBase]:
    """A gzip file without time stamp and name, so that equal results give equal bytes."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        gzip_ng.GzipNGFile("", "wb", _COMPRESSION, raw, mtime=0) as stream,
    ):
        yield stream


def write_tables(paths: OutputPaths, table: pd.DataFrame, label_set: LabelSet) -> None:
    """Write the volumes and the label table, with their data dictionaries."""
    write_tsv(paths.morph, table.round(5))
    columns = {name: {"Description": text} for name, text in COLUMNS.items()}
    write_json(paths.morph.with_suffix(".json"), columns)
    write_label_table(paths.labels, label_set)


@dataclass(frozen=True)
class Provenance:
    """Everything that a result depends on; it is written into the sidecar of each image.

    Attributes
    ----------
    sources : list of str
        BIDS URIs of the T1w and of the masks that were given, see `sources_of`.
    source_sha256 : str
        Checksum of the T1w file.
    mask_sha256 : str or None
        Checksum of the brain mask that was given.
    plan : Plan
        Of the model.
    settings : Settings
    extraction : str
        Brain extraction that was carried out: ``deepbet``, ``mask`` or ``skip``.
    mask_mm3 : float
        Volume of the brain mask, for the group level where the intracranial volume isn't known.
    image : ImageQuality
    plausibility : Plausibility
    turned_deg : float
        See `Predicted`.
    warnings : tuple of str
        `PreparedImage.warnings`.
    lesion_sha256 : str or None
        Checksum of the lesion mask that was given.
    lesion : GivenLesion or None
        None also where its mask is empty.
    head : dict
        `intracranial.head_facts`: the intracranial volume, or why it isn't known.
    """

    sources: list[str]
    source_sha256: str
    mask_sha256: str | None
    plan: Plan
    settings: Settings
    extraction: str
    mask_mm3: float
    image: ImageQuality
    plausibility: Plausibility
    turned_deg: float
    warnings: tuple[str, ...]
    lesion_sha256: str | None = None
    lesion: GivenLesion | None = None
    head: dict[str, Any] = field(default_factory=dict)

    def sidecar(self, description: str, **more: Any) -> dict[str, Any]:
        """JSON content for one derivative."""
        return {
            "Description": description,
            "Sources": self.sources,
            "SpatialReference": self.sources[0],  # results at 1 mm lie in the T1w's space, too
            **more,
            "HetsegVersion": __version__,
            "HetsegModel": self.plan.name,
            "HetsegModelSHA256": self.plan.weights_sha256,
            **use_of(self.plan),
            "HetsegSourceSHA256": self.source_sha256,
            "HetsegMaskSHA256": self.mask_sha256,
            "HetsegLesionSHA256": self.lesion_sha256,
            "HetsegSettings": asdict(self.settings),
            "HetsegBrainExtraction": self.extraction,
            "HetsegBrainMaskVolume": round(self.mask_mm3, 1),
            "HetsegImageQuality": self.image.for_record(),
            "HetsegPlausibility": self.plausibility.for_record(),
            "HetsegTurnedDegrees": round(self.turned_deg, 1),
            "HetsegLesion": self.lesion.for_record() if self.lesion else None,
            "HetsegWarnings": list(self.warnings),
            **self.head,
        }


def use_of(plan: Plan) -> dict[str, Any]:
    """What results depend on beside the weights of a model, as sidecars have it."""
    return {
        "HetsegPooling": asdict(plan.pooling) if plan.pooling else None,
        "HetsegImageSmoothing": plan.smoothing,
        "HetsegBorders": {name: asdict(border) for name, border in plan.borders.items()},
    }


def write_sidecars(
    paths: OutputPaths, provenance: Provenance, label_set: LabelSet, *, flip_probability: bool
) -> None:
    """Write every sidecar, the dseg's last: its presence means that all other files are there."""
    names = list(label_set.names)
    resolution = _resolution(provenance)
    write_mask_sidecar(paths.mask, provenance, "Brain mask", "Brain")
    if flip_probability:
        text = "Probability, 0-0.5, that the label of a structure disagrees with the reference"
        write_json(
            _sidecar(paths.flip_probability),
            provenance.sidecar(text, LabelMap=names, **resolution),
        )
    if provenance.settings.write_probseg:
        text = "Probability that the reference holds a structure there"
        write_json(_sidecar(paths.probseg), provenance.sidecar(text, LabelMap=names, **resolution))
    text = f"{len(names)} brain structures" + (
        ", FreeSurfer aseg ids" if is_aseg(label_set) else ""
    )
    write_json(paths.record, provenance.sidecar(text, **resolution))


def write_mask_sidecar(path: Path, provenance: Provenance, description: str, kind: str) -> None:
    """Write the sidecar of a mask image; `kind` is its BIDS ``Type``."""
    sidecar = provenance.sidecar(description, Type=kind, **_resolution(provenance))
    write_json(_sidecar(path), sidecar)


def _resolution(provenance: Provenance) -> dict[str, dict[str, str]]:
    """What BIDS wants to know of the entity ``res``."""
    if provenance.settings.output_resolution != "1mm":
        return {}
    return {"Resolution": {"1mm": "1 mm isotropic, RAS"}}


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def remove(path: Path) -> None:
    """Remove an image with its sidecar, the sidecar first, if they are there."""
    for file in (_sidecar(path), path):
        file.unlink(missing_ok=True)


def write_crash(out_dir: Path, stem: str, text: str) -> Path:
    """Write a crash file; returns its path.

    Examples
    --------
    >>> write_crash(getfixture("tmp_path"), "sub-01", "no room").name
    'crash-sub-01-...T....txt'
    """
    now = datetime.datetime.now(tz=datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    path = out_dir / "logs" / f"crash-{stem}-{now}.txt"
    write_text(path, text)
    return path
