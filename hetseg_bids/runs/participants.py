"""One call of ``hetseg ... participant``: prepare the output folder, run the scans, report."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from hetseg_bids.config import RunConfig, Selection
from hetseg_bids.dataset.discovery import Found, Scan, find_scans
from hetseg_bids.dataset.files import find_images
from hetseg_bids.dataset.validator import validated
from hetseg_bids.errors import COLON, HeldError, OptionError, OutputError
from hetseg_bids.network.devices import keep_freed_memory, resolve_device
from hetseg_bids.network.models import load_model
from hetseg_bids.outputs.derivatives import check_inside
from hetseg_bids.outputs.description import write_dataset_description
from hetseg_bids.runs.locks import claimed
from hetseg_bids.runs.scan import Outcome, ScanStages, report_loss
from hetseg_bids.runs.workers import run_scans

log = logging.getLogger(__name__)


def run_participants(config: RunConfig) -> int:
    """Segment the selected scans.

    Returns
    -------
    code : int
        Exit code: 1 if a scan failed, otherwise 0.

    Raises
    ------
    DatasetError, ModelError, OptionError, OutputError
        If the dataset, the model, an option or the output folder can't be used.
    """
    found = _find(config)
    if config.dry_run:
        return _list(found)
    _choose_temporary_folder(config.execution.work_dir)
    resolve_device(config.device)  # raises before anything is written to OUT
    model = load_model(config.settings.model, torch.device("cpu"))
    model.plan.division(config.settings.structures)  # raises where the model lacks some
    # what is written down is what is done
    mirror = config.settings.mirror and model.plan.mirror
    config = replace(config, settings=replace(config.settings, mirror=mirror))
    if config.bids_dir is None:  # every worker gets `config`: without a list of thousands of files
        config = replace(config, selection=Selection())
    _prepare_output(config)
    total = len(found.refused) + len(found.scans)
    keep_freed_memory()  # before the display has a thread
    display = _Display(found)
    failed = 0
    outcomes = _outcomes(found, config, display)
    with _validation(config), contextlib.closing(outcomes), contextlib.closing(display):
        for outcome in outcomes:
            display.finished(outcome)
            failed += outcome.status == "failed"
    if failed:
        print(f"{failed} of {total} scans failed", file=sys.stderr)
    return 1 if failed else 0


def _find(config: RunConfig) -> Found:
    if config.bids_dir is not None:
        return find_scans(config.bids_dir, config.selection)
    _check_apart(config.out_dir, config.selection.images)
    return find_images(config.selection.images, config.out_dir)


def _list(found: Found) -> int:
    for scan in found.scans:
        print(scan.path)
    for scan, why in found.refused:
        print(f"{scan.path}: {why}", file=sys.stderr)
    return 1 if found.refused else 0


def _outcomes(found: Found, config: RunConfig, stages: ScanStages) -> Generator[Outcome]:
    """Outcomes of the refused scans, then those of the others as they end."""
    for scan, why in found.refused:
        yield report_loss(scan, config, why)
    if found.scans and not (found.refused and config.stop_on_first_crash):
        yield from run_scans(found.scans, config, stages)


def _choose_temporary_folder(work_dir: Path | None) -> None:
    if work_dir is not None:
        tempfile.tempdir = str(work_dir.resolve())
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise OptionError(
            "no writable folder for temporary files",
            "give one with -w, set TMPDIR, or in a read-only container mount one "
            "(docker run --tmpfs /tmp)",
            form=COLON,
        ) from None


def _validation(config: RunConfig) -> contextlib.AbstractContextManager[None]:
    """Print the validator's errors; not in jobs for a few participants of a large dataset."""
    selection, bids_dir = config.selection, config.bids_dir
    if bids_dir is None or not selection.validate:
        return contextlib.nullcontext()
    if selection.participants or config.reports_only:
        return contextlib.nullcontext()

    def tell(complaint: str) -> None:
        remark = "hetseg goes on (--skip-bids-validation spares this)"
        tqdm.write(f"{bids_dir}: {complaint}; {remark}", file=sys.stderr)

    log.info("%s: asking the BIDS validator", bids_dir)
    return validated(bids_dir, tell)


def _prepare_output(config: RunConfig) -> None:
    out = config.out_dir
    if config.bids_dir is not None and out.resolve() == config.bids_dir.resolve():
        raise OutputError("the output folder is the dataset itself", "choose another", path=out)
    check_inside(out / "logs", out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError(13, "not writable")
        # a run that doesn't get the lock writes nothing: both would write the same
        with contextlib.suppress(HeldError), claimed(out / "logs" / ".dataset.lock", out):
            if config.bids_dir is not None:
                write_dataset_description(out, config.bids_dir)
    except OSError as error:
        raise OutputError(f"can't write there ({error.strerror or error})", path=out) from None


def _check_apart(out: Path, images: Sequence[Path]) -> None:
    """Refuse an output folder for results without a dataset that holds something else."""
    if out.resolve() in [image.resolve() for image in images]:
        raise OutputError("the output folder is the input folder", "choose another", path=out)
    if (out / "dataset_description.json").exists():
        raise OutputError(
            "it is a BIDS dataset, and results of files without one aren't BIDS",
            "choose another output folder",
            path=out,
        )


class _Display(ScanStages):
    """A progress bar for the scan that was begun last, and a line for each finished one."""

    def __init__(self, found: Found) -> None:
        scans = [scan for scan, _ in found.refused] + found.scans
        self._n = len(scans)
        self._numbers = {scan.path: number for number, scan in enumerate(scans, 1)}
        self._newest = 0
        self._count = 0
        self._bar = tqdm(unit="slice", leave=False, disable=None, dynamic_ncols=True)
        self._turn = threading.Lock()  # scans that overlap call from threads of their own

    def stage(self, scan: Scan, name: str) -> None:
        number = self._numbers[scan.path]
        where = f"[{number}/{self._n}]"
        with self._turn:
            if number >= self._newest:  # of an earlier scan, the last steps aren't shown
                self._newest = number
                self._bar.reset()
                self._bar.set_description(f"{where} {name}")
            if log.isEnabledFor(logging.INFO):  # with -v, also where there is no bar
                tqdm.write(f"{where} {scan.stem}: {name}", file=sys.stderr)

    def slices(self, scan: Scan, done: int, total: int) -> None:
        with self._turn:
            if self._numbers[scan.path] == self._newest:
                self._bar.total = total
                self._bar.update(done)

    def finished(self, outcome: Outcome) -> None:
        """Print the outcome of a scan."""
        self._count += 1
        where = f"[{self._count}/{self._n}] {outcome.scan.stem}"
        if outcome.status == "failed":
            crash = f" (details: {outcome.crash_file})" if outcome.crash_file else ""
            tqdm.write(f"{where}: FAILED: {outcome.message}{crash}", file=sys.stderr)
        else:
            word = "report" if outcome.status == "done" else "complete already, report"
            tqdm.write(f"{where}: {word} {outcome.message}", file=sys.stdout)

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()
