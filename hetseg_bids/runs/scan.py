"""One scan from file to report; a scan that fails doesn't stop the others."""

from __future__ import annotations

import datetime
import errno
import json
import logging
import platform
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from hetseg_bids import __version__
from hetseg_bids.config import RunConfig, Settings
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.errors import HetsegError, MaskError, OptionError, OutputError
from hetseg_bids.files import read_json, remove_leftovers, write_json
from hetseg_bids.network.devices import device_name, return_freed_memory, sparing_memory
from hetseg_bids.network.models import Model, file_sha256, load_head_model
from hetseg_bids.outputs import derivatives
from hetseg_bids.outputs.derivatives import OutputPaths, Provenance, output_paths, sources_of
from hetseg_bids.outputs.intracranial import head_facts, measured_with, write_intracranial
from hetseg_bids.preprocessing.conform import interpolation_blur, resample
from hetseg_bids.preprocessing.pipeline import PreparedImage, prepare_image
from hetseg_bids.quality.image_quality import quality_of
from hetseg_bids.reports.participant import Shown, write_report
from hetseg_bids.runs.locks import claimed, lock_beside
from hetseg_bids.runs.memory import check_room
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.intracranial import Intracranial, measure_intracranial
from hetseg_bids.segmentation.labels import Segmentation, segment
from hetseg_bids.segmentation.morphometry import has_columns, measure
from hetseg_bids.segmentation.plausibility import Plausibility, doubt_implausible_
from hetseg_bids.segmentation.wholes import whole_rows, with_wholes
from hetseg_bids.structures.atlas import load_atlas

log = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)
Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True)
class Outcome:
    """How the processing of a scan ended.

    Attributes
    ----------
    scan : Scan
    status : {"done", "skipped", "failed"}
        ``skipped``: its results were complete already.
    message : str
        One line: the path of the page, or what went wrong.
    crash_file : Path or None
        Traceback of a failed scan; None if it didn't fail, or the file couldn't be written.
    """

    scan: Scan
    status: Status
    message: str
    crash_file: Path | None = None


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
    """

    scan: Scan
    config: RunConfig
    model: Model
    paths: OutputPaths
    mask_path: Path | None

    @property
    def sources(self) -> list[str]:
        """See `derivatives.sources_of`."""
        return sources_of(self.scan.path, self.mask_path, self.config.bids_dir)


class ScanStages:
    """Callbacks for a progress display; this one shows nothing."""

    def stage(self, name: str) -> None:
        """A new step begins."""

    def slices(self, done: int, total: int) -> None:
        """`done` more of the `total` slices were predicted."""


def run_scan(
    scan: Scan,
    config: RunConfig,
    model: Model,
    stages: ScanStages | None = None,
    room_gb: float | None = None,
) -> Outcome:
    """Process one scan from file to report; an exception becomes an outcome and a crash file.

    Parameters
    ----------
    scan : Scan
    config : RunConfig
    model : Model
    stages : ScanStages, optional
    room_gb : float, optional
        Memory of this process, GB of 10^9 bytes: a scan that needs more isn't begun.

    Returns
    -------
    outcome : Outcome
        Also for a scan that failed: nothing is raised.
    """
    try:
        return _run_scan(scan, config, model, stages or ScanStages(), room_gb)
    except Exception as error:  # the failure of one scan must not stop the others
        line = " ".join(str(_explained(error, scan)).split())
        crash = _try_write_crash(config, scan, traceback.format_exc())
        log.debug("%s", line, exc_info=True)
        return Outcome(scan, "failed", line, crash)


def _explained(error: Exception, scan: Scan) -> HetsegError:
    """The exception as an error of hetseg, with the remedy where it is known."""
    if isinstance(error, HetsegError):
        return error
    if isinstance(error, OSError) and error.errno in _FULL:
        problem = f"no room for its results ({error.strerror})"
        return OutputError(problem, "free some and run again", path=scan.path)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if memory or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        remedy = "allow more, or give fewer --nprocs or --device cpu"
        return OptionError("out of memory", remedy, path=scan.path)
    return HetsegError(f"{type(error).__name__}: {error}", path=scan.path)


def report_loss(scan: Scan, config: RunConfig, why: str) -> Outcome:
    """The outcome and the crash file of a scan that failed outside of `run_scan`."""
    line = " ".join(str(HetsegError(why, path=scan.path)).split())
    return Outcome(scan, "failed", line, _try_write_crash(config, scan, line))


def _try_write_crash(config: RunConfig, scan: Scan, trace: str) -> Path | None:
    text = f"hetseg {__version__}\ncommand: {config.command}\ninput: {scan.path}\n\n{trace}"
    try:
        return derivatives.write_crash(config.out_dir, scan.stem, text)
    except OSError as error:
        log.error("no crash file could be written: %s", error)
        return None


def _run_scan(
    scan: Scan, config: RunConfig, model: Model, stages: ScanStages, room_gb: float | None
) -> Outcome:
    paths = output_paths(config.out_dir, scan, config.settings)
    derivatives.check_inside(paths.folder, config.out_dir)
    job = Job(scan, config, model, paths, _mask_of(scan, config))
    complete = not config.overwrite and is_complete(job)
    if config.reports_only:
        if not complete:
            raise OutputError(
                "no complete results to report", "run without that option", path=scan.path
            )
        return Outcome(scan, "done", str(_report(paths, scan)))
    lock = lock_beside(paths.run_log, paths.report)
    if not complete or lock.exists():  # a killed run's lock file is removed with ours
        with claimed(lock, scan.path):
            # another run may have finished the scan in the meantime
            if config.overwrite or not is_complete(job):
                check_room(scan.path, config.settings, room_gb)
                return _make(job, stages)
    if not paths.report.exists():
        _report(paths, scan)
    return Outcome(scan, "skipped", str(paths.report))


def _make(job: Job, stages: ScanStages) -> Outcome:
    scan, config = job.scan, job.config
    remove_leftovers(job.paths.files)
    started, clock = datetime.datetime.now(tz=datetime.UTC), time.monotonic()
    stages.stage("brain extraction")
    with sparing_memory():
        prepared = prepare_image(scan.path, config.settings.brain_extraction, job.mask_path)
    stages.stage("segmentation")
    result, plausibility = _segment(prepared, job.model, config.settings, stages)
    found = measure_intracranial(_head_model(job.model), prepared, result)
    stages.stage("writing")
    mask = _write(job, prepared, result, plausibility, found)
    facts = {
        "Command line": config.command,
        "Started": started.isoformat(timespec="seconds"),
        "Run time without the report": f"{time.monotonic() - clock:.1f} s",
        "Device": device_name(next(job.model.network.parameters()).device),
        "Host": platform.node(),
    }
    write_json(job.paths.run_log, facts)
    shown = Shown.of(result, mask)
    del prepared, result
    return_freed_memory()
    stages.stage("report")
    return Outcome(scan, "done", str(_report(job.paths, scan, shown)))


def _head_model(model: Model) -> Model:
    """The head model, on the device of another one."""
    return load_head_model(next(model.network.parameters()).device)


def _report(paths: OutputPaths, scan: Scan, shown: Shown | None = None) -> Path:
    """Write the page, with the run's facts where they are known."""
    try:
        facts = read_json(paths.run_log)
    except (OSError, ValueError):
        facts = {}
    return write_report(paths, scan.path, {str(k): str(v) for k, v in facts.items()}, shown)


def _segment(
    prepared: PreparedImage, model: Model, settings: Settings, stages: ScanStages
) -> tuple[Segmentation, Plausibility]:
    output = prepared.native if settings.output_resolution == "native" else prepared.working
    division = model.plan.division(settings.structures)
    logits = predict(
        model,
        prepared.image,
        prepared.mask,
        views=settings.views,
        mirror=settings.mirror,
        blur=interpolation_blur(prepared.working, output),
        parts=division.of_parts,
        progress=stages.slices,
    )
    return_freed_memory()
    plausibility = doubt_implausible_(logits, prepared.working)
    result = segment(
        logits, prepared.working, output, division=division, probability=settings.write_probseg
    )
    return result, plausibility


