"""What a process does with freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import numpy as np
from pathlib import Path
from threading import Thread
from hetseg_bids.network.devices import keep_freed_memory, sparing_memory

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
def test_freed_memory_is_kept_but_for_sparing_steps():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    inside, kept, after = map(float, done.stdout.split())
    assert kept > 60
    assert max(inside, after) < 20
