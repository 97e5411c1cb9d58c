"""Only one run at a time processes a scan, also where many runs share an output folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from hetseg_bids.errors import HeldError

log = logging.getLogger(__name__)


def lock_beside(run_log: Path, report: Path) -> Path:
    """The lock file of a scan, which exists only while a run processes it.

    Examples
    --------
    >>> lock_beside(Path("OUT/logs/sub-01_run.json"), Path("OUT/sub-01.html")).as_posix()
    'OUT/logs/.sub-01.lock'
    """
    return run_log.with_name(f".{report.stem}.lock")


@contextlib.contextmanager
def claimed(path: Path, what: Path) -> Iterator[None]:
    """Hold the lock file `path` while the block runs, and remove it afterwards.

    A run that is killed leaves the file, but the system releases the lock.

    Parameters
    ----------
    path : Path
    what : Path
        The scan or folder that it is held for, named in the message.

    Raises
    ------
    HeldError
        If another process, on this machine or another, holds it.

    Examples
    --------
    >>> path = getfixture("tmp_path") / ".sub-01.lock"
    >>> with claimed(path, "sub-01"):
    ...     path.exists()
    True
    >>> path.exists()
    False
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise HeldError(
            "another run is at work on it",
            "give the command again when that has ended",
            path=what,
        ) from None
    except OSError as error:
        # some network file systems have no locks; results are renamed into place all the same
        log.debug("%s: no lock (%s)", path, error)
    try:
        yield
    finally:
        if lock.is_locked:
            # removed before it is released: a run that waits for it then makes a new file
            with contextlib.suppress(PermissionError):  # of Windows, where releasing removes it
                path.unlink(missing_ok=True)
            lock.release()
