"""The long runs of the paper's experiments: small networks, exact resume, tables that grow."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from hetseg_bids.training.checkpoints import Checkpoint
from hetseg_bids.training.trainer import CHECKPOINT_NAME
from support.datasets import write_small_pair

ROOT = Path(__file__).parents[2]
ONLY = ["--only", "scans/label-flip-rejection/seed-0", "scans/plain/seed-0"]


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "paper"))
    import collect_long
    import folded
    import long

    monkeypatch.setattr(long, "_FIRST_REJECTION", 6)
    monkeypatch.setattr(long, "_REJECTION_EVERY", 8)
    monkeypatch.setattr(long, "_START", 4)
    monkeypatch.setattr(long, "PATCH", (32, 24))
    tiny = folded.FoldedConfig(1, (4, 4), (4, 4, 4), (1,), 4, added_skips=True)
    monkeypatch.setitem(long.NETWORKS, "folded", tiny)
    return long, collect_long, folded


def call(script, monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    script.main()


def test_a_folded_network_labels_slices_as_it_was_trained_to(scripts):
    config = scripts[2].FoldedConfig(6, (4, 4), (4, 8, 8), (1, 2), 4, added_skips=True)
    network = config.build().eval()
    block = torch.randn(7, 16, 24)
    with torch.no_grad():
        pixels = [torch.arange(16 * 24), torch.tensor([7]), torch.tensor([], dtype=torch.int64)]
        said = list(network.forward_pixels(block, pixels, torch.tensor([5, 1])))
        stacks = block.unfold(0, 5, 1).permute(0, 3, 1, 2)[:, None]
        for found, stack, numbers in zip(said, stacks, pixels, strict=True):
            expected = network(stack[None])[0, [5, 1]].flatten(1)[:, numbers].T
            torch.testing.assert_close(found, expected)
        # any size: what is added below and on the right is taken off again
        smaller = network.forward_pixels(block[:5, :13, :22], [torch.arange(13 * 22)])
        assert next(smaller).shape == (13 * 22, 6)


def test_pixels_come_back_to_their_places(scripts):
    folded = scripts[2]
    image = torch.randn(2, 1, 1, 8, 12)
    blocks = folded._folded(image)
    torch.testing.assert_close(folded._unfolded(blocks[:, :, 0]), image[:, :, 0])


def test_runs_take_turns_resume_exactly_and_are_collected(scripts, tmp_path, monkeypatch):
    long, collect_long, _ = scripts
    for part in ("train", "validation"):
        write_small_pair(tmp_path / "work" / "scans" / part)
    options = ["--no-compile", "--every", 8, "--slice", 8, *ONLY]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    call(long, monkeypatch, tmp_path / "work", whole, "--samples", 16, *options)
    # ended within a turn, then went on
    call(long, monkeypatch, tmp_path / "work", parts, "--samples", 10, *options)
    call(long, monkeypatch, tmp_path / "work", parts, "--samples", 16, *options)
    for run in ONLY[1:]:
        for name in ("validation.tsv", "training.tsv"):
            assert (whole / run / name).read_bytes() == (parts / run / name).read_bytes(), name
        ours, theirs = (Checkpoint.load(out / run / CHECKPOINT_NAME) for out in (whole, parts))
        assert ours.step == theirs.step == 8
        for name, weights in ours.network.items():
            assert torch.equal(weights, theirs.network[name]), name
    progress = pd.read_csv(whole / ONLY[1] / "progress.tsv", sep="\t")
    assert list(progress["samples"]) == [8, 16]
    assert progress["validation_disagreement"].between(0, 1).all()
    call(collect_long, monkeypatch, whole, tmp_path / "results")
    results = tmp_path / "results" / "scans"
    assert set(pd.read_csv(results / "scores.tsv", sep="\t")["samples"]) == {16}
    for name in ("figure3.png", "gap.png", "table1.md", "wilcoxon.tsv", "peak.tsv"):
        assert (results / name).stat().st_size, name


def test_a_killed_run_forgets_what_came_after_its_checkpoint(scripts, tmp_path):
    long = scripts[0]
    path = tmp_path / "progress.tsv"
    path.write_text("samples\tloss\n8\t1\n16\tn/a\n")
    assert list(long.read_progress(path, seen=8)["samples"]) == [8]
