"""The BIDS validator over the input, where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROGRAM = "bids-validator-deno"
_SHOWN = 3
_SECONDS = 1800


@contextmanager
def validated(bids_dir: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Run the BIDS validator beside what is done within; the end waits for it.

    Parameters
    ----------
    bids_dir : Path
    tell : callable
        Called, from another thread, with the errors that it finds, in one line; not at all if
        there are none, or the validator (PyPI: bids-validator-deno) isn't installed.
    """
    program = _program()
    if program is None:
        yield
        return
    command = [program, "--format", "json", "--ignoreNiftiHeaders", "--ignoreWarnings"]
    try:
        process = subprocess.Popen(  # noqa: S603 (it was found, the folder is an argument)
            [*command, str(bids_dir.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # a terminal's Ctrl-C would end it before hetseg, which then missed its answer
            process_group=0,
        )
    except OSError as error:
        tell(_no_answer(error))
        yield
        return
    stopped = threading.Event()

    def wait() -> None:
        complaint = _complaint(process)
        if complaint and not stopped.is_set():
            tell(complaint)

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        yield
        waiting.join()  # which a signal may interrupt
    except BaseException:
        stopped.set()
        _end(process)
        waiting.join()
        raise


def _program() -> str | None:
    beside = Path(sys.executable).with_name(_PROGRAM)  # the environment may not be on PATH
    return str(beside) if beside.is_file() else shutil.which(_PROGRAM)


def _no_answer(error: Exception) -> str:
    return f"the BIDS validator gave no answer ({type(error).__name__})"


def _complaint(process: subprocess.Popen[str]) -> str | None:
    """The errors that the validator finds, once it ends; None if there are none."""
    try:
        issues = json.loads(process.communicate(timeout=_SECONDS)[0])["issues"]["issues"]
        errors = [i for i in issues if i.get("severity") == "error"]
    except subprocess.TimeoutExpired as error:
        _end(process)
        return _no_answer(error)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return _no_answer(error)
    if not errors:
        return None
    first = "; ".join(f"{i.get('code')} in {i.get('location')}" for i in errors[:_SHOWN])
    more = "" if len(errors) <= _SHOWN else f" and {len(errors) - _SHOWN} more"
    return f"the BIDS validator found {first}{more}"


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the validator, and what it started: while that holds the pipe, there is no end to it."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # just ended
            os.killpg(process.pid, signal.SIGKILL)
