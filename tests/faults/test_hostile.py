"""Input that means harm: names and links that lead elsewhere, JSON bombs, models with code."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from support.commands import QUICK, run_cli, run_here
from support.corruptions import good, nested
from support.datasets import t1w_path, write_dataset
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = write_dataset(tmp_path / "bids")
    good(t1w_path(root, "01"))
    return root


def refused(*arguments: object) -> str:
    """Run hetseg on what it must refuse at once; returns its line."""
    done = run_here("hetseg", *arguments)
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    return done.err


@pytest.mark.parametrize("label", ["../01", "0/1", "*", "01\n", "-", "$(id)", "a" * 5000 + "/"])
def test_labels_cannot_lead_out(bids, tmp_path, label):
    for option in ("--participant-label", "--session-label"):
        refused(bids, tmp_path / "out", "participant", f"{option}={label}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        nested(10**5),
        json.dumps({"t1w": {"subject": "../.."}}),
        json.dumps({"t1w": {"path": "/etc"}}),
    ],
    ids=["nested", "dots", "unknown"],
)
def test_filter_files_cannot_lead_out(bids, tmp_path, content):
    path = tmp_path / "filter.json"
    path.write_text(content)
    refused(bids, tmp_path / "out", "participant", "--bids-filter-file", path)


@pytest.mark.parametrize("content", [nested(10**5), "[]", '{"a": "' + "b" * 11_000_000 + '"}'])
def test_hostile_dataset_description(bids, tmp_path, content):
    (bids / "dataset_description.json").write_text(content)
    assert "dataset_description.json" in refused(bids, tmp_path / "out", "participant")


@pytest.mark.parametrize("link", ["sub-01", "sub-01/anat", "logs"])
def test_links_in_the_output_are_not_followed_out(bids, tmp_path, link):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(elsewhere)
    model = write_tiny_model(tmp_path / "model")
    done = run_cli("hetseg", bids, out, "participant", "--model", model, *QUICK)
    assert done.code != 0
    assert "a link leads out of the output folder" in done.err
    assert "Traceback" not in done.err
    assert not list(elsewhere.iterdir())


def test_links_under_final_names_are_replaced_not_followed(bids, tmp_path):
    out, precious = tmp_path / "out", tmp_path / "precious"
    precious.write_text("precious")
    anat = out / "sub-01" / "anat"
    anat.mkdir(parents=True)
    for name in ("sub-01_seg-hetseg_dseg.nii.gz", "sub-01_seg-hetseg_dseg.json"):
        (anat / name).symlink_to(precious)
    (out / "sub-01.html").symlink_to(precious)
    model = write_tiny_model(tmp_path / "model")
    done = run_cli("hetseg", bids, out, "participant", "--model", model, *QUICK)
    assert done.code == 0, done.err
    assert precious.read_text() == "precious"
    assert not (out / "sub-01.html").is_symlink()


class _Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.target)!r}, 'w')",))


@pytest.mark.parametrize("name", ["weights.safetensors", "plan.json"])
def test_models_run_no_code(bids, tmp_path, name):
    """Pickles in place of weights or plan are refused unread."""
    model, owned = write_tiny_model(tmp_path / "model"), tmp_path / "owned"
    (model / name).write_bytes(pickle.dumps(_Payload(owned)))
    refused(bids, tmp_path / "out", "participant", "--model", model, *QUICK)
    assert not owned.exists()


def test_exchanged_weights_are_noticed(bids, tmp_path):
    model = write_tiny_model(tmp_path / "model")
    content = bytearray((model / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (model / "weights.safetensors").write_bytes(content)
    line = refused(bids, tmp_path / "out", "participant", "--model", model, *QUICK)
    assert "weights.safetensors" in line
