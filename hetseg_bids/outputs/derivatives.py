"""Names, sidecars and writing of a scan's derivatives, each file whole or absent."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from hetseg_bids.config import BIDS_VERSION, Settings
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.errors import OutputError
from hetseg_bids.files import atomic_path, read_json, remove_leftovers, write_json, write_text
from hetseg_bids.images import Grid
from hetseg_bids.network.models import Pooling
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.segmentation.labels import LevelMaps, Segmentation
from hetseg_bids.segmentation.morphometry import COLUMNS
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import write_label_table

_RAW = "raw"  # the input's name in BIDS URIs, as fMRIPrep has it
_SAME_PLACE_MM = 0.01
_COMPRESSION = 6  # higher levels save little on label images


@dataclass(frozen=True)
class OutputPaths:
    """Every file that a scan leaves behind.

    Attributes
    ----------
    folder : Path
        ``OUT/sub-X[/ses-Y]/anat``.
    stem : str
        ``sub-X[_ses-Y]...``: the entities of the T1w.
    resolution : str
        ``_res-1mm`` or nothing; BIDS puts it between seg and desc.
    report : Path
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
    def flip(self) -> Path:
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
    def morph(self) -> Path:
        """Volumes."""
        return self._segmentation("morph.tsv")

    @property
    def run_log(self) -> Path:
        """Facts about the run that made the results: the only file that no two runs share."""
        return self.report.parent / "logs" / f"{self.report.stem}_run.json"

    @property
    def record(self) -> Path:
        """Sidecar of the dseg: written last, so its presence means a complete scan."""
        return self._segmentation("dseg.json")

    @property
    def labels(self) -> Path:
        """What the numbers in the dseg mean."""
        return self._segmentation("dseg.tsv")

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        images = (self.dseg, self.flip, self.probseg, self.mask)
        tables = (self.morph, self.morph.with_suffix(".json"), self.labels)
        return (*images, *map(_sidecar, images), *tables, self.report, self.run_log)


def output_paths(out_dir: Path, scan: Scan, settings: Settings) -> OutputPaths:
    """Where a scan's results go."""
    resolution = "_res-1mm" if settings.output_resolution == "1mm" else ""
    report = out_dir / f"{scan.stem}{resolution}.html"
    return OutputPaths(out_dir / scan.anat_folder, scan.stem, resolution, report)


def check_inside(folder: Path, out_dir: Path) -> None:
    """Follow no link that somebody put in the way of results.

    Raises
    ------
    OutputError
        If the folder isn't below the output folder.
    """
    if not folder.resolve().is_relative_to(out_dir.resolve()):
        raise OutputError("a link leads out of the output folder", "remove it", path=folder)


def sources_of(t1w: Path, mask: Path | None, bids_dir: Path) -> list[str]:
    """BIDS URIs of the files of the input that a scan's results are made from.

    They look like ``bids:raw:sub-01/anat/sub-01_T1w.nii.gz``; OUT/dataset_description.json says
    where ``raw`` lies.
    """
    root = bids_dir.resolve()
    files = [t1w] if mask is None else [t1w, mask]
    names = (file.relative_to(root).as_posix() for file in files)
    return [f"bids:{_RAW}:{quote(name, safe='/+')}" for name in names]


def write_dataset_description(out_dir: Path, bids_dir: Path) -> None:
    """Write OUT/dataset_description.json, and OUT/.bidsignore unless there is one."""
    out, raw = out_dir.resolve(), bids_dir.resolve()
    # below the dataset both move together
    link = Path(os.path.relpath(raw, out)).as_posix() if raw in out.parents else raw.as_uri()
    source = _description_of(bids_dir)
    content = {
        "Name": "hetseg: brain structure segmentation with label-flip uncertainty",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **{key: source[key] for key in ("License",) if key in source},
        "GeneratedBy": [{"Name": "hetseg", "Version": __version__, **_container()}],
        "SourceDatasets": [
            {"URL": link, **({"DOI": source["DatasetDOI"]} if "DatasetDOI" in source else {})}
        ],
        "DatasetLinks": {_RAW: link},
    }
    description, ignore = out_dir / "dataset_description.json", out_dir / ".bidsignore"
    remove_leftovers((description, ignore))
    write_json(description, content)
    if not ignore.exists():
        write_text(ignore, "*.html\nlogs/\n*_morph.tsv\n*_morph.json\ngroup_*\n")


def _description_of(bids_dir: Path) -> dict[str, str]:
    """The texts in the description of the input."""
    try:
        content = read_json(bids_dir / "dataset_description.json")
    except (OSError, ValueError):  # accepted with --skip-bids-validation
        return {}
    return {key: text for key, text in content.items() if text and isinstance(text, str)}


def _container() -> dict[str, Any]:
    kind, _, tag = os.environ.get("HETSEG_CONTAINER", "").partition(":")
    return {"Container": {"Type": kind, "Tag": tag}} if tag else {}


def write_images(paths: OutputPaths, result: Segmentation, mask: npt.NDArray[np.uint8]) -> None:
    """Write dseg, mask and, where the result has them, flip map and probabilities."""
    save_image(paths.dseg, result.full(result.dseg), result.grid, intent="label")
    save_image(paths.mask, mask, result.grid, intent="label")
    if result.flip is not None:
        save_scaled(paths.flip, result, result.flip)
    if result.probability is not None:
        save_scaled(paths.probseg, result, result.probability)


