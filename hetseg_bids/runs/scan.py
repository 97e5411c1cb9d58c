"""One scan from file to report; a scan that fails doesn't stop the others."""

from __future__ import annotations

import datetime
import errno
import logging
import platform
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from hetseg_bids import __version__
from hetseg_bids.config import RunConfig
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.errors import HetsegError, OptionError, OutputError
from hetseg_bids.files import read_json, remove_leftovers, write_json
from hetseg_bids.network.devices import device_name, return_freed_memory, sparing_memory
from hetseg_bids.network.models import Model, file_sha256, head_model_beside
from hetseg_bids.outputs import derivatives
from hetseg_bids.outputs.derivatives import Provenance
from hetseg_bids.outputs.intracranial import head_facts, write_intracranial
from hetseg_bids.preprocessing.conform import resample
from hetseg_bids.preprocessing.pipeline import PreparedImage, prepare_image
from hetseg_bids.quality.image_quality import quality_of
from hetseg_bids.reports.participant import Shown, write_report
from hetseg_bids.runs.jobs import Job, check_owner, is_complete, sha256_of
from hetseg_bids.runs.locks import claimed, lock_beside
from hetseg_bids.runs.memory import check_room
from hetseg_bids.runs.turns import Turn, Turns
from hetseg_bids.segmentation.intracranial import Intracranial, measure_intracranial
from hetseg_bids.segmentation.labels import Segmentation, segment
from hetseg_bids.segmentation.lesioned import GivenLesion
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.plausibility import Plausibility, doubt_implausible_
from hetseg_bids.segmentation.upright import predict_upright
from hetseg_bids.segmentation.wholes import whole_rows, with_wholes

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


class ScanStages:
    """Callbacks for a progress display; this one shows nothing.

    Scans that overlap call it from threads of their own.
    """

    def stage(self, scan: Scan, name: str) -> None:
        """A new step of a scan begins."""

    def slices(self, scan: Scan, done: int, total: int) -> None:
        """`done` more of the `total` slices of a scan were predicted."""


