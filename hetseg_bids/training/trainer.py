"""The training loop: deterministic, resumable, one network for the three planes."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from hetseg_bids.network.architecture import HetsegNet, to_channels_last
from hetseg_bids.network.devices import autocast
from hetseg_bids.network.models import Model
from hetseg_bids.network.systems import Plain
from hetseg_bids.preprocessing.number_formats import computes_bf16
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.training.checkpoints import Checkpoint, optimizer_tensors, restore_optimizer_
from hetseg_bids.training.initialisation import start_from_
from hetseg_bids.training.objective import Objective
from hetseg_bids.training.recipes import TrainingConfig
from hetseg_bids.training.rejection import (
    RejectionConfig,
    find_sporadic_errors,
    forget_masks,
    load_masks,
    save_masks,
)
from hetseg_bids.training.samples import Block, BlockDataset, Lesson
from hetseg_bids.training.tasks import unpack_tasks
from hetseg_bids.training.teaching import hints
from hetseg_bids.training.volumes import FixedSource, VolumeSource

log = logging.getLogger(__name__)
CHECKPOINT_NAME = "checkpoint.safetensors"
MASKS_NAME = "rejected"
_SEED_STRIDE = 1_000_000_007
_ENDLESS = 2**62  # blocks; the end of a run may change while it goes on
_WORTH_NOTING = 0.01


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; none of it changes the result.

    Attributes
    ----------
    out : Path
        Folder for checkpoints and logs.
    device : torch.device
    workers : int
        Processes that generate samples; 0 generates in the main process.
    checkpoint_minutes : float
    compile : bool
        Let torch.compile fuse the step (needs a C++ compiler on CPU).
    amp : bool
        bfloat16 autocast, where the device computes in it.
    stop_after : int or None
        End after that many steps of this process, for tests and time slots.
    """

    out: Path
    device: torch.device
    workers: int = 1
    checkpoint_minutes: float = 5.0
    compile: bool = False
    amp: bool = True
    stop_after: int | None = None


@dataclass(frozen=True)
class StepReport:
    """Figures of a step for progress bars and logs; losses are means over the batch."""

    step: int
    samples: int
    loss: float
    system_loss: float
    dice_loss: float
    learning_rate: float