def save_image(path: Path, data: npt.NDArray[np.generic], grid: Grid, *, intent: str) -> None:
    """Write a NIfTI image on a grid."""
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
    image.header.set_slope_inter(maps.step, 0)
    image.update_header()
    image.header.write_to(stream)
    for volume in maps.levels:  # the whole grid of one at a time
        stream.write(result.full(volume).T.data)  # x runs fastest


def placed_image(data: npt.NDArray[np.generic], grid: Grid) -> nib.Nifti1Image:
    """An image whose forms have the grid's codes, and code 0 where a form can't say the affine."""
    q_code, s_code = grid.codes
    image = nib.Nifti1Image(data, grid.affine, dtype=data.dtype)
    image.set_sform(grid.affine, s_code)
    image.set_qform(grid.affine, q_code)
    apart = np.abs(image.get_qform() - grid.affine)[:3] @ (*data.shape[:3], 1)
    if apart.max() > _SAME_PLACE_MM:  # a shear
        image.set_qform(grid.affine, 0)
        image.set_sform(grid.affine, s_code or q_code)
    image.header.set_xyzt_units("mm")
    return image


def _save(image: nib.Nifti1Image, path: Path) -> None:
    with _compressed(path) as stream:
        image.to_stream(stream)


@contextmanager
def _compressed(path: Path) -> Iterator[BufferedIOBase]:
    """A gzip file without time stamp and name: equal results give equal bytes."""
    with (
        atomic_path(path) as temporary,
        temporary.open("wb") as raw,
        gzip_ng.GzipNGFile("", "wb", _COMPRESSION, raw, mtime=0) as stream,
    ):
        yield stream


def write_tables(paths: OutputPaths, table: pd.DataFrame, label_set: LabelSet) -> None:
    """Write the volumes and the label table, with their data dictionaries."""
    with atomic_path(paths.morph) as temporary:
        table.round(5).to_csv(temporary, sep="\t", index=False, na_rep="n/a")
    columns = {name: {"Description": text} for name, text in COLUMNS.items()}
    write_json(paths.morph.with_suffix(".json"), columns)
    write_label_table(paths.labels, label_set)


@dataclass(frozen=True)
class Provenance:
    """How a result came to be; goes into every image's sidecar.

    Attributes
    ----------
    sources : list of str
        BIDS URIs of the T1w and of the brain mask that was given, see `sources_of`.
    source_sha256 : str
    mask_sha256 : str or None
        Of the brain mask that was given.
    model, model_sha256 : str
    pooling : Pooling or None
        See `Plan.pooling`.
    smoothing : int
        See `Plan.smoothing`.
    settings : Settings
    extraction : str
        Brain extraction that was carried out.
    mask_mm3 : float
        Volume of the brain mask, the group level's stand-in for intracranial volume.
    image : ImageQuality
    plausibility : Plausibility
    warnings : tuple of str
    """

    sources: list[str]
    source_sha256: str
    mask_sha256: str | None
    model: str
    model_sha256: str
    pooling: Pooling | None
    smoothing: int
    settings: Settings
    extraction: str
    mask_mm3: float
    image: ImageQuality
    plausibility: Plausibility
    warnings: tuple[str, ...]

    def sidecar(self, description: str, **more: Any) -> dict[str, Any]:
        """JSON content for one derivative."""
        return {
            "Description": description,
            "Sources": self.sources,
            "SpatialReference": self.sources[0],  # on another grid, too, they lie on the T1w
            **more,
            "HetsegVersion": __version__,
            "HetsegModel": self.model,
            "HetsegModelSHA256": self.model_sha256,
            "HetsegPooling": asdict(self.pooling) if self.pooling else None,
            "HetsegImageSmoothing": self.smoothing,
            "HetsegSourceSHA256": self.source_sha256,
            "HetsegMaskSHA256": self.mask_sha256,
            "HetsegSettings": asdict(self.settings),
            "HetsegBrainExtraction": self.extraction,
            "HetsegBrainMaskVolume": round(self.mask_mm3, 1),
            "HetsegImageQuality": self.image.for_record(),
            "HetsegPlausibility": self.plausibility.for_record(),
            "HetsegWarnings": list(self.warnings),
        }


def write_sidecars(
    paths: OutputPaths, provenance: Provenance, label_set: LabelSet, *, flip: bool
) -> None:
    """Write every sidecar, the dseg's last."""
    names = list(label_set.names)
    resolution = {}
    if provenance.settings.output_resolution == "1mm":
        resolution = {"Resolution": {"1mm": "1 mm isotropic, RAS"}}
    write_json(
        _sidecar(paths.mask),
        provenance.sidecar("Brain mask", Type="Brain", **resolution),
    )
    if flip:
        text = "Probability, 0-0.5, that the label of a structure disagrees with the reference"
        write_json(_sidecar(paths.flip), provenance.sidecar(text, LabelMap=names, **resolution))
    if provenance.settings.write_probseg:
        text = "Probability that the reference holds a structure there"
        write_json(_sidecar(paths.probseg), provenance.sidecar(text, LabelMap=names, **resolution))
    text = f"{len(names)} brain structures" + (", FreeSurfer aseg ids" if label_set == ASEG else "")
    write_json(paths.record, provenance.sidecar(text, **resolution))


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def remove(path: Path) -> None:
    """Remove an image with its sidecar, the sidecar first, if they are there."""
    for file in (_sidecar(path), path):
        file.unlink(missing_ok=True)


def write_crash(out_dir: Path, stem: str, text: str) -> Path:
    """Write a crash file; returns its path."""
    now = datetime.datetime.now(tz=datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    path = out_dir / "logs" / f"crash-{stem}-{now}.txt"
    write_text(path, text)
    return path