def run_scan(
    scan: Scan,
    config: RunConfig,
    model: Model,
    stages: ScanStages | None = None,
    room_gb: float | None = None,
    turns: Turns | None = None,
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
    turns : Turns, optional
        What it shares with scans that the process works on at the same time.

    Returns
    -------
    outcome : Outcome
        Also for a scan that failed: nothing is raised.
    """
    try:
        job = Job.of(scan, config, model)
        return _run_job(job, stages or ScanStages(), room_gb, turns or Turns())
    except Exception as error:  # the failure of one scan must not stop the others
        line = " ".join(str(explained(error, scan.path)).split())
        crash = _try_write_crash(config, scan, traceback.format_exc())
        log.debug("%s", line, exc_info=True)
        return Outcome(scan, "failed", line, crash)


def explained(error: Exception, t1w: Path) -> HetsegError:
    """The exception that a scan ended with as an error of hetseg, with the remedy if known."""
    if isinstance(error, HetsegError):
        return error
    if isinstance(error, OSError) and error.errno in _FULL:
        problem = f"no room for its results ({error.strerror})"
        return OutputError(problem, "free some and run again", path=t1w)
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if memory or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        remedy = "allow more, or give fewer --nprocs or --device cpu"
        return OptionError("out of memory", remedy, path=t1w)
    return HetsegError(f"{type(error).__name__}: {error}", path=t1w)


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


def _run_job(job: Job, stages: ScanStages, room_gb: float | None, turns: Turns) -> Outcome:
    scan, config, paths = job.scan, job.config, job.paths
    derivatives.check_inside(paths.folder, config.out_dir)
    complete = not config.overwrite and is_complete(job)
    if config.reports_only:
        if not complete:
            raise OutputError(
                "no complete results to report", "run without that option", path=scan.path
            )
        return Outcome(scan, "done", str(_report_again(job, turns)))
    lock = lock_beside(paths.run_log, paths.report)
    if not complete or lock.exists():  # a killed run's lock file is removed with ours
        with claimed(lock, scan.path):
            # another run may have finished the scan in the meantime
            if config.overwrite or not is_complete(job):
                check_owner(job)
                check_room(scan.path, config.settings, room_gb)
                with turns.turn(scan.path, config.settings) as turn:
                    return _make(job, stages, turn)
    if not paths.report.exists():
        _report_again(job, turns)
    return Outcome(scan, "skipped", str(paths.report))


def _make(job: Job, stages: ScanStages, turn: Turn) -> Outcome:
    scan, config = job.scan, job.config
    remove_leftovers(job.paths.files)
    started, clock = datetime.datetime.now(tz=datetime.UTC), time.monotonic()
    stages.stage(scan, "brain extraction")
    with sparing_memory():
        method, lesion = config.settings.brain_extraction, job.lesion_mask.path
        prepared = prepare_image(scan.path, method, job.mask_path, lesion, job.model.device)
    turn.to_network()
    stages.stage(scan, "segmentation")
    result, plausibility, turned_deg = _segment(prepared, job, stages)
    found = measure_intracranial(head_model_beside(job.model), prepared, result)
    device = device_name(job.model.device)
    turn.to_finish()
    stages.stage(scan, "writing")
    mask = _write(job, prepared, result, plausibility, turned_deg, found)
    facts = {
        "Command line": config.command,
        "Started": started.isoformat(timespec="seconds"),
        "Run time without the report": f"{time.monotonic() - clock:.1f} s",
        "Device": device,
        "Host": platform.node(),
    }
    write_json(job.paths.run_log, facts)
    shown = Shown.of(result, mask, prepared)
    del prepared, result
    return_freed_memory()
    stages.stage(scan, "report")
    return Outcome(scan, "done", str(_report(job, shown)))


def _report_again(job: Job, turns: Turns) -> Path:
    """Write the page of complete results."""
    with turns.room.for_scan(job.scan.path, job.config.settings):
        return _report(job)


def _report(job: Job, shown: Shown | None = None) -> Path:
    """Write the page, with the run's facts where they are known."""
    try:
        facts = read_json(job.paths.run_log)
    except (OSError, ValueError):
        facts = {}
    run = {str(k): str(v) for k, v in facts.items()}
    return write_report(job.paths, job.scan.path, run, shown, job.lesion_mask.path)


def _segment(
    prepared: PreparedImage, job: Job, stages: ScanStages
) -> tuple[Segmentation, Plausibility, float]:
    """The segmentation, what is implausible of it, and how far the head was turned for it."""
    model, settings = job.model, job.config.settings
    output = prepared.native if settings.output_resolution == "native" else prepared.working
    division = model.plan.division(settings.structures)
    seen = predict_upright(
        model,
        prepared,
        output,
        views=settings.views,
        mirror=settings.mirror,
        parts=division.of_parts,
        progress=partial(stages.slices, job.scan),
    )
    return_freed_memory()
    plausibility = doubt_implausible_(seen.logits, seen.grid, prepared.lesion)
    result = segment(
        seen.logits,
        seen.grid,
        output,
        division=division,
        probability=settings.write_probseg,
        extent=seen.extent,
        lesion=prepared.lesion,
        label_lesion=settings.lesion_label == "surrounding",
    )
    return result, plausibility, seen.turned_deg


def _write(
    job: Job,
    prepared: PreparedImage,
    result: Segmentation,
    plausibility: Plausibility,
    turned_deg: float,
    found: Intracranial,
) -> npt.NDArray[np.uint8]:
    """Write all derivatives; returns the brain mask on the result's grid."""
    paths = job.paths
    # from here on the old result isn't complete; files that this run won't write must not stay
    maps = (paths.dseg, paths.probseg, paths.flip_probability, paths.intracranial)
    for stale in (*maps, paths.report):  # a page that is there is of the results
        derivatives.remove(stale)
    inside = resample(prepared.mask.float()[None], prepared.working, result.grid)[0] > 0.5
    mask = inside.numpy().astype(np.uint8)
    with ThreadPoolExecutor(1) as beside:  # compression takes another core
        writing = beside.submit(derivatives.write_images, paths, result, mask)
        quality = quality_of(prepared, result)
        writing.result()
    table = measure(
        result,
        noise=quality.noise,
        surplus_mm3=plausibility.surplus_mm3,
        divided=job.model.plan.division(job.config.settings.structures).divided,
    )
    provenance = Provenance(
        sources=job.sources,
        source_sha256=file_sha256(job.scan.path),
        mask_sha256=sha256_of(job.mask_path),
        plan=job.model.plan,
        settings=job.config.settings,
        extraction=prepared.extraction,
        mask_mm3=float(inside.sum()) * result.grid.voxel_volume,
        image=quality,
        plausibility=plausibility,
        turned_deg=turned_deg,
        warnings=(*prepared.warnings, *found.doubts, *filter(None, [job.lesion_mask.doubt])),
        lesion_sha256=sha256_of(job.lesion_mask.path),
        lesion=_given_lesion(job, prepared, table),
        head=head_facts(found, head_model_beside(job.model).plan),
    )
    whole = with_wholes(table, whole_rows(table, found))
    derivatives.write_tables(paths, whole, result.label_set)
    write_intracranial(paths, found, result.grid, provenance)
    there = result.flip_probability is not None
    derivatives.write_sidecars(paths, provenance, result.label_set, flip_probability=there)
    return mask


def _given_lesion(job: Job, prepared: PreparedImage, table: pd.DataFrame) -> GivenLesion | None:
    if prepared.lesion is None:
        return None
    names = table.loc[table["lesion_mm3"] > 0, "name"]
    return GivenLesion(job.sources[-1], prepared.lesion.ml, tuple(names))
