"""The training loop: it learns, and it resumes exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.network.architecture import NetworkConfig
from hetseg_bids.network.systems import LabelFlip
from hetseg_bids.structures.aseg import ASEG, N_TASKS
from hetseg_bids.training.augmentation import AugmentationConfig
from hetseg_bids.training.recipes import TrainingConfig
from hetseg_bids.training.samples import SamplingConfig
from hetseg_bids.training.schedules import Schedule
from hetseg_bids.training.validation import ValidationScan, even_stacks, structure_dice
from support.training import SAMPLING, OneScan, losses_of, small_config, tiny_scan


@pytest.mark.parametrize(
    ("kind", "system", "change"),
    [
        ("source", "label-flip", {}),
        ("scans", "predictive-variance", {}),
        ("scans", "label-flip", {"labelled": 3, "deep_supervision": True}),
    ],
)
def test_interrupted_training_gives_the_same_losses(request, tmp_path, kind, system, change):
    source, config = request.getfixturevalue(kind), small_config(system, samples=24)
    config = replace(config, network=replace(config.network, **change))
    whole, trainer = losses_of(config, source, tmp_path / "whole")
    assert len(whole) == 6
    # in the middle of a block
    first, _ = losses_of(config, source, tmp_path / "parts", stop_after=3)
    rest, resumed = losses_of(config, source, tmp_path / "parts")
    assert first + rest == whole
    for name, value in trainer.average.items():
        assert torch.equal(value, resumed.average[name]), name
        assert value.stride() == resumed.average[name].stride(), name
    for parameter, again in zip(
        trainer.network.parameters(), resumed.network.parameters(), strict=True
    ):
        ours, theirs = trainer.optimizer.state[parameter], resumed.optimizer.state[again]
        for state in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(ours[state], theirs[state])
            assert ours[state].stride() == theirs[state].stride()


@pytest.mark.slow
def test_workers_do_not_change_what_is_learned(source, tmp_path):
    # a block a step: each worker makes more than one
    config = replace(small_config(samples=16), sampling=replace(SAMPLING, volumes_per_block=1))
    alone, _ = losses_of(config, source, tmp_path / "a")
    helped, _ = losses_of(config, source, tmp_path / "b", workers=2)
    assert alone == helped


def test_a_resumed_run_may_be_shortened(scans, tmp_path):
    losses_of(small_config(), scans, tmp_path, stop_after=2)
    rest, trainer = losses_of(small_config(samples=16), scans, tmp_path)
    assert len(rest) == 2
    assert trainer.schedule == [(0, 48), (2, 16)]


def test_a_checkpoint_of_other_settings_is_refused(scans, tmp_path):
    losses_of(small_config(), scans, tmp_path, stop_after=1)
    with pytest.raises(ValueError, match="other settings"):
        losses_of(replace(small_config(), seed=1), scans, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["plain", "predictive-variance", "label-flip"])
def test_training_lowers_the_loss(scans, tmp_path, system):
    config = replace(
        small_config(system, samples=480),
        plain_share=0.0,
        schedule=Schedule(peak=2e-2, warmup=2),
        sampling=replace(SAMPLING, stacks_per_volume=24),
        monte_carlo=4,
    )
    losses, _ = losses_of(config, scans, tmp_path)
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])


def test_rmsprop_resumes_exactly_too(scans, tmp_path):
    config = replace(small_config(), optimizer="rmsprop", clip=None, ema_decay=0.0)
    whole, _ = losses_of(config, scans, tmp_path / "whole", stop_after=4)
    first, _ = losses_of(config, scans, tmp_path / "parts", stop_after=2)
    rest, trainer = losses_of(config, scans, tmp_path / "parts", stop_after=2)
    assert first + rest == whole
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(trainer.average[name], value)


@pytest.mark.slow
def test_a_short_run_overfits_one_scan(tmp_path):
    still = AugmentationConfig(reflection_rate=0, rotation_deg=0, offset=0, scale=0, shift=0)
    config = TrainingConfig(
        network=NetworkConfig(LabelFlip().n_outputs(N_TASKS), (4, 4, 8), (8, 16, 24), (1, 2), 8),
        sampling=SamplingConfig((48, 48), 2, 32, augmentation=still),
        samples=1800,
        batch=2,
        schedule=Schedule(peak=8e-3, warmup=40),
        ema_decay=0.98,
    )
    volume = tiny_scan()
    _, trainer = losses_of(config, OneScan(volume), tmp_path)
    scan = ValidationScan("sub-01", *even_stacks(volume, config.sampling.patch))
    scores = np.array(
        list(structure_dice(trainer.network, trainer.average, scan, ASEG, amp=True).values())
    )
    assert np.isfinite(scores).sum() >= 6
    assert np.nanmean(scores) > 0.9
