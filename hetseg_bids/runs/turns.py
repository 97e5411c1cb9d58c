"""Scans that overlap: while one is written and its page drawn, the next one is segmented.

A scan stays in one thread from its first file to its last, so that locks, crash files and errors
are those of a run without overlap. What it takes turns for is here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from hetseg_bids.config import Settings
from hetseg_bids.network.devices import set_threads
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.runs.room import Room

_MOST_BESIDE_GPU = 4  # one is extracted, one in the network, two are finished
_LONGEST_WAIT = 1.0  # seconds
T = TypeVar("T")
R = TypeVar("R")


def scans_at_once(device: torch.device, threads: int, free_gb: float | None) -> int:
    """How many scans a process works on at once.

    On a CPU two, if it has several threads: most steps but the network leave all but one idle.
    Beside NVIDIA's GPUs as many as its threads can prepare and finish while the network has one.
    Apple's take the commands of one thread only. One where nothing says how much memory is free.

    Examples
    --------
    >>> cpu, gpu = torch.device("cpu"), torch.device("cuda")
    >>> scans_at_once(torch.device("mps"), 16, 20.0), scans_at_once(cpu, 16, None)
    (2, 1)
    >>> [scans_at_once(cpu, threads, 20.0) for threads in (1, 2, 16)]
    [1, 2, 2]
    >>> [scans_at_once(gpu, threads, 20.0) for threads in (1, 2, 16)]
    [2, 3, 4]
    """
    if free_gb is None:
        return 1
    if device.type != "cuda":
        return min(2, threads)
    return min(_MOST_BESIDE_GPU, 1 + threads)


class Turns:
    """What the scans share that a process works on at once.

    One at a time is extracted, and one at a time is segmented. On a CPU that is one turn, because
    both take all cores and much memory. Beside CUDA the next scan is extracted meanwhile.

    Parameters
    ----------
    at_once : int
        Scans in memory, each in a thread of its own.
    device : torch.device
        Of the network.
    free_gb : float, optional
        Memory for them, see `Room`; a scan that is always alone gets in anyway.
    """

    def __init__(
        self, at_once: int = 1, device: torch.device = CPU, free_gb: float | None = None
    ) -> None:
        self.at_once = at_once
        self.extraction = threading.RLock()
        self.network = self.extraction if device.type != "cuda" else threading.RLock()
        self.room = Room(free_gb if at_once > 1 else None)
        self.threads = torch.get_num_threads()

    @contextmanager
    def turn(self, t1w: Path, settings: Settings) -> Iterator[Turn]:
        """Wait until a scan may be extracted and there is memory for it."""
        with ExitStack() as lane:
            lane.enter_context(self.extraction)
            with self.room.for_scan(t1w, settings) as segmented:
                if self.at_once > 1:
                    set_threads(self.threads)
                yield Turn(self, lane, segmented)


class Turn:
    """The turn of one scan."""

    def __init__(self, turns: Turns, lane: ExitStack, segmented: Callable[[], None]) -> None:
        self._turns, self._lane, self._segmented = turns, lane, segmented

    def to_network(self) -> None:
        """Wait until the network is free; then the next scan may be extracted."""
        with self._lane.pop_all():  # on a CPU both are the same lock, and it is never free
            self._lane.enter_context(self._turns.network)

    def to_finish(self) -> None:
        """Let the next scan begin; what is left to do takes few threads and less memory."""
        self._segmented()
        self._lane.close()
        turns = self._turns
        if turns.at_once > 1:  # of this thread only
            set_threads(max(1, turns.threads // turns.at_once))


def in_order(
    function: Callable[[T], R], items: Iterable[T], at_once: int, stop: Callable[[], None]
) -> Generator[R]:
    """Results of some items at once, in the order of the items.

    Parameters
    ----------
    function : callable
        Called with each item; raises nothing.
    items : iterable
    at_once : int
        Threads; with 1 the caller's.
    stop : callable
        Called at the end, also if the caller wants no more results: makes `function` return or
        raise soon.

    Examples
    --------
    >>> list(in_order(abs, range(-5, 0), 2, lambda: None))
    [5, 4, 3, 2, 1]
    """
    if at_once == 1:  # in the main thread, where a signal stops it in the middle of a step
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(max(1, at_once))
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == 2 * at_once:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        stop()
        pool.shutdown(cancel_futures=True)


def _result(future: Future[R]) -> R:
    """The result; waits in pieces, because on Windows no signal ends a wait without a limit."""
    while True:
        done, _ = wait((future,), timeout=_LONGEST_WAIT)
        if done:
            return future.result()
