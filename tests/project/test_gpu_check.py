"""`make gpu-check` on a CPU: every part runs, and differences are noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from support.phantoms import centred_affine, phantom_labels
from support.tiny_model import write_tiny_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_part_runs_and_the_cpu_agrees_with_itself(tmp_path, phantom):
    t1w = tmp_path / "sub-01_T1w.nii.gz"
    nib.save(phantom, t1w)
    maps = tmp_path / "maps"
    maps.mkdir()
    labels = phantom_labels()
    nib.save(nib.Nifti1Image(labels, centred_affine(labels.shape)), maps / "sub-01_dseg.nii.gz")
    model = write_tiny_model(tmp_path / "model", mirror=False)
    few = ["--repeats", 0, "--workers", 1, "--scans", 1, "--train-seconds", 1]
    small = ["--recipe", "small", "--synthetic-scans", 1, "--label-maps", maps]
    words = [t1w, tmp_path / "out", "--device", "cpu", "--model", model, *few, *small]
    command = [sys.executable, BENCHMARKS / "gpu_check.py", *words]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert found["agreement"]["passed"]
    assert found["agreement"]["dice_of_all_labels"] == 1
    assert found["agreement"]["flip_probability_most"] == 0
    assert {row["step"] for row in found["steps"]["by_step"]} >= {"network, axial", "report"}
    assert found["network"]["share_of_matmul_percent"] > 0
    assert found["1_workers"]["scans_per_hour"] > 1
    assert found["training"]["stacks"] >= found["training"]["batch"]
    assert "stacks_per_s" in done.stdout


def result(dseg: np.ndarray, q: float) -> SimpleNamespace:
    """As `segment` gives it: two structures and the whole brain, which has no label."""
    volumes = {
        "name": ["left_putamen", "right_putamen", "total_brain"],
        "index": pd.array([12, 51, None], "Int64"),
        "volume_mm3": [*((dseg == i).sum() for i in (12, 51)), (dseg > 0).sum()],
    }
    flips = nib.Nifti1Image(np.full((*dseg.shape, 2), q, np.float32), np.eye(4))
    labels = nib.Nifti1Image(dseg, np.eye(4))
    return SimpleNamespace(dseg=labels, volumes=pd.DataFrame(volumes), flip_probability=flips)


@pytest.mark.parametrize(
    ("changed", "passed"), [(0, True), (1, True), (200, False)], ids=["same", "one voxel", "more"]
)
def test_the_limits_are_kept(monkeypatch, changed, passed):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_check import agreement

    dseg = np.zeros((40, 40, 40), np.uint8)
    dseg[:10], dseg[30:] = 12, 51
    other = dseg.copy()
    other[9].flat[:changed] = 0
    found = agreement(result(dseg, 0.1), result(other, 0.2), ["cpu", "cuda"])
    assert found["passed"] == passed
    assert found["volume_percent"]["left_putamen"] == pytest.approx(-100 * changed / 16000)
    assert found["dice"]["right_putamen"] == 1
    assert found["flip_probability_most"] == pytest.approx(0.1)
    json.dumps(found, allow_nan=False)
