"""Runs that end at a time instead of after a number of samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from hetseg_bids.training.trainer import StepReport, Trainer

_LOOK_EVERY = 10.0  # seconds


def paced(
    trainer: Trainer,
    reports: Iterable[StepReport],
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[StepReport]:
    """Yield the reports, and let the run end after as many samples as the time allows.

    The first step isn't used to measure the pace, because it may have compiled the network.

    Parameters
    ----------
    trainer : Trainer
        Its number of samples is changed; the learning rate then falls until the time is over.
    reports : iterable of StepReport
        Of `trainer.run`, not yet begun.
    minutes : float
        From now.
    clock : callable
        Returns seconds.
    """
    end = clock() + 60 * minutes
    first: tuple[float, int] | None = None
    looked = 0.0
    for report in reports:
        now = clock()
        if first is None:
            first, looked = (now, report.samples), now
        elif now - looked >= _LOOK_EVERY:
            pace = (report.samples - first[1]) / (now - first[0])
            batch = trainer.config.batch
            left = int(pace * max(0.0, end - now)) // batch * batch
            trainer.replan(report.samples + left)
            looked = now
        yield report
