"""A scan that is to be processed: its files, and whether its results are there already."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hetseg_bids import __version__
from hetseg_bids.config import RunConfig
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.dataset.files import is_there, mask_beside, path_from
from hetseg_bids.dataset.lesion_masks import NO_MASK, FoundLesionMask, find_lesion_mask
from hetseg_bids.errors import DatasetError, MaskError, OutputError
from hetseg_bids.files import read_json, read_sidecar
from hetseg_bids.network.models import Model, file_sha256, head_model_beside
from hetseg_bids.outputs.derivatives import OutputPaths, output_paths, sources_of, use_of
from hetseg_bids.outputs.intracranial import measured_with
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.segmentation.wholes import is_whole_table
from hetseg_bids.structures.atlas import load_atlas
from hetseg_bids.structures.label_tables import read_label_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A scan, how it is to be processed, and where its results go.

    Attributes
    ----------
    scan : Scan
    config : RunConfig
    model : Model
    paths : OutputPaths
    mask_path : Path or None
        The brain mask that belongs to the scan, where the settings ask for one.
    lesion_mask : FoundLesionMask
        The lesion mask that belongs to it, where the settings ask for one and it has one.
    """

    scan: Scan
    config: RunConfig
    model: Model
    paths: OutputPaths
    mask_path: Path | None
    lesion_mask: FoundLesionMask

    @classmethod
    def of(cls, scan: Scan, config: RunConfig, model: Model) -> Job:
        """The job, with the masks that the settings ask for.

        Raises
        ------
        MaskError
            If there is no such brain mask, or several lesion masks.
        """
        paths = output_paths(config.out_dir, scan, config.settings)
        return cls(
            scan, config, model, paths, _mask_of(scan, config), _lesion_mask_of(scan, config)
        )

    @property
    def sources(self) -> list[str]:
        """See `derivatives.sources_of`; without a dataset, paths from the output folder."""
        masks = (self.mask_path, self.lesion_mask.path)
        if self.config.bids_dir is not None:
            return sources_of(self.scan.path, masks, self.config.bids_dir)
        files = [path for path in (self.scan.path, *masks) if path is not None]
        return [path_from(self.config.out_dir, path) for path in files]


def check_owner(job: Job) -> None:
    """Without a dataset, refuse to replace the results of another image of the same name.

    Jobs that are given one ``T1.nii.gz`` each don't know of each other's.
    """
    if job.config.bids_dir is not None:
        return
    for path in job.paths.folder.glob("*_dseg.json"):
        try:
            record = read_json(path)
        except (OSError, ValueError):
            continue
        t1w, sha256 = (record.get("Sources") or [None])[0], record.get("HetsegSourceSHA256")
        if t1w != job.sources[0] and sha256 != file_sha256(job.scan.path):
            raise OutputError(
                f"{job.paths.folder} holds the results of another image ({t1w})",
                "give another output folder, or both images in one call",
                path=job.scan.path,
            )


def sha256_of(path: Path | None) -> str | None:
    """Checksum of a file, None of none."""
    return None if path is None else file_sha256(path)


def is_complete(job: Job) -> bool:
    """Whether the results on disk are those that this input, model and settings would give.

    The sidecar of the dseg is written last, so it exists only if everything else does, and it
    holds the checksums of everything that the results depend on.
    """
    paths, plan, settings = job.paths, job.model.plan, job.config.settings
    try:
        record = read_json(paths.record)
        atlas = Plausibility.of_record(record).atlas
        names = read_label_table(paths.labels).names
    except (OSError, ValueError, DatasetError):
        return False
    wanted = [paths.dseg, paths.mask, paths.morph, paths.labels]
    if plan.heteroscedastic:
        wanted.append(paths.flip_probability)
    if settings.write_probseg:
        wanted.append(paths.probseg)
    return (
        all(path.is_file() for path in wanted)
        # of files without a dataset the content counts: they may be moved
        and (job.config.bids_dir is None or record.get("Sources") == job.sources)
        and is_whole_table(paths.morph, names)
        and "HetsegTurnedDegrees" in record  # earlier results weren't made upright
        and record.get("HetsegVersion") == __version__
        and record.get("HetsegModelSHA256") == plan.weights_sha256
        and all(record.get(key) == value for key, value in use_of(plan).items())
        and measured_with(record, head_model_beside(job.model).plan, paths)
        and atlas in (None, load_atlas().version)  # None: not compared with any
        and record.get("HetsegSettings") == json.loads(json.dumps(asdict(settings)))
        and record.get("HetsegSourceSHA256") == file_sha256(job.scan.path)
        and record.get("HetsegMaskSHA256") == sha256_of(job.mask_path)
        and record.get("HetsegLesionSHA256") == sha256_of(job.lesion_mask.path)
        and _lesion_doubts(record) == [doubt for doubt in (job.lesion_mask.doubt,) if doubt]
    )


def _lesion_doubts(record: dict[str, Any]) -> list[str]:
    warnings = [str(text) for text in record.get("HetsegWarnings") or ()]
    return [text for text in warnings if text.startswith(NO_MASK)]


def _lesion_mask_of(scan: Scan, config: RunConfig) -> FoundLesionMask:
    """The lesion mask of a scan, where the settings ask for it."""
    if config.settings.lesion_mask == "none":
        return FoundLesionMask()
    found = find_lesion_mask(scan, config.bids_dir)
    log.info("%s: lesion mask: %s", scan.stem, found.path or found.doubt or "none")
    return found


def _is_ours(mask: Path) -> bool:
    """Whether an earlier run of hetseg wrote a mask: that is none that was given."""
    return "HetsegVersion" in read_sidecar(mask)


def _mask_of(scan: Scan, config: RunConfig) -> Path | None:
    """The brain mask of a scan: beside it, or in a dataset under derivatives/."""
    if config.settings.brain_extraction != "mask":
        return None
    if config.bids_dir is None:
        return mask_beside(scan.path)
    root = config.bids_dir.resolve()
    folders = [scan.path.parent, *sorted(root.glob(f"derivatives/*/{scan.folder}"))]
    for folder in folders:
        for ending in ("_desc-brain_mask.nii.gz", "_desc-brain_mask.nii"):
            mask = folder / f"{scan.stem}{ending}"
            if is_there(mask) and not _is_ours(mask):
                return mask
    raise MaskError(
        f"--brain-extraction mask needs {scan.stem}_desc-brain_mask.nii.gz beside it or under "
        "derivatives/*/",
        path=scan.path,
    )
