"""What a process does with freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import sys
import numpy as np
from pathlib import Path
from threading import Thread
from hetseg_bids.network import devices
from hetseg_bids.network.devices import keep_freed_memory, sparing_memory

devices.computes_bf16 = lambda _: sys.argv[1] == "half"

def held():  # MiB
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256

def use_some():
    arrays = [np.ones(2**26, np.uint8) for _ in range(6)]  # 64 MiB each

keep_freed_memory()
before = held()
with sparing_memory():
    use_some()
    print(held() - before)
thread = Thread(target=use_some)  # shares what is kept
thread.start()
thread.join()
print(held() - before)
with sparing_memory():
    pass
print(held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("precision", ["half", "full"])
def test_freed_memory_is_kept_but_for_sparing_steps(precision):
    command = [sys.executable, "-c", _PROGRAM, precision]
    done = subprocess.run(command, capture_output=True, text=True)
    inside, kept, after = map(float, done.stdout.split())
    assert kept > 60
    assert after < 20
    assert (inside < 20) == (precision == "full")  # deepbet's small arrays leave no holes
