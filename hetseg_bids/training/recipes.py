"""Recipes: all settings of a training run, but not its data.

A recipe is written into plan.json beside the weights, so that it is known how a model was
trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hetseg_bids.network.architecture import NetworkConfig
from hetseg_bids.network.systems import LabelFlip, System, system_named
from hetseg_bids.structures.aseg import N_TASKS
from hetseg_bids.structures.head import HEAD
from hetseg_bids.training.augmentation import AugmentationConfig
from hetseg_bids.training.rejection import RejectionConfig
from hetseg_bids.training.samples import SamplingConfig
from hetseg_bids.training.schedules import Schedule

FAST_SAMPLES = 60_000
WIDE_SAMPLES = 400_000
SMALL_SAMPLES = 6_000
POLISH_SAMPLES = 12_000
HEAD_SAMPLES = 40_000
HEAD_RECIPE = "head"
_PAPER_RESTARTS = 520
_PAPER_PLAIN_RESTARTS = 20
_PAPER_PERIOD = 2000  # steps
_PAPER_FIRST_REJECTION = 120  # restarts
_PAPER_REJECTION_EVERY = 20
_REJECTION_SHARES = (0.3, 0.35)  # first look and distance, of a run that anneals once


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes
    ----------
    system : str
        Its name; one of `config.SYSTEM_NAMES`.
    network : NetworkConfig
    sampling : SamplingConfig
    samples : int
        Stacks seen in all.
    batch : int
    optimizer : {"adamw", "rmsprop"}
    schedule : Schedule
    weight_decay : float
        AdamW only.
    plain_share : float
        Share of the run, from its beginning, that is trained with the plain loss, so that the
        second map starts from a network that already segments.
    system_weight, dice_weight : float
        Loss = system_weight x mean system loss + dice_weight x soft Dice loss.
    detach_q : bool
        See `LabelFlip`.
    monte_carlo : int
        Samples of `PredictiveVariance`.
    output_bias : float
        Initial bias of every logit: most pixels are background of most tasks.
    rejection : RejectionConfig or None
        Sporadic error rejection, for label-flip on scans that come back.
    clip : float or None
        Largest norm of the gradient.
    ema_decay : float
        Of the moving average of the weights, which is exported; 0 exports the last weights.
    seed : int
    initial_weights : str or None
        sha256 of the weights that the run starts from; None starts at random.
    smoothing : int
        See `Plan.smoothing`.
    teaching_share : float
        Share of the loss that is the distance from the teacher's maps, 0-1, where there is a
        teacher; the rest is the loss with the labels.
    settle_share : float
        Share of the run, from its beginning, in which the new encoder of a network whose coarse
        layers were copied from another model learns to find what that model's found.
    mirror : bool
        See `Plan.mirror`.
    """

    system: str = LabelFlip.name
    network: NetworkConfig = field(
        default_factory=lambda: NetworkConfig(LabelFlip().n_outputs(N_TASKS))
    )
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    samples: int = FAST_SAMPLES
    batch: int = 4
    optimizer: str = "adamw"
    schedule: Schedule = field(default_factory=Schedule)
    weight_decay: float = 1e-4
    plain_share: float = 0.1
    system_weight: float = 20.0
    dice_weight: float = 1.0
    detach_q: bool = True
    monte_carlo: int = 10
    output_bias: float = -4.0
    rejection: RejectionConfig | None = None
    clip: float | None = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    initial_weights: str | None = None
    smoothing: int = 0
    teaching_share: float = 0.0
    settle_share: float = 0.0
    mirror: bool = True

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.samples // self.batch

    def build_system(self) -> System:
        """The system, with this run's settings of its loss."""
        return system_named(self.system, detach_q=self.detach_q, monte_carlo=self.monte_carlo)


def fast_recipe(system: str, *, samples: int | None = None, seed: int = 0) -> TrainingConfig:
    """The recipe for a small budget: hours on a CPU, minutes on a GPU.

    Examples
    --------
    >>> config = fast_recipe("label-flip", samples=6000)
    >>> config.steps, config.network.n_outputs == 2 * N_TASKS
    (1500, True)
    """
    network = NetworkConfig(system_named(system).n_outputs(N_TASKS))
    return TrainingConfig(
        system=system, network=network, samples=samples or FAST_SAMPLES, seed=seed
    )


def wide_recipe(system: str, *, samples: int | None = None, seed: int = 0) -> TrainingConfig:
    """The recipe for a GPU: three and a half times the parameters at 1.7 times the multiply-adds.

    Layers are added at a quarter of the resolution, where they cost little.
    """
    fast = fast_recipe(system, samples=samples or WIDE_SAMPLES, seed=seed)
    network = replace(
        fast.network, levels=(32, 96, 256), dilations=(1, 2, 4, 8, 1, 2, 4, 1), growth=64
    )
    return replace(fast, network=network, batch=24)


def small_recipe(system: str, *, samples: int | None = None, seed: int = 0) -> TrainingConfig:
    """The recipe for many runs on a CPU, minutes each: half the width of `fast_recipe`.

    Batches of 2, because early in training many small steps are better than few large ones.
    """
    fast = fast_recipe(system, samples=samples or SMALL_SAMPLES, seed=seed)
    network = replace(fast.network, stem=(8, 8, 16), levels=(16, 32, 48), growth=16)
    schedule = Schedule(warmup=100)
    return replace(fast, network=network, batch=2, schedule=schedule, ema_decay=0.99)


