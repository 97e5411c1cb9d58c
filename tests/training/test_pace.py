"""Runs planned by time."""

from __future__ import annotations

import itertools

import torch

from hetseg_bids.training.pace import paced
from hetseg_bids.training.trainer import RunOptions, Trainer
from support.training import small_config


def test_a_run_planned_by_time_ends_with_it(scans, tmp_path):
    trainer = Trainer(
        small_config(samples=4000), scans, RunOptions(tmp_path, torch.device("cpu"), workers=0)
    )
    seconds = iter(itertools.chain([0.0, 30.0], itertools.count(35.0, 5.0)))  # compiles for 30 s
    reports = list(paced(trainer, trainer.run(), 1.5, lambda: next(seconds)))
    assert len(reports) == 13  # 30 s, 35 s ... 90 s
    assert trainer.config.samples == reports[-1].samples == 13 * trainer.config.batch
    assert trainer.schedule == [(0, 4000), (3, 52)]
    assert reports[-1].learning_rate < 0.1 * trainer.config.schedule.peak
