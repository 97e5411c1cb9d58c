"""Learning from a model that is trained already."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.devices import CPU
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.planes import AXIAL
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES
from hetseg_bids.training.augmentation import StackTransform
from hetseg_bids.training.samples import BlockDataset, Cut, resample_stacks
from hetseg_bids.training.schedules import Schedule
from hetseg_bids.training.teaching import TaughtSource, taught_maps, teaching_losses
from hetseg_bids.training.trainer import RunOptions, Trainer
from support.commands import run_cli, run_here
from support.tiny_model import write_tiny_model
from support.training import OneScan, small_config, synthetic, tiny_scan


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Model:
    return load_model(str(write_tiny_model(tmp_path_factory.mktemp("teacher"))), CPU)


def test_the_maps_are_what_the_teacher_predicts(teacher):
    image = tiny_scan().image
    maps = taught_maps(teacher, image)
    assert maps.shape == (*image.shape, 2 * N_STRUCTURES)
    assert not maps[image == BACKGROUND].float().mean() > maps[image > BACKGROUND].float().mean()
    found = predict(teacher, image, image != BACKGROUND, mirror=False)
    said = maps[(*found.box, slice(0, N_STRUCTURES))].permute(3, 0, 1, 2) > 127
    clear = found.label.abs() > 1  # logits of inference are smoothed
    assert (said == (found.label > 0))[clear].float().mean() > 0.98


def test_a_mirrored_stack_has_the_maps_of_the_other_side():
    volume = tiny_scan()
    taught = torch.zeros(*volume.image.shape, 2 * N_STRUCTURES, dtype=torch.uint8)
    left, right = (ASEG.names.index(f"{side}_putamen") for side in ("left", "right"))
    taught[10, 20, 24, left], taught[10, 20, 24, N_STRUCTURES + left] = 200, 100
    volume = replace(volume, taught=taught)
    for mirrored, x, owner in ((False, 1.0, left), (True, -1.0, right)):
        transform = StackTransform(np.diag([x, 1.0, 1.0]), mirrored, np.zeros(2), 1.0, 0.0)
        cut = Cut(AXIAL, np.array([24.0, 24.0, 24.0]), transform)
        block = resample_stacks(volume, [cut], (48, 48))
        assert block.taught is not None
        sums = block.taught.sum(dim=(0, 1, 2, 3))
        assert {i for i in range(2 * N_STRUCTURES) if sums[i]} == {owner, N_STRUCTURES + owner}
        assert (sums[owner], sums[N_STRUCTURES + owner]) == (200, 100)


def test_the_distance_is_least_for_the_teacher_s_own_outputs():
    taught = torch.randint(1, 255, (1, 6, 5, 2 * N_STRUCTURES), dtype=torch.uint8)
    probability = taught[..., :N_STRUCTURES].float() / 255
    label = torch.zeros(1, 31, 6, 5)
    label[:, :N_STRUCTURES] = torch.logit(probability).permute(0, 3, 1, 2)
    losses = [
        teaching_losses(torch.cat((label + shift, torch.zeros_like(label)), 1), taught)[0]
        for shift in (-0.2, 0.0, 0.2)
    ]
    assert losses[1] == min(losses)


def test_a_network_comes_to_say_what_its_teacher_says(teacher, tmp_path):
    """Labels have no part in it: the teacher's structures aren't those of the scan."""
    quick = Schedule(peak=3e-2, warmup=2)
    config = replace(small_config(samples=160), teaching_share=1.0, schedule=quick, ema_decay=0.0)
    volume = TaughtSource(OneScan(tiny_scan()), teacher).draw(np.random.default_rng(0))
    trainer = Trainer(config, OneScan(volume), RunOptions(tmp_path, CPU, workers=0))
    block = BlockDataset(trainer.source, config.sampling, 1)[0]
    assert block.taught is not None
    taught = block.taught[:, 0, ..., :N_STRUCTURES].permute(0, 3, 1, 2).float() / 255

    def distance() -> float:
        with torch.no_grad():
            said = torch.sigmoid(trainer.network(block.images.float())[:, :N_STRUCTURES])
        return float((said - taught).abs().mean())

    before = distance()
    assert len(list(trainer.run())) == config.steps
    assert distance() < 0.5 * before


@pytest.mark.slow
def test_a_compact_network_is_taught_from_the_command_line(maps, teacher, tmp_path):
    options = ["--recipe", "compact", "--teacher", teacher.folder, "--teaching-share", 0.7]
    done = run_cli("hetseg-train", tmp_path, *synthetic(maps), *options, "--samples", 4)
    assert done.code == 0, done.err
    plan = load_model(str(tmp_path / "model"), CPU).plan
    assert plan.network.fold == 2
    assert plan.provenance["training"]["teaching_share"] == 0.7
    assert plan.provenance["source"]["teacher"] == teacher.plan.weights_sha256


def test_without_a_teacher_a_run_is_what_it_was(tmp_path):
    config = small_config()
    trainer = Trainer(config, OneScan(tiny_scan()), RunOptions(tmp_path, CPU, workers=0))
    assert "teaching" not in trainer._identity()
    assert isinstance(trainer.network, HetsegNet)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [("plain", (), "have to be label-flip"), ("label-flip", ("--system", "plain"), "have to be")],
)
def test_only_label_flip_teaches_label_flip(tmp_path, model, options, message):
    done = run_here(
        *("hetseg-train", tmp_path / "out", "--scans", tmp_path, "--teacher", model, *options)
    )
    assert done.code == 2
    assert message in done.err
