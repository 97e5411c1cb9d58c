"""One training session from request to model folder: source, trainer, logs, export."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from hetseg_bids import __version__
from hetseg_bids.errors import DatasetError, OptionError
from hetseg_bids.network.devices import keep_freed_memory, resolve_device, set_threads
from hetseg_bids.network.models import Model, Plan, load_model, save_model
from hetseg_bids.network.systems import LabelFlip, system_named
from hetseg_bids.preprocessing.normalisation import BACKGROUND, CLIP
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.structures.aseg import ASEG, WITH_PARTS
from hetseg_bids.structures.head import HEAD
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import read_label_table
from hetseg_bids.training.compiled import compiled_code
from hetseg_bids.training.pace import paced
from hetseg_bids.training.paired import PairedSource
from hetseg_bids.training.recipes import (
    AS_BEFORE,
    DEFAULT_RECIPE,
    HEAD_RECIPE,
    RECIPES,
    TrainingConfig,
    with_rejection,
    with_teacher,
)
from hetseg_bids.training.synthesis.heads import HeadSource
from hetseg_bids.training.synthesis.painting import SyntheticScans, SyntheticSource
from hetseg_bids.training.tasks import MOST_TASKS
from hetseg_bids.training.teaching import TaughtSource
from hetseg_bids.training.trainer import RunOptions, StepReport, Trainer
from hetseg_bids.training.unlabelled import UnlabelledSource
from hetseg_bids.training.validation import (
    VALIDATION_NAME,
    ValidationLog,
    read_validation_scans,
    structure_dice,
)
from hetseg_bids.training.volumes import MixedSource, VolumeSource

log = logging.getLogger(__name__)
TAUGHT_NAME = "taught"
_SCALAR_EVERY = 25  # steps


@dataclass(frozen=True)
class TrainingRequest:
    """The options of the command line; see ``hetseg-train --help``."""

    out: Path
    label_maps: Path | None
    synthetic_scans: int | None
    scans: Path | None
    unlabelled: Path | None
    shares: tuple[float, ...]
    labels: Path | None
    parts: bool
    validate: Path | None
    validate_every: int
    init: str | None
    teacher: str | None
    teaching_share: float
    system: str
    recipe: str | None
    reject_sporadic: bool
    samples: int | None
    batch: int | None
    learning_rate: float | None
    minutes: float | None
    seed: int
    device: str
    workers: int
    threads: int | None
    checkpoint_minutes: float
    compile: bool
    amp: bool
    stop_after: int | None
    name: str


def train(request: TrainingRequest) -> None:
    """Carry out a request.

    Raises
    ------
    HetsegError
        If the options, the data, the model or the device can't be used; each has its class.
    ValueError
        If the output folder holds another run.
    """
    set_threads(request.threads)
    keep_freed_memory()
    initial = _initial(request)
    label_set = _label_set(request, initial)
    config = _config(request, initial, label_set)
    options = RunOptions(
        out=request.out,
        device=resolve_device(request.device),
        workers=request.workers,
        checkpoint_minutes=request.checkpoint_minutes,
        compile=request.compile,
        amp=request.amp,
        stop_after=request.stop_after,
    )
    teacher = None if request.teacher is None else _teacher(request, request.teacher, label_set)
    request.out.mkdir(parents=True, exist_ok=True)
    source = open_source(request, options.device, teacher)
    trainer = Trainer(config, source, options, initial, label_set)
    if trainer.resume():
        log.info("resumed at step %d of %d", trainer.step, config.steps)
    reports: Iterable[StepReport] = trainer.run()
    if request.minutes is not None:
        reports = paced(trainer, reports, request.minutes)
    if request.validate is not None:
        reports = _validated(trainer, reports, request.validate, request.validate_every)
    with compiled_code(request.out) if request.compile else nullcontext():
        _log_run(trainer, reports)
    if trainer.step >= trainer.config.steps:
        plan = export(trainer, request.out / "model", request.name)
        log.info("model written to %s (%s)", request.out / "model", plan.weights_sha256[:12])


def _initial(request: TrainingRequest) -> Model | None:
    if request.init is None:
        return None
    return load_model(request.init, torch.device("cpu"), "--init")


def _teacher(request: TrainingRequest, name: str, label_set: LabelSet) -> Model:
    teacher = load_model(name, CPU, "--teacher")
    option = f"--teacher {name}"
    if not isinstance(teacher.plan.system, LabelFlip) or request.system != teacher.plan.system.name:
        raise OptionError("teacher and --system have to be label-flip", option=option)
    if teacher.plan.label_set.structures != label_set.structures:
        raise OptionError("it labels other structures", option=option)
    return teacher


def _label_set(request: TrainingRequest, initial: Model | None) -> LabelSet:
    if request.recipe == HEAD_RECIPE:
        _check_head(request)
        return HEAD
    if request.labels is not None:
        if request.parts:
            raise OptionError("a table given with --labels has no parts", option="--parts")
        return read_label_table(request.labels)
    label_set = ASEG if initial is None else initial.plan.label_set
    if not request.parts:
        # masks of rejected labels have no bits for parts
        return replace(label_set, parts=()) if request.reject_sporadic else label_set
    if label_set.structures != ASEG.structures:
        raise OptionError("--init labels other structures than hetseg's 28", option="--parts")
    return WITH_PARTS


def _check_head(request: TrainingRequest) -> None:
    others = (
        request.scans,
        request.unlabelled,
        request.synthetic_scans,
        request.labels,
        request.validate,
        request.init,
        request.teacher,
    )
    if any(other is not None for other in others) or request.parts or request.reject_sporadic:
        raise OptionError(
            "whole heads are made from --label-maps alone, with labels of their own",
            option=f"--recipe {HEAD_RECIPE}",
        )


def _config(request: TrainingRequest, initial: Model | None, label_set: LabelSet) -> TrainingConfig:
    if request.recipe == "polish" and initial is None:
        raise OptionError(
            "there is nothing to polish", "name a model with --init", option="--recipe polish"
        )
    recipe = RECIPES[request.recipe or DEFAULT_RECIPE]
    config = recipe(request.system, samples=request.samples, seed=request.seed)
    # a model keeps its network, unless a recipe with a larger one was chosen
    network, mirror = config.network, config.mirror
    if initial is not None and request.recipe in AS_BEFORE:
        network, mirror = initial.plan.network, initial.plan.mirror
    outputs = system_named(request.system).n_outputs(len(label_set.tasks))
    config = replace(config, network=replace(network, n_outputs=outputs), mirror=mirror)
    if request.batch is not None:
        config = replace(config, batch=request.batch)
    if request.learning_rate is not None:
        schedule = replace(config.schedule, peak=request.learning_rate)
        config = replace(config, schedule=schedule)
    if not config.steps:
        raise OptionError(f"less than a batch of {config.batch}", option="--samples")
    if initial is not None:
        # smoothing was measured for networks of synthetic scans only
        smoothing = 0 if request.label_maps is None else initial.plan.smoothing
        checksum = initial.plan.weights_sha256
        config = replace(config, initial_weights=checksum, smoothing=smoothing)
    if request.teacher is not None:
        every = request.unlabelled is None
        config = with_teacher(config, request.teaching_share, every_volume=every)
    if request.reject_sporadic:
        _check_rejection(request, label_set)
        config = with_rejection(config)
    return config


def _validated(
    trainer: Trainer, reports: Iterable[StepReport], folder: Path, every: int
) -> Iterator[StepReport]:
    """Yield the reports, and score the averaged weights every `every` samples."""
    config = trainer.config
    scans = read_validation_scans(folder, config.sampling.patch, config.network.depth.slices)
    batch = config.batch
    table = ValidationLog(trainer.options.out / VALIDATION_NAME, trainer.step * batch)
    for report in reports:
        if report.samples // every > (report.samples - batch) // every:
            for scan in scans:
                amp = trainer.options.amp
                dice = structure_dice(
                    trainer.network, trainer.average, scan, trainer.label_set, amp=amp
                )
                table.add(report.samples, scan.participant, dice)
            table.save()
        yield report


def export(trainer: Trainer, folder: Path, name: str) -> Plan:
    """Write the averaged weights with the plan that made them.

    Parameters
    ----------
    trainer : Trainer
        At any step; the number of samples so far is written into the plan.
    folder : Path
    name : str
    """
    config = trainer.config
    plan = Plan(
        name=name,
        system=config.build_system(),
        network=config.network,
        patch=config.sampling.patch,
        background=BACKGROUND,
        clip=CLIP,
        weights_sha256="",
        provenance={
            "hetseg": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "samples_seen": trainer.step * config.batch,
            "schedule": [{"step": a, "samples_planned": b} for a, b in trainer.schedule],
            "weights": f"moving average, decay {config.ema_decay}",
            "training": asdict(config),
            "source": trainer.source.fingerprint(),
        },
        label_set=trainer.label_set,
        smoothing=config.smoothing,
        mirror=config.mirror,
    )
    return save_model(folder, plan, trainer.average)


def _check_rejection(request: TrainingRequest, label_set: LabelSet) -> None:
    if label_set.parts:
        raise OptionError("not for models with parts (--parts)", option="--reject-sporadic")
    if len(label_set.tasks) > MOST_TASKS:
        raise OptionError(f"more than {MOST_TASKS - 3} structures", option="--reject-sporadic")
    if not isinstance(system_named(request.system), LabelFlip):
        raise OptionError("--reject-sporadic needs the flip map of --system label-flip")
    several = bool(request.scans) + bool(request.label_maps) + bool(request.unlabelled) > 1
    if several or (request.scans is None and request.synthetic_scans is None):
        raise OptionError(
            "--reject-sporadic needs --scans or --synthetic-scans alone: freely drawn scans never "
            "come back"
        )


def open_source(
    request: TrainingRequest, device: torch.device = CPU, teacher: Model | None = None
) -> VolumeSource:
    """The volume source that a request names.

    Synthetic scans that are drawn without end are made on a GPU where there is one: sixteen cores
    can't make them as fast as it trains.
    """
    sources: list[VolumeSource] = []
    if request.label_maps is not None:
        sources.append(_synthetic(request, request.label_maps, device))
    if request.scans is not None:
        sources.append(PairedSource(request.scans))
    if request.unlabelled is not None:
        assert teacher is not None  # noqa: S101 (the command line asks for one)
        sources.append(UnlabelledSource(request.unlabelled, teacher, request.out / TAUGHT_NAME))
    elif teacher is not None:
        sources = [TaughtSource(source, teacher) for source in sources]
    if len(sources) == 1:
        return sources[0]
    return MixedSource(sources, request.shares or (1.0,) * len(sources))


def _synthetic(request: TrainingRequest, folder: Path, device: torch.device) -> VolumeSource:
    maps = sorted(folder.glob("*.nii*"))
    if not maps:
        raise DatasetError("no *.nii or *.nii.gz there", option="--label-maps", path=folder)
    if request.recipe == HEAD_RECIPE:
        return HeadSource(maps)
    if request.synthetic_scans is not None:
        return SyntheticScans(SyntheticSource(maps), request.synthetic_scans, request.seed)
    return SyntheticSource(maps, device=device if device.type == "cuda" else CPU)


def _log_run(trainer: Trainer, reports: Iterable[StepReport]) -> None:
    config = trainer.config
    bar = tqdm(
        total=config.samples, initial=trainer.step * config.batch, unit="sample", smoothing=0.05
    )
    sums = [0.0, 0.0, 0.0]
    # purge_step: steps that an interrupted run logged after its last checkpoint come again
    seen = trainer.step * config.batch
    with bar, SummaryWriter(trainer.options.out / "tensorboard", purge_step=seen) as board:
        for report in reports:
            bar.total = trainer.config.samples
            bar.update(config.batch)
            for i, value in enumerate((report.loss, report.system_loss, report.dice_loss)):
                sums[i] += value
            if report.step % _SCALAR_EVERY == 0:
                means = [value / _SCALAR_EVERY for value in sums]
                for name, value in zip(("total", "system", "dice"), means, strict=True):
                    board.add_scalar(f"loss/{name}", value, report.samples)
                board.add_scalar("learning_rate", report.learning_rate, report.samples)
                bar.set_postfix(loss=f"{means[0]:.3f}", dice=f"{1 - means[2]:.3f}")
                sums = [0.0, 0.0, 0.0]