class Trainer:
    """One network, the average of its weights, its optimiser, its place in the sample stream.

    Parameters
    ----------
    config : TrainingConfig
    source : VolumeSource
    options : RunOptions
    initial : Model, optional
        What the weights start from (`training.initialisation`).
    label_set : LabelSet
        What the network learns to label.
    """

    def __init__(
        self,
        config: TrainingConfig,
        source: VolumeSource,
        options: RunOptions,
        initial: Model | None = None,
        label_set: LabelSet = ASEG,
    ) -> None:
        self.config = config
        self.source = source
        self.options = options
        self.label_set = label_set
        self.step = 0
        self.schedule = [(0, config.samples)]
        self._searched: int | None = None  # step of the last search for sporadic errors
        torch.manual_seed(config.seed)
        network = build_network(config)
        system = config.build_system()
        copied: frozenset[str] = frozenset()
        if initial is not None:
            copied = start_from_(network, system, initial, label_set)
        self.network = to_channels_last(network).to(options.device)
        state = self.network.state_dict()
        self._current = list(state.values())  # in the memory of the parameters
        self.average = {k: v.detach().clone() for k, v in state.items()}
        self.optimizer = _build_optimizer(config, self.network)
        self._names = {p: name for name, p in self.network.named_parameters()}
        self._copied = [p for p, name in self._names.items() if name in copied]
        new_encoder = bool(copied) and "stem.conv1.weight" not in copied
        self._hints: HetsegNet | None = None
        if initial is not None and new_encoder:
            self._hints = to_channels_last(copy.deepcopy(initial.network)).to(options.device)
        membership = torch.from_numpy(label_set.membership()).to(options.device)
        self._half = options.amp and computes_bf16(options.device)
        self._forward: Callable[[Tensor], tuple[Tensor, ...]] = self._compute_logits
        losses = (Plain().loss, system.loss)
        self._objective: Callable[..., Tensor] = Objective(
            *losses, membership, len(label_set.parts)
        )
        self._hint: Callable[[Tensor, Tensor], Tensor] = self._compute_hint
        if options.compile:
            # torch's own generator: inductor's is slow on CPUs, and draws other noise
            how: dict[str, Any] = {"fullgraph": True, "options": {"fallback_random": True}}
            # separately: when the loss changes after the plain phase, the network stays compiled
            self._forward = torch.compile(self._compute_logits, **how)
            self._objective = torch.compile(self._objective, **how)
            self._hint = torch.compile(self._compute_hint, **how)

    @property
    def checkpoint_path(self) -> Path:
        """Where this run keeps its latest state."""
        return self.options.out / CHECKPOINT_NAME

    def resume(self) -> bool:
        """Go on from the checkpoint of an interrupted run, if there is one.

        The planned number of samples may differ: the learning rate then follows the new plan
        from there on, and the change is added to `schedule`.

        Returns
        -------
        resumed : bool

        Raises
        ------
        ValueError
            If the checkpoint belongs to another configuration or data.
        """
        if not self.checkpoint_path.exists():
            return False
        state = Checkpoint.load(self.checkpoint_path)
        if state.config != self._identity():
            raise ValueError(
                f"{self.checkpoint_path} was made with other settings or data; "
                "choose another output folder or remove it"
            )
        self.network.load_state_dict(state.network)
        for name, value in state.average.items():
            self.average[name].copy_(value)  # keeps the memory order, on which rounding depends
        restore_optimizer_(self.optimizer, self._names, state.optimizer)
        self.step = state.step
        self.schedule = list(state.schedule)
        if self.schedule[-1][1] != self.config.samples:
            self.schedule.append((self.step, self.config.samples))
        self._take_up_masks()
        return True

    def save(self) -> None:
        """Write the checkpoint."""
        Checkpoint(
            step=self.step,
            schedule=tuple(self.schedule),
            config=self._identity(),
            network=self.network.state_dict(),
            average=self.average,
            optimizer=optimizer_tensors(self.optimizer, self._names),
        ).save(self.checkpoint_path)

    def run(self) -> Iterator[StepReport]:
        """Train to the end of the plan, yielding one report per step and saving checkpoints."""
        saved = time.monotonic()
        limit = math.inf if self.options.stop_after is None else self.step + self.options.stop_after
        forget_masks(self.options.out / MASKS_NAME, since=self.step)
        batches = self._batches()
        while self.step < min(self.config.steps, limit):
            rejection, steps = self.config.rejection, self.config.steps
            if rejection is not None and rejection.due(self.step, steps, self._searched):
                self._reject(rejection)
                batches = self._batches()  # workers must see the new masks
            report = self._advance(next(batches))
            if time.monotonic() - saved > 60 * self.options.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
            yield report
        self.save()

    def replan(self, samples: int) -> None:
        """Let the run end at another number of samples; the learning rate follows."""
        self.config = replace(self.config, samples=samples)
        if abs(samples / self.schedule[-1][1] - 1) > _WORTH_NOTING:
            self.schedule.append((self.step, samples))

    def _reject(self, rejection: RejectionConfig) -> None:
        source = self._fixed_source()
        patch = self.config.sampling.patch
        self.network.eval()
        volumes = source.volumes()
        masks = [
            find_sporadic_errors(self.network, volume, patch, rejection, self.label_set)
            for volume in volumes
        ]
        self.network.train()
        count = sum(int((mask != 0).sum()) for mask in masks)
        log.info("step %d: labels of %d voxels rejected", self.step, count)
        save_masks(self.options.out / MASKS_NAME, self.step, volumes, masks)
        source.reject(masks)
        self._searched = self.step

    def _take_up_masks(self) -> None:
        found = load_masks(self.options.out / MASKS_NAME, self.step)
        if self.config.rejection is not None and found is not None:
            self._searched, masks = found
            self._fixed_source().reject(masks)

    def _fixed_source(self) -> FixedSource:
        if not isinstance(self.source, FixedSource):
            raise ValueError("sporadic error rejection needs a fixed set of scans, which come back")
        return self.source

    def _identity(self) -> str:
        settings = asdict(self.config)
        del settings["samples"], settings["mirror"]
        for name in ("teaching_share", "settle_share"):
            if not settings[name]:
                del settings[name]  # runs without them are what they were before
        own = [] if self.label_set == ASEG else [asdict(self.label_set)]
        return json.dumps([settings, self.source.fingerprint(), *own], sort_keys=True)

    def _batches(self) -> Iterator[Block]:
        size, batch = self.config.sampling.block_size, self.config.batch
        if size % batch:
            raise ValueError(f"a block of {size} samples doesn't divide into batches of {batch}")
        start, offset = divmod(self.step * batch, size)
        config = self.config
        dataset = BlockDataset(
            self.source, config.sampling, config.seed, self.label_set, config.network.depth
        )
        spawns = self.options.workers and self.options.device.type == "cuda"
        loader: DataLoader[Block] = DataLoader(
            dataset,
            batch_size=None,
            sampler=range(start, _ENDLESS),
            num_workers=self.options.workers,
            prefetch_factor=1 if self.options.workers else None,
            # a forked process can't use the GPU that its parent uses
            multiprocessing_context="spawn" if spawns else None,
            collate_fn=_as_is,
        )
        for block in loader:
            for i in range(offset, size, batch):
                yield block.taken(slice(i, i + batch))
            offset = 0

    def _advance(self, batch: Block) -> StepReport:
        device = self.options.device
        images, labels = batch.images.to(device), batch.labels.to(device)
        labels = labels.flatten(0, 1)  # in the order of the network's output
        lesson = None if batch.lesson is None else self._lesson(batch.lesson)
        # noise of a step depends on the step alone, so that a resumed run draws the same
        torch.manual_seed(self.config.seed * _SEED_STRIDE + self.step)
        rate = self.config.schedule.rate(self.step, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        warm = self.step < self.config.plain_share * self.config.steps
        if self._hints is not None and self.step < self.config.settle_share * self.config.steps:
            return self._settle(self._hints, images, rate)
        kept = self._kept(batch)
        losses = self._objective(self._forward(images), labels, kept, lesson, warm)
        weights = (self.config.system_weight, self.config.dice_weight)
        total = weights[0] * losses[0] + weights[1] * losses[1]
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        system, dice = losses.detach().tolist()  # a step waits for a GPU only once
        return self._follow(weights[0] * system + weights[1] * dice, system, dice, rate)

    def _kept(self, batch: Block) -> Tensor | None:
        """Which labels count: (B, T, H, W) or (B, T, 1, 1) bool tensor; None: all of them."""
        device, count = self.options.device, len(self.label_set.tasks)
        if batch.rejected is not None:
            return ~unpack_tasks(batch.rejected.to(device).flatten(0, 1), count)
        if batch.told is None:
            return None
        others = batch.told.new_ones(len(batch.told), count - batch.told.shape[1])
        kept = torch.cat((others, batch.told), dim=1).to(device)
        return kept.repeat_interleave(batch.labels.shape[1], dim=0)[..., None, None]

    def _settle(self, model: HetsegNet, images: Tensor, rate: float) -> StepReport:
        """A step of the new layers of the encoder only."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.options.device, enabled=self._half):
            wanted = hints(model, images.float())
        loss = self._hint(images, wanted)
        loss.backward()
        for parameter in self._copied:
            parameter.grad = None
        return self._follow(loss.item(), math.nan, math.nan, rate)

    def _follow(self, loss: float, system: float, dice: float, rate: float) -> StepReport:
        """Take the step down the gradients."""
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return StepReport(
            step=self.step,
            samples=self.step * self.config.batch,
            loss=loss,
            system_loss=system,
            dice_loss=dice,
            learning_rate=rate,
        )

    def _lesson(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """Maps of each labelled slice, and the share of its loss that they have."""
        device, labelled = self.options.device, lesson.maps.shape[1]
        share = lesson.known.to(device).float() * self.config.teaching_share
        return lesson.maps.to(device).flatten(0, 1), share.repeat_interleave(labelled)

    def _compute_logits(self, images: Tensor) -> tuple[Tensor, ...]:
        with autocast(self.options.device, enabled=self._half):
            return self.network.forward_training(images.float())

    def _compute_hint(self, images: Tensor, wanted: Tensor) -> Tensor:
        with autocast(self.options.device, enabled=self._half):
            found = self.network.encoded(images.float())
        return functional.mse_loss(found[:, : wanted.shape[1]].float(), wanted)

    @torch.no_grad()
    def _update_average(self) -> None:
        # short memory at first, or the average would remember the random start
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), self._current, 1 - decay)


def build_network(config: TrainingConfig) -> HetsegNet:
    """A new network; for most tasks most pixels are background, so the logits start low."""
    network = config.network.build()
    for head in (network.head, *network.coarse_heads):
        nn.init.constant_(head.bias, config.output_bias)
    return network


def _build_optimizer(config: TrainingConfig, network: HetsegNet) -> torch.optim.Optimizer:
    parameters, rate = network.parameters(), config.schedule.peak
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay)


def _as_is(block: Any) -> Any:
    return block
