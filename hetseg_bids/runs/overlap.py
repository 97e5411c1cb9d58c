"""Scans in this process: one after another, or overlapping (`turns`)."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import closing

import torch

from hetseg_bids.config import RunConfig
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.network.devices import resolve_device, set_threads
from hetseg_bids.network.models import head_model_beside, load_model
from hetseg_bids.runs.memory import PROGRAM_GB
from hetseg_bids.runs.room import free_gb
from hetseg_bids.runs.scan import Outcome, ScanStages, run_scan
from hetseg_bids.runs.turns import Turns, in_order, scans_at_once


def run_here(
    scans: Sequence[Scan], config: RunConfig, stages: ScanStages | None
) -> Generator[Outcome]:
    """Process scans in this process, yielding the outcomes in their order.

    A generator that is closed early ends the scans that have begun; nothing of them stays half
    made.
    """
    set_threads(config.threads)
    device, room_gb = resolve_device(config.device), config.execution.mem_gb
    model = load_model(config.settings.model, device)
    head_model_beside(model)  # before there are threads
    free = free_gb() if room_gb is None else room_gb - PROGRAM_GB
    at_once = min(scans_at_once(device, torch.get_num_threads(), free), len(scans))
    turns = Turns(at_once, device, free)
    stoppable, crashed = _Stoppable(stages or ScanStages()), threading.Event()

    def run(scan: Scan) -> Outcome | None:
        if crashed.is_set():  # while scans before it, which are reported first, go on
            return None
        outcome = run_scan(scan, config, model, stoppable, room_gb, turns)
        if outcome.status == "failed" and config.stop_on_first_crash:
            crashed.set()
        return outcome

    found = in_order(run, scans, at_once, stoppable.stop)
    with closing(found):
        yield from (outcome for outcome in found if outcome is not None)


class _Stopped(BaseException):
    """The run ends, and a scan in another thread with it."""


class _Stoppable(ScanStages):
    """Passes calls on; after `stop` it ends the scans that call it."""

    def __init__(self, stages: ScanStages) -> None:
        self._stages = stages
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End each scan with its next call."""
        self._stopped.set()

    def stage(self, scan: Scan, name: str) -> None:
        self._check()
        self._stages.stage(scan, name)

    def slices(self, scan: Scan, done: int, total: int) -> None:
        self._check()
        self._stages.slices(scan, done, total)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _Stopped
