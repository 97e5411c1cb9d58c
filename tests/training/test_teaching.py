"""Learning from a model that is trained already."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.planes import AXIAL
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES
from hetseg_bids.training.augmentation import StackTransform
from hetseg_bids.training.samples import BlockDataset, Cut, Lesson, resample_stacks
from hetseg_bids.training.schedules import Schedule
from hetseg_bids.training.teaching import TaughtSource, taught_maps, teaching_losses
from hetseg_bids.training.trainer import RunOptions, Trainer
from hetseg_bids.training.volumes import MixedSource
from support.commands import run_here
from support.tiny_model import write_tiny_model
from support.training import SAMPLING, OneScan, small_config, tiny_scan


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
        assert block.lesson is not None
        sums = block.lesson.maps.sum(dim=(0, 1, 2, 3))
        assert {i for i in range(2 * N_STRUCTURES) if sums[i]} == {owner, N_STRUCTURES + owner}
        assert (sums[owner], sums[N_STRUCTURES + owner]) == (200, 100)


def test_the_distance_is_least_for_the_teacher_s_own_outputs():
    taught = torch.randint(1, 255, (1, 6, 5, 2 * N_STRUCTURES), dtype=torch.uint8)
    probability = taught[..., :N_STRUCTURES].float() / 255
    label = torch.zeros(1, 31, 6, 5)
    label[:, :N_STRUCTURES] = torch.logit(probability).permute(0, 3, 1, 2)
    losses = [
        teaching_losses(torch.cat((label + shift, torch.zeros_like(label)), 1), taught)[0].mean()
        for shift in (-0.2, 0.0, 0.2)
    ]
    assert losses[1] == min(losses)


def test_a_network_comes_to_say_what_its_teacher_says(teacher, tmp_path):
    """Labels have no part in it: the teacher's structures aren't those of the scan."""
    quick = Schedule(peak=3e-2, warmup=2)
    config = replace(small_config(samples=240), teaching_share=1.0, schedule=quick, ema_decay=0.0)
    volume = TaughtSource(OneScan(tiny_scan()), teacher).draw(np.random.default_rng(0))
    trainer = Trainer(config, OneScan(volume), RunOptions(tmp_path, CPU, workers=0))
    block = BlockDataset(trainer.source, config.sampling, 1)[0]
    assert block.lesson is not None
    taught = block.lesson.maps[:, 0, ..., :N_STRUCTURES].permute(0, 3, 1, 2).float() / 255

    def distance() -> float:
        with torch.no_grad():
            said = torch.sigmoid(trainer.network(block.images.float())[:, :N_STRUCTURES])
        return float((said - taught).abs().mean())

    before = distance()
    assert len(list(trainer.run())) == config.steps
    assert distance() < 0.5 * before


def test_a_new_encoder_comes_to_find_what_the_old_one_found(teacher, tmp_path):
    config = small_config(samples=240)
    quick = Schedule(peak=1e-2, warmup=2)
    network = replace(teacher.plan.network, stem=(4, 4), added_skips=True)
    config = replace(config, network=network, schedule=quick, settle_share=0.8, plain_share=0.9)
    trainer = Trainer(
        config, OneScan(tiny_scan()), RunOptions(tmp_path, CPU, workers=0), initial=teacher
    )
    coarse = trainer.network.encode2[0].weight.detach().clone()
    reports = list(trainer.run())
    hinted = [r.loss for r in reports if math.isnan(r.dice_loss)]
    assert len(hinted) == 48  # four fifths of 60 steps
    assert np.mean(hinted[-5:]) < 0.7 * np.mean(hinted[:5])
    assert not torch.equal(trainer.network.encode2[0].weight, coarse), "learns afterwards"


def test_a_mixture_has_lessons_where_there_is_a_teacher():
    volume = tiny_scan()
    taught = torch.full((*volume.image.shape, 2 * N_STRUCTURES), 9, dtype=torch.uint8)
    both = MixedSource([OneScan(volume), OneScan(replace(volume, taught=taught))], (3.0, 1.0))
    sampling = replace(SAMPLING, volumes_per_block=24, stacks_per_volume=1)
    block = BlockDataset(both, sampling, 1)[0]
    assert block.lesson is not None
    known = block.lesson.known
    assert 1 <= known.sum() < 12
    assert block.lesson.maps.flatten(1).any(dim=1).tolist() == known.tolist()
    assert both.fingerprint()["shares"] == (0.75, 0.25)


def test_a_mixture_has_rejected_labels_where_a_source_rejects():
    volume = tiny_scan()
    everything = torch.ones_like(volume.labels, dtype=torch.int32)
    both = MixedSource([OneScan(volume), OneScan(replace(volume, rejected=everything))], (3.0, 1.0))
    sampling = replace(SAMPLING, volumes_per_block=24, stacks_per_volume=1)
    block = BlockDataset(both, sampling, 1)[0]
    assert block.rejected is not None
    assert block.rejected.shape == block.labels.shape
    assert 1 <= block.rejected.flatten(1).any(dim=1).sum() < 12


def test_samples_without_a_teacher_have_the_loss_of_their_labels(tmp_path):
    """A batch of one taught and one other sample: the mean of what each of them alone has."""
    config = replace(small_config(), teaching_share=1.0, plain_share=0.0, dice_weight=0.0, batch=2)
    trainer = Trainer(config, OneScan(tiny_scan()), RunOptions(tmp_path, CPU, workers=0))
    block = BlockDataset(trainer.source, config.sampling, 1)[0].taken(slice(0, 2))
    maps = torch.full((2, 1, *config.sampling.patch, 2 * N_STRUCTURES), 99, dtype=torch.uint8)

    def loss(which: slice, known: list[bool] | None) -> float:
        part = block.taken(which)
        lesson = None if known is None else Lesson(maps[which], torch.tensor(known))
        outputs = trainer._forward(part.images)
        taught = None if lesson is None else trainer._lesson(lesson)
        labels = part.labels.flatten(0, 1)
        return trainer._objective(outputs, labels, None, taught, False)[0].item()

    alone = (loss(slice(0, 1), [True]), loss(slice(1, 2), None))
    assert loss(slice(0, 2), [True, False]) == pytest.approx(sum(alone) / 2, rel=1e-4)
    assert alone[0] != pytest.approx(alone[1], rel=0.1)


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