def _write(
    job: Job,
    prepared: PreparedImage,
    result: Segmentation,
    plausibility: Plausibility,
    found: Intracranial,
) -> npt.NDArray[np.uint8]:
    """Write all derivatives; returns the brain mask on the result's grid."""
    paths = job.paths
    # from here on the old result isn't complete; files that this run won't write must not stay
    for stale in (paths.dseg, paths.probseg, paths.flip_probability, paths.intracranial):
        derivatives.remove(stale)
    inside = resample(prepared.mask.float()[None], prepared.working, result.grid)[0] > 0.5
    mask = inside.numpy().astype(np.uint8)
    with ThreadPoolExecutor(1) as beside:  # compression takes another core
        writing = beside.submit(derivatives.write_images, paths, result, mask)
        quality = quality_of(prepared, result)
        writing.result()
    provenance = Provenance(
        sources=job.sources,
        source_sha256=file_sha256(job.scan.path),
        mask_sha256=file_sha256(job.mask_path) if job.mask_path else None,
        plan=job.model.plan,
        settings=job.config.settings,
        extraction=prepared.extraction,
        mask_mm3=float(inside.sum()) * result.grid.voxel_volume,
        image=quality,
        plausibility=plausibility,
        warnings=prepared.warnings,
        head=head_facts(found, _head_model(job.model).plan),
    )
    table = measure(
        result,
        noise=quality.noise,
        surplus_mm3=plausibility.surplus_mm3,
        divided=job.model.plan.division(job.config.settings.structures).divided,
    )
    whole = with_wholes(table, whole_rows(table, found))
    derivatives.write_tables(paths, whole, result.label_set)
    write_intracranial(paths, found, result.grid, provenance)
    there = result.flip_probability is not None
    derivatives.write_sidecars(paths, provenance, result.label_set, flip_probability=there)
    return mask


def is_complete(job: Job) -> bool:
    """Whether the results on disk are those that this input, model and settings would give.

    The sidecar of the dseg is written last, so it exists only if everything else does, and it
    holds the checksums of everything that the results depend on.
    """
    paths, plan, settings = job.paths, job.model.plan, job.config.settings
    try:
        record = read_json(paths.record)
        atlas = Plausibility.of_record(record).atlas
    except (OSError, ValueError):
        return False
    wanted = [paths.dseg, paths.mask, paths.morph, paths.labels]
    if plan.heteroscedastic:
        wanted.append(paths.flip_probability)
    if settings.write_probseg:
        wanted.append(paths.probseg)
    return (
        all(path.is_file() for path in wanted)
        and record.get("Sources") == job.sources
        and has_columns(paths.morph)
        and record.get("HetsegVersion") == __version__
        and record.get("HetsegModelSHA256") == plan.weights_sha256
        and record.get("HetsegPooling") == (plan.pooling and asdict(plan.pooling))
        and record.get("HetsegImageSmoothing") == plan.smoothing
        and measured_with(record, _head_model(job.model).plan, paths)
        and atlas in (None, load_atlas().version)  # None: not compared with any
        and record.get("HetsegSettings") == json.loads(json.dumps(asdict(settings)))
        and record.get("HetsegSourceSHA256") == file_sha256(job.scan.path)
        and record.get("HetsegMaskSHA256")
        == (file_sha256(job.mask_path) if job.mask_path else None)
    )


def _mask_of(scan: Scan, config: RunConfig) -> Path | None:
    """The brain mask of a scan: beside it, or in a dataset under derivatives/."""
    if config.settings.brain_extraction != "mask":
        return None
    root = config.bids_dir.resolve()
    folders = [scan.path.parent, *sorted(root.glob(f"derivatives/*/{scan.anat_folder}"))]
    for folder in folders:
        for ending in ("_desc-brain_mask.nii.gz", "_desc-brain_mask.nii"):
            if (folder / f"{scan.stem}{ending}").is_file():
                return folder / f"{scan.stem}{ending}"
    raise MaskError(
        f"--brain-extraction mask needs {scan.stem}_desc-brain_mask.nii.gz beside it or under "
        "derivatives/*/",
        path=scan.path,
    )
