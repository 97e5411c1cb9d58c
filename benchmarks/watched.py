"""Time and peak memory of a command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accuracy import link, write_dataset

# A child begins with the peak of the process that starts it, and a benchmark has held images: a
# small process starts the command and asks for what it used.
_WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_maxrss, used.ru_utime + used.ru_stime)
sys.exit(code)
"""


@dataclass(frozen=True)
class Used:
    """Wall time, CPU time of all threads and processes, and the size of the largest process."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def watched(command: Sequence[str], build: Path | None = None) -> Used:
    """Run a command, with the package of a folder if one is given.

    A failure ends the program with what the command said.
    """
    environment = dict(os.environ)
    if build is not None:
        # and not the package of the folder in which the benchmark was started
        environment |= {"PYTHONPATH": str(build.resolve()), "PYTHONSAFEPATH": "1"}
    start = time.perf_counter()
    watch = [sys.executable, "-c", _WATCH, *command]
    done = subprocess.run(watch, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    peak, cpu = done.stdout.split()
    return Used(seconds, float(cpu), int(peak) / 1024)


def watched_run(bids: Path, out: Path, *options: str, build: Path | None = None) -> Used:
    """Run the participant level into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "hetseg_bids.cli.run", str(bids), str(out), "participant"]
    return watched([*command, *options], build)


def copies(t1w: Path, folder: Path, count: int) -> list[Path]:
    """Links to a scan (.nii.gz) as so many subjects."""
    return [link(t1w, folder / f"sub-{i + 1:03d}_T1w.nii.gz") for i in range(count)]


def completed(out: Path) -> list[float]:
    """Seconds at which the scans of a run were complete, from the first one; their pages tell."""
    times = sorted(page.stat().st_mtime for page in out.glob("sub-*.html"))
    return [time - times[0] for time in times]


def watched_scans(scans: list[Path], out: Path, options: Sequence[str]) -> Used:
    """Run the participant level over a fresh dataset of links to scans."""
    shutil.rmtree(out / "bids", ignore_errors=True)
    return watched_run(write_dataset(scans, out / "bids"), out / "run", *options)