def compact_recipe(system: str, *, samples: int | None = None, seed: int = 0) -> TrainingConfig:
    """The recipe for fast inference: `fast_recipe` with less than half of the multiply-adds.

    Half the channels at full resolution, 5 slices, and skips that are added. It begins best with
    `--init`: the layers at half and quarter resolution are those of `fast_recipe`.
    """
    fast = fast_recipe(system, samples=samples, seed=seed)
    network = replace(fast.network, stem=(8, 16), levels=(16, 64, 96), added_skips=True)
    return replace(fast, network=network, settle_share=0.1, plain_share=0.15, mirror=False)


def polish_recipe(system: str, *, samples: int | None = None, seed: int = 0) -> TrainingConfig:
    """The recipe for a network that is trained already: `fast_recipe` in small steps.

    The learning rate of a new network, and steps with the plain loss, would first undo a part of
    the earlier training.
    """
    fast = fast_recipe(system, samples=samples or POLISH_SAMPLES, seed=seed)
    return replace(fast, schedule=Schedule(peak=3e-4, warmup=50), plain_share=0.0)


def paper_recipe(system: str, *, samples: int | None = None, seed: int = 0) -> TrainingConfig:
    """The recipe of McKinley et al. (design section 1).

    The paper gives no initial bias and no range for the rotation; both are ours.
    """
    batch = 2
    second_map = system_named(system).heteroscedastic
    return TrainingConfig(
        system=system,
        network=NetworkConfig(system_named(system).n_outputs(N_TASKS)),
        sampling=SamplingConfig(
            patch=(196, 196),
            structure_rate=0.0,
            augmentation=AugmentationConfig(rotation_deg=30.0, offset=0.0),
        ),
        samples=samples or _PAPER_RESTARTS * _PAPER_PERIOD * batch,
        batch=batch,
        optimizer="rmsprop",
        schedule=Schedule(peak=1e-4, floor=1e-7, warmup=0, period=_PAPER_PERIOD),
        weight_decay=0.0,
        plain_share=_PAPER_PLAIN_RESTARTS / _PAPER_RESTARTS if second_map else 0.0,
        system_weight=1.0,
        dice_weight=0.0,
        clip=None,
        ema_decay=0.0,
        seed=seed,
    )


def with_rejection(config: TrainingConfig) -> TrainingConfig:
    """A recipe with sporadic error rejection.

    The paper searches for errors at restart 120 and every 20 restarts from there on; a shorter run
    with restarts does so at the same shares of its length.  A run that anneals once searches
    twice, because a search costs as much time as hundreds of samples.

    Examples
    --------
    >>> with_rejection(fast_recipe("label-flip", samples=4000)).rejection
    RejectionConfig(first=0.3, every=0.35, confidence=0.001, corrected=True, of_run=True)
    """
    once = config.schedule.period is None
    if once:
        first, every = _REJECTION_SHARES
    else:
        first = _PAPER_FIRST_REJECTION / _PAPER_RESTARTS
        every = _PAPER_REJECTION_EVERY / _PAPER_RESTARTS
    rejection = RejectionConfig(first, every, corrected=once, of_run=True)
    return replace(config, rejection=rejection)


def with_teacher(
    config: TrainingConfig, share: float, *, every_volume: bool = True
) -> TrainingConfig:
    """A recipe with a teacher.

    Parameters
    ----------
    config : TrainingConfig
    share : float
        See `TrainingConfig.teaching_share`.
    every_volume : bool
        Whether it sees each volume when that is drawn. Then a volume is costly, and more stacks
        are cut from fewer.
    """
    sampling = config.sampling
    if every_volume:
        sampling = replace(sampling, volumes_per_block=2, stacks_per_volume=160)
    return replace(config, sampling=sampling, teaching_share=share)


def head_recipe(system: str, *, samples: int | None = None, seed: int = 0) -> TrainingConfig:
    """The recipe for `models/head`: a small network for whole heads at 2 mm, minutes on a CPU.

    The data are `HeadSource`, the labels `structures.head.HEAD`.
    """
    fast = fast_recipe(system, samples=samples or HEAD_SAMPLES, seed=seed)
    network = NetworkConfig(
        system_named(system).n_outputs(len(HEAD.tasks)),
        stem=(4, 8),
        levels=(8, 24, 48),
        growth=16,
        added_skips=True,
    )
    sampling = SamplingConfig(
        patch=(112, 96),
        volumes_per_block=8,
        stacks_per_volume=24,
        structure_rate=0.0,
        augmentation=AugmentationConfig(rotation_deg=15.0, offset=6.0),
    )
    return replace(fast, network=network, sampling=sampling, output_bias=-2.0, mirror=False)


RECIPES = {
    "fast": fast_recipe,
    "wide": wide_recipe,
    "small": small_recipe,
    "compact": compact_recipe,
    "polish": polish_recipe,
    "paper": paper_recipe,
    HEAD_RECIPE: head_recipe,
}
DEFAULT_RECIPE = "fast"
AS_BEFORE = (None, "polish")
"""Recipes that leave the network of --init as large as it is."""
