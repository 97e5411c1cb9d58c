"""hetseg-train itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from hetseg_bids.network.models import load_model, read_plan
from hetseg_bids.structures.aseg import N_TASKS, STRUCTURES
from support.commands import run_cli, run_here
from support.datasets import write_pair
from support.training import synthetic


@pytest.mark.slow
def test_hetseg_train_starts_from_a_model_and_says_so(maps, trained, tmp_path):
    arguments = [*synthetic(maps), "--samples", 2, "--batch", 2]
    small = ["--recipe", "small", "--init", "label-flip"]
    shipped = run_here("hetseg-train", tmp_path / "x", *arguments, *small)
    assert shipped.code == 2
    assert "wider" in shipped.err
    out = tmp_path / "out"
    arguments += ["--system", "plain", "--learning-rate", 0.0007]
    done = run_cli("hetseg-train", out, *arguments, "--init", trained)
    assert done.code == 0, done.err
    plan = json.loads((out / "model" / "plan.json").read_text())
    before = json.loads((trained / "plan.json").read_text())
    assert plan["provenance"]["training"]["initial_weights"] == before["weights_sha256"]
    assert plan["provenance"]["training"]["schedule"]["peak"] == 0.0007
    assert plan["network"] == before["network"] | {"n_outputs": N_TASKS}, "goes on as it is"


@pytest.mark.slow
def test_polishing_goes_on_with_a_network_in_small_steps(maps, trained, tmp_path):
    polish = [*synthetic(maps), "--recipe", "polish", "--samples", 2, "--batch", 2]
    start = shutil.copytree(trained, tmp_path / "start")
    replace(read_plan(start), smoothing=2, mirror=False).save(start)
    alone = run_here("hetseg-train", tmp_path / "x", *polish)
    assert alone.code == 2
    assert "--init" in alone.err
    done = run_cli("hetseg-train", tmp_path / "out", *polish, "--init", start)
    assert done.code == 0, done.err
    before, after = (
        load_model(str(m), torch.device("cpu")) for m in (start, tmp_path / "out/model")
    )
    assert after.plan.network == before.plan.network
    assert (after.plan.smoothing, after.plan.mirror) == (2, False), "is used as before, too"
    weights = [m.network.state_dict()["head.weight"] for m in (before, after)]
    assert 0 < float((weights[0] - weights[1]).abs().max()) < 1e-3


@pytest.mark.slow
def test_hetseg_train_resumes_and_makes_the_same_model_and_validation_figures(maps, tmp_path):
    scans = write_pair(tmp_path / "scans")
    arguments = [*synthetic(maps), "--samples", 8, "--name", "tiny"]
    arguments += ["--validate", scans, "--validate-every", 4]
    whole = run_cli("hetseg-train", tmp_path / "a", *arguments)
    assert whole.code == 0, whole.err
    out = tmp_path / "b"
    stopped = run_cli("hetseg-train", out, *arguments, "--stop-after", 1)
    assert stopped.code == 0, stopped.err
    assert not (out / "model").exists()
    done = run_cli("hetseg-train", out, *arguments)
    assert done.code == 0, done.err
    assert "resumed at step 1" in done.err
    assert list((out / "tensorboard").iterdir())
    plans, tables = (
        [(tmp_path / run / name).read_text() for run in "ab"]
        for name in ("model/plan.json", "validation.tsv")
    )
    plan = json.loads(plans[0])
    assert plan["weights_sha256"] == json.loads(plans[1])["weights_sha256"]
    assert plan["provenance"]["samples_seen"] == 8
    assert plan["name"] == "tiny"
    assert tables[0] == tables[1]
    rows = tables[0].splitlines()
    assert rows[0] == "samples\tparticipant\tname\tdice"
    assert len(rows) == 1 + 2 * len(STRUCTURES)
    assert rows[1].startswith("4\tsub-01\tleft_cerebral_white_matter")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label-maps", "nowhere"], "no *.nii"),
        (["--scans", "nowhere"], "no *_T1w"),
        (["--label-maps", ".", "--init", "nothing"], "--init nothing"),
        (["--scans", ".", "--synthetic-scans", "4"], "needs --label-maps"),
        (["--scans", ".", "--device", "cuda:9"], "cuda:9"),
        (["--scans", ".", "--minutes", "0"], "must be positive"),
        (["--scans", ".", "--shares", "inf"], "must be positive"),
        (["--scans", ".", "--samples", "1"], "--samples: less than a batch of 4"),
        (["--scans", ".", "--seed", "-1"], "--seed"),
        ([], "give --label-maps, --scans or --unlabelled"),
        (["--scans", ".", "--average", "plain", "plain"], "or --average alone"),
        (["--unlabelled", "."], "--teacher"),
        (["--unlabelled", "nowhere", "--teacher", "label-flip"], "no *_T1w"),
        (["--scans", ".", "--shares", "1", "2"], "--shares: 1 number"),
    ],
)
def test_hetseg_train_refuses_in_one_line(tmp_path, arguments, message):
    done = run_here("hetseg-train", tmp_path / "run", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("hetseg-train", "FILE", "--scans", "."),
        ("hetseg-export", ".", "FILE"),
        ("hetseg-evaluate", ".", ".", "--report", "FILE"),
        ("hetseg", "demo", "FILE"),
    ],
)
def test_a_file_is_no_folder_to_write_to(tmp_path, words):
    (tmp_path / "file").touch()
    done = run_here(*(tmp_path / "file" if word == "FILE" else word for word in words))
    assert done.code == 2
    assert "is a file; give a folder" in done.err
