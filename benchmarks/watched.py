"""Wall time and peak memory of a command."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

# A child begins with the peak of the process that starts it, and a benchmark has held images: a
# small process starts the command and asks for its peak.
_WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def watched(command: Sequence[str]) -> tuple[float, float]:
    """Run a command; returns its seconds and the MiB of its largest process.

    A failure ends the program with what the command said.
    """
    start = time.perf_counter()
    watch = [sys.executable, "-c", _WATCH, *command]
    done = subprocess.run(watch, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    return seconds, int(done.stdout) / 1024
