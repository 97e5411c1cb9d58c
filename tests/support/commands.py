"""Calls of the commands, as a user gives them or in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str


# one view of a stripped brain: for runs whose labels don't matter
QUICK = ("--views", "axial", "--no-mirror", "--brain-extraction", "skip", "--skip-bids-validation")


_ENTRY_POINTS = {
    "hetseg": "hetseg_bids.cli.run",
    "hetseg-train": "hetseg_bids.cli.train",
    "hetseg-evaluate": "hetseg_bids.cli.evaluate",
    "hetseg-export": "hetseg_bids.cli.export",
}


def run_cli(command: str, *arguments: object, fresh: bool = False) -> Finished:
    """Run an entry point in a process of its own, as a user does.

    The process is a fork of one that has imported torch and the rest, which saves three seconds.
    Forks share the seed of Python's hashes: `fresh` starts an interpreter, for what must not
    depend on it. So does another environment than that in which the tests began.
    """
    words = [*map(str, arguments)]
    if fresh or _environment() != _ENVIRONMENT:
        done = subprocess.run(
            [sys.executable, "-m", _ENTRY_POINTS[command], *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        code = _fork(_ENTRY_POINTS[command], words, *files)
        return Finished(code, *(file.read_text() for file in files))


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}


_ENVIRONMENT = _environment()


@cache
def _fork_server() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "support.fork_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        process_group=0,
    )


def _fork(module: str, arguments: list[str], stdout: Path, stderr: Path) -> int:
    """Have the fork server run a module; returns its exit code."""
    server = _fork_server()
    call = {
        "module": module,
        "arguments": arguments,
        "folder": str(Path.cwd()),
        "environment": _ENVIRONMENT,
        "stdout": str(stdout),
        "stderr": str(stderr),
    }
    assert server.stdin
    assert server.stdout
    try:
        print(json.dumps(call), file=server.stdin, flush=True)
        return int(server.stdout.readline())
    except BaseException:  # a test's time is over: its command ends, too
        os.killpg(server.pid, signal.SIGKILL)
        _fork_server.cache_clear()
        raise


def run_here(command: str, *arguments: object) -> Finished:
    """Run an entry point in this process: for calls that end before there is work to do.

    To import torch and pybids costs a process of its own three seconds. An exception that isn't
    caught, a traceback in a process of its own, is one here, too.
    """
    main = importlib.import_module(_ENTRY_POINTS[command]).main
    out, err = io.StringIO(), io.StringIO()
    with _unchanged_process(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as stop:  # argparse
            code = stop.code if isinstance(stop.code, int) else 1
    return Finished(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _unchanged_process() -> Iterator[None]:
    """What an entry point sets for its process: loggers, threads, how signals are met."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()
    root.handlers.clear()  # else basicConfig leaves pytest's
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for number, handler in signals.items():
            signal.signal(number, handler)
        torch.set_num_threads(threads)


def lasting(path: Path) -> bytes:
    """What is in a file but for the facts of the run (time, device) at a page's end."""
    return re.sub(rb'<dl id="run">.*?</dl>', b"", path.read_bytes(), flags=re.DOTALL)
