"""Small networks, sources and runs of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.systems import system_named
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.structures.aseg import N_TASKS
from hetseg_bids.training.recipes import TrainingConfig, small_recipe
from hetseg_bids.training.samples import SamplingConfig
from hetseg_bids.training.schedules import Schedule
from hetseg_bids.training.synthesis.painting import SyntheticSource
from hetseg_bids.training.trainer import RunOptions, Trainer, build_network
from hetseg_bids.training.volumes import LabelledVolume

SAMPLING = SamplingConfig(patch=(48, 40), volumes_per_block=2, stacks_per_volume=4)


def small_config(system: str = "label-flip", samples: int = 48) -> TrainingConfig:
    network = NetworkConfig(
        system_named(system).n_outputs(N_TASKS), (4, 4, 8), (8, 8, 12), (1, 2), 8
    )
    return TrainingConfig(
        system=system,
        network=network,
        sampling=SAMPLING,
        samples=samples,
        schedule=Schedule(warmup=2),
    )


def losses_of(
    config: TrainingConfig, source: SyntheticSource, out: Path, **options: object
) -> tuple[list[float], Trainer]:
    """The losses of a run from where it was interrupted, and its trainer."""
    run = RunOptions(out, torch.device("cpu"), **{"workers": 0, **options})
    trainer = Trainer(config, source, run)
    trainer.resume()
    return [report.loss for report in trainer.run()], trainer


def synthetic(maps: Path) -> list[object]:
    """Options to train on a single synthetic scan: a block of samples needs six new ones."""
    return ["--label-maps", maps, "--synthetic-scans", 1, "--workers", 0]


def fresh(system: str) -> HetsegNet:
    """A network of the small recipe, not yet trained."""
    torch.manual_seed(0)
    return build_network(small_recipe(system))


class OneScan:
    """A source of one volume."""

    def __init__(self, volume: LabelledVolume) -> None:
        self.volume = volume

    def fingerprint(self) -> dict[str, object]:
        return {"kind": "test"}

    def draw(self, rng: np.random.Generator) -> LabelledVolume:  # noqa: ARG002
        return self.volume


def tiny_scan() -> LabelledVolume:
    """Blocks of six structures; the sides differ in shape, or sagittal slices had no side."""
    image = torch.full((48, 48, 48), BACKGROUND)
    labels = torch.zeros(image.shape, dtype=torch.uint8)
    boxes = {
        2: ((4, 24), (4, 44), (4, 44), 0.6),
        41: ((24, 44), (12, 36), (4, 44), 1.4),
        12: ((8, 18), (14, 30), (14, 30), -0.2),
        51: ((30, 40), (14, 30), (14, 30), -1.0),
        16: ((20, 28), (30, 42), (6, 18), 2.2),
        14: ((20, 28), (8, 24), (26, 40), -1.8),
    }
    for label, (x, y, z, brightness) in boxes.items():
        box = (slice(*x), slice(*y), slice(*z))
        image[box], labels[box] = brightness, label
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return LabelledVolume(image + 0.05 * noise * (labels > 0), labels)
