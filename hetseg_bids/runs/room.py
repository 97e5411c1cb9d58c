"""Memory for scans that a process works on at once: two only where both have room."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hetseg_bids.config import Settings
from hetseg_bids.errors import HetsegError
from hetseg_bids.runs.memory import Need, need_of

_NOTHING = Need(0.0, 0.0)
_UNKNOWN = Need(math.inf, math.inf)  # a scan that has to be alone
_KB = 1024
# where Linux says what a group of processes may use: the files of version 2 and of version 1
_GROUPS = {
    2: ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    1: (
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


class Room:
    """Memory that scans share; one is always let in, others where there is room for them.

    Parameters
    ----------
    free_gb : float or None
        GB of 10^9 bytes beside the program; None where no limit is known.

    Examples
    --------
    >>> room = Room(3.0)
    >>> with room.reserved(Need(1.6, 1.1)) as segmented:
    ...     room.has(1.6)
    ...     segmented()
    ...     room.has(1.6)
    False
    True
    """

    def __init__(self, free_gb: float | None = None) -> None:
        self._free = math.inf if free_gb is None else free_gb
        self._taken: dict[object, float] = {}
        self._changed = threading.Condition()

    def has(self, gb: float) -> bool:
        """Whether a scan that needs this much would be let in."""
        return not self._taken or sum(self._taken.values()) + gb <= self._free

    @contextmanager
    def for_scan(self, t1w: Path, settings: Settings) -> Iterator[Callable[[], None]]:
        """Room for a scan, see `reserved`; one whose need isn't known is alone."""
        need = _NOTHING
        if math.isfinite(self._free):
            # a file that can't be opened ends the scan, with a message, when it is read
            with suppress(HetsegError):
                need = need_of(t1w, settings) or _UNKNOWN
        with self.reserved(need) as segmented:
            yield segmented

    @contextmanager
    def reserved(self, need: Need) -> Iterator[Callable[[], None]]:
        """Wait until there is room, and keep it while the block runs.

        Yields
        ------
        segmented : callable
            To be called when the scan needs no more than `Need.finishing`.
        """
        scan = object()

        def take(gb: float) -> None:
            self._taken[scan] = gb
            self._changed.notify_all()

        def segmented() -> None:
            with self._changed:
                take(need.finishing)

        with self._changed:
            self._changed.wait_for(lambda: self.has(need.most))
            take(need.most)
        try:
            yield segmented
        finally:
            with self._changed:
                del self._taken[scan]
                self._changed.notify_all()


def free_gb(root: Path = Path("/")) -> float | None:
    """Memory that this process can still get, GB of 10^9 bytes; None where nothing says so.

    What the machine has left, what the limits of a container or a SLURM job leave, and what
    ``ulimit -v`` leaves: the least of them.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` of Linux lie.
    """
    left = [*_of_machine(root), *_of_groups(root), *_of_process(root)]
    return min(left) / 1e9 if left else None


def _of_machine(root: Path) -> Iterator[float]:
    facts = _facts(root / "proc/meminfo")
    if "MemAvailable:" in facts:
        yield facts["MemAvailable:"] * _KB
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS
        # what is free isn't known there: the other half is for the system and other programs
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def _of_groups(root: Path) -> Iterator[float]:
    """What is left of the limits of the control groups that the process is in."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, limit, usage, cached = _GROUPS[1 if controllers else 2]
        top = root / base
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(top):
                break
            most, used = _text(group / limit).strip(), _text(group / usage).strip()
            if most.isdigit() and used.isdigit():
                # files that were read and can be dropped don't count
                yield int(most) - int(used) + _facts(group / "memory.stat").get(cached, 0)


def _of_process(root: Path) -> Iterator[float]:
    try:
        import resource
    except ImportError:  # Windows
        return
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        yield most - _KB * _facts(root / "proc/self/status").get("VmSize:", 0)


def _facts(path: Path) -> dict[str, int]:
    """Names and numbers of a file with one pair a line."""
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    """What is in a file of the system; nothing where it can't be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
