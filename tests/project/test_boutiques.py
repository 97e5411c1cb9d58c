"""boutiques.json: valid, in step with the parser, and good for a real launch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

FILE = Path(__file__).parents[2] / "boutiques.json"


def bosh(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("bosh")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_descriptor_is_valid():
    done = bosh("validate", FILE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_simulation_gives_a_command_line_that_the_parser_accepts(tmp_path):
    from hetseg_bids.cli.run import build_parser

    invocation = {
        "bids_dir": str(tmp_path),
        "output_dir": str(tmp_path / "out"),
        "analysis_level": "participant",
        "participant_label": ["01", "02"],
        "views": "axial,coronal",
        "nprocs": 2,
        "mem_gb": 7.5,
        "overwrite": True,
    }
    path = tmp_path / "invocation.json"
    path.write_text(json.dumps(invocation))
    done = bosh("exec", "simulate", FILE, "-i", path)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(text for text in done.stdout.splitlines() if text.startswith("hetseg "))
    args = build_parser().parse_args(line.split()[1:])
    assert args.participant_label == ["01", "02"]
    assert (args.views, args.nprocs, args.mem_gb) == (("axial", "coronal"), 2, 7.5)
    assert args.overwrite


@pytest.mark.slow
def test_a_real_launch_without_container(tmp_path, phantom, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    bids = write_dataset(tmp_path / "bids")
    nib.save(phantom, t1w_path(bids, "01"))
    invocation = {
        "bids_dir": str(bids),
        "output_dir": str(tmp_path / "out"),
        "analysis_level": "participant",
        "views": "axial",
        "model": str(write_tiny_model(tmp_path / "model")),
    }
    path = tmp_path / "invocation.json"
    path.write_text(json.dumps(invocation))
    done = bosh("exec", "launch", FILE, path, "--no-container")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out" / "sub-01.html").exists()
