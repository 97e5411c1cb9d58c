"""The mean of models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from hetseg_bids.network.fitted import Pooling
from hetseg_bids.network.models import load_model, model_folder, read_plan
from support.commands import run_cli, run_here
from support.training import synthetic


@pytest.mark.slow
def test_the_mean_of_models_from_the_same_weights_is_a_model(maps, trained, tmp_path):
    arguments = [*synthetic(maps), "--samples", 2, "--batch", 2]
    runs = [tmp_path / f"run{seed}" for seed in (1, 2)]
    for seed, out in enumerate(runs, 1):
        done = run_cli("hetseg-train", out, *arguments, "--init", trained, "--seed", seed)
        assert done.code == 0, done.err
    models = [trained, *(out / "model" for out in runs)]
    done = run_cli("hetseg-train", tmp_path / "mean", "--average", *models, "--name", "soup")
    assert done.code == 0, done.err
    mean = load_model(str(tmp_path / "mean" / "model"), torch.device("cpu"))
    weights = [load_model(str(m), torch.device("cpu")).network.state_dict() for m in models]
    assert not torch.equal(weights[1]["head.weight"], weights[2]["head.weight"])
    for name, tensor in mean.network.state_dict().items():
        assert torch.allclose(tensor, sum(w[name] for w in weights) / 3, atol=1e-6), name
    checksums = [part["weights_sha256"] for part in mean.plan.provenance["models"]]
    assert checksums == [
        json.loads((m / "plan.json").read_text())["weights_sha256"] for m in models
    ]
    assert mean.plan.name == "soup"
    assert mean.plan.provenance["origins"] == [checksums[0]]
    first = runs[0] / "model"  # how its views are pooled is no fact of a mean
    replace(load_model(str(first), torch.device("cpu")).plan, pooling=Pooling(0.8, 0.2)).save(first)
    pair = run_cli("hetseg-train", tmp_path / "pair", "--average", first, trained)
    assert pair.code == 0, pair.err
    pooled = load_model(str(tmp_path / "pair" / "model"), torch.device("cpu"))
    assert pooled.plan.pooling is None
    again = run_cli(
        "hetseg-train", tmp_path / "x", "--average", tmp_path / "mean" / "model", runs[0] / "model"
    )
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "two models"),
        (["plain"], "same system"),
        (["label-flip-rejection"], "smoothing"),
    ],
)
def test_only_models_of_one_kind_have_a_mean(tmp_path, others, message):
    done = run_here("hetseg-train", tmp_path / "out", "--average", "label-flip-six-views", *others)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_only_models_of_one_origin_have_a_mean(tmp_path):
    one = "label-flip-six-views"
    unrelated = shutil.copytree(model_folder("label-flip-rejection"), tmp_path / "unrelated")
    smoothing = read_plan(model_folder(one)).smoothing
    replace(read_plan(unrelated), smoothing=smoothing).save(unrelated)
    done = run_here("hetseg-train", tmp_path / "out", "--average", one, unrelated)
    assert done.code == 2
    assert "same --init" in done.err
    assert not (tmp_path / "out").exists()
