"""Many scans in one process: memory, handles and temporary files stay as they are.

HETSEG_SOAK sets how many (default 12).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.commands import QUICK
from support.corruptions import good
from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

_SCANS = int(os.environ.get("HETSEG_SOAK", "12"))
_GROWTH_MB = 60
_WARM = 4  # scans after which caches are full

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 60 * _SCANS)]


def test_soak(tmp_path: Path) -> None:
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    first = t1w_path(bids, "000")
    good(first)
    for number in range(1, _SCANS):
        t1w_path(bids, f"{number:03d}").hardlink_to(first)
    command = [sys.executable, "-m", "hetseg_bids.cli.run", str(bids), str(out), "participant"]
    command += ["--model", str(write_tiny_model(tmp_path / "model")), *QUICK]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    memory, handles = [], []
    proc = Path(f"/proc/{process.pid}")
    for _ in process.stdout:  # a line a scan; the process is about to begin the next
        if process.poll() is None:
            pages = int((proc / "statm").read_text().split()[1])
            memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            handles.append(len(list((proc / "fd").iterdir())))
    assert process.wait() == 0
    assert len(memory) >= _SCANS - 1
    warm, last = memory[_WARM:], memory[-_WARM:]
    print(
        f"{_SCANS} scans: {np.median(warm[:_WARM]):.0f} MB at first, {np.median(last):.0f} at last"
    )
    assert np.median(last) - np.median(warm[:_WARM]) < _GROWTH_MB
    # counted while the next scan may be open already: what leaked is never missing
    assert min(handles[-_WARM:]) <= min(handles[_WARM : 2 * _WARM])
    assert not list(scratch.iterdir())
    assert not [p for p in out.rglob(".*") if p.name != ".bidsignore"]
