"""Recipes: everything about a training run that isn't its data.

A recipe is written into plan.json beside the weights, so that inference and a later
reader never guess how a model was trained.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hetseg_bids.network import NetworkConfig
from hetseg_bids.training.losses import n_outputs_of
from hetseg_bids.training.samples import SamplingConfig


@dataclass(frozen=True)
class TrainingConfig:
    """One training run.

    Attributes
    ----------
    system : str
        ``plain`` or ``label-flip``.
    network : NetworkConfig
    sampling : SamplingConfig
    samples : int
        Stacks seen in all; the learning rate is annealed to zero over them.
    batch : int
    learning_rate, weight_decay : float
        AdamW.
    warmup : int
        Samples of linear warm-up.
    plain_share : float
        First share of the run that is trained with the plain loss, so that the flip map
        starts from a network that already segments.
    system_weight, dice_weight : float
        Loss = system_weight x mean system loss + dice_weight x soft Dice loss.
    detach_q : bool
        See `LabelFlipLoss`.
    output_bias : float
        Initial bias of every logit: most pixels are background of most tasks.
    clip : float
        Largest norm of the gradient.
    ema_decay : float
        Of the moving average of weights, which is what gets exported.
    seed : int
    """

    system: str = "label-flip"
    network: NetworkConfig = field(
        default_factory=lambda: NetworkConfig(n_outputs_of("label-flip"))
    )
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    samples: int = 60_000
    batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 1_600
    plain_share: float = 0.1
    system_weight: float = 20.0
    dice_weight: float = 1.0
    detach_q: bool = True
    output_bias: float = -4.0
    clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.samples // self.batch


def fast_recipe(system: str, *, samples: int = 60_000, seed: int = 0) -> TrainingConfig:
    """The recipe for a small budget: hours on a CPU, minutes on a GPU."""
    network = NetworkConfig(n_outputs_of(system))
    return TrainingConfig(system=system, network=network, samples=samples, seed=seed)
