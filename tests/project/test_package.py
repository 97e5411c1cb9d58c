"""What people who install hetseg get, built as for a release."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from hetseg_bids import __version__
from hetseg_bids.network.models import shipped_models

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_runs_with_its_weights_where_the_sources_are_not(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", site]
    done = subprocess.run([*command, wheel], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = """
import torch, hetseg_bids
from hetseg_bids.network.models import load_model, shipped_models
print(hetseg_bids.__file__)
for name in shipped_models():
    print(load_model(name, torch.device("cpu")).folder)
"""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    places = done.stdout.split()
    assert len(places) == 1 + len(shipped_models())
    assert all(Path(place).is_relative_to(site) for place in places)
    for name in ("hetseg", "hetseg-train", "hetseg-evaluate", "hetseg-export"):
        assert (site / "bin" / name).exists()


def test_packages_hold_what_they_should_and_no_more(dist):
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"hetseg_bids", f"hetseg-{__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert wheel.stat().st_size < 20e6
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert {
        "pyproject.toml",
        "models/label-flip/weights.safetensors",
        "tests/conftest.py",
    } <= inside
    assert not [n for n in inside if n.startswith((".venv", "demo", "containers", "site"))]
