"""Long runs of the paper's systems on one core: to hundreds of thousands of samples each.

    python benchmarks/paper/long.py WORK OUT [--samples N] [--only RUN ...] [--network NAME]

WORK is what long_data.py filled. Trains the runs of `WAVES` in turn, a slice of samples each, so
that those of a wave advance together; the next wave begins when all of one have reached --samples.
The runs of a data set and seed share a start: a plain network that already segments.
Everything that is needed to go on lies in OUT/DATA/SYSTEM/seed-N: the same command goes on where
the last one ended, also with more --samples. Every 5,000 samples, at the end of a cycle of the
learning rate, all scans are segmented: validation.tsv, training.tsv and, where the labels were
corrupted, clean.tsv have the Dice by structure, progress.tsv the rest.
"""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from folded import FoldedConfig
from torch import Tensor

from hetseg_bids.files import write_tsv
from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.devices import keep_freed_memory, set_threads
from hetseg_bids.network.systems import Heteroscedastic, System, system_named
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.inference import brain_box
from hetseg_bids.segmentation.views import View, add_view_, empty_logits
from hetseg_bids.structures.aseg import ASEG, N_TASKS, STRUCTURES
from hetseg_bids.training.checkpoints import Checkpoint
from hetseg_bids.training.paired import PairedSource
from hetseg_bids.training.recipes import TrainingConfig, paper_recipe, small_recipe
from hetseg_bids.training.rejection import RejectionConfig
from hetseg_bids.training.trainer import CHECKPOINT_NAME, RunOptions, StepReport, Trainer
from hetseg_bids.training.validation import VALIDATION_NAME, ValidationLog
from hetseg_bids.training.volumes import LabelledVolume

log = logging.getLogger(__name__)

EVERY = 5_000  # samples, from score to score; a cycle of the learning rate has as many
SLICE = 20_000  # samples of a run before the next run has its turn
PATCH = (88, 72)  # a whole slice of the brain at 2 mm
PROGRESS_NAME, TRAINING_NAME, CLEAN_NAME = "progress.tsv", "training.tsv", "clean.tsv"
REJECTION, START = "label-flip-rejection", "start"
NETWORKS: dict[str, NetworkConfig] = {
    "folded": FoldedConfig(1, (8, 16), (16, 32, 48), (1, 2, 4, 1), 16, added_skips=True),
    "folded-wide": FoldedConfig(1, (8, 16), (24, 48, 64), (1, 2, 4, 1), 24, added_skips=True),
    "default": NetworkConfig(1, (8, 16), (16, 64, 96), added_skips=True),
}
_BATCH = 2
_PLANNED = 1_000_000  # samples; the learning rate doesn't depend on it
_START = 20_000  # samples
_FIRST_REJECTION, _REJECTION_EVERY = 50_000, 10_000  # samples; the paper: after 23 % and 3.8 %
_PEAK = 1e-3  # learning rate
_START_SEED = 1000  # added to the seed: the start sees other stacks than what follows
_TRAINING_SCORED = 2  # scans: all of them would take as much time again
_BINS = 15


@dataclass(frozen=True)
class Run:
    """One network.

    Attributes
    ----------
    data : str
        ``scans``, ``noisy`` or ``freesurfer``.
    variant : str
        A system, `REJECTION` or `START`.
    seed : int
    """

    data: str
    variant: str
    seed: int

    @classmethod
    def named(cls, name: str) -> Run:
        """From DATA/SYSTEM/seed-N.

        Examples
        --------
        >>> Run.named("scans/plain/seed-1")
        Run(data='scans', variant='plain', seed=1)
        """
        data, variant, seed = name.split("/")
        return cls(data, variant, int(seed.removeprefix("seed-")))

    @property
    def name(self) -> str:
        """Its folder below OUT."""
        return f"{self.data}/{self.variant}/seed-{self.seed}"

    @property
    def system(self) -> str:
        """What it is trained as."""
        return {REJECTION: "label-flip", START: "plain"}.get(self.variant, self.variant)

    @property
    def start(self) -> Run:
        """What it begins from."""
        return Run(self.data, START, self.seed)


WAVES = tuple(
    tuple(Run.named(f"{data}/{name}") for name in names)
    for data, names in (
        ("scans", ("label-flip/seed-0", "plain/seed-0")),
        ("noisy", ("label-flip/seed-0", "plain/seed-0")),
        ("scans", ("predictive-variance/seed-0", f"{REJECTION}/seed-0")),
        ("scans", ("label-flip/seed-1", "plain/seed-1")),
        ("freesurfer", ("label-flip/seed-0", "plain/seed-0")),
        ("freesurfer", ("predictive-variance/seed-0", f"{REJECTION}/seed-0")),
        ("freesurfer", ("label-flip/seed-1", "plain/seed-1")),
        ("noisy", ("predictive-variance/seed-0", f"{REJECTION}/seed-0")),
        ("noisy", ("label-flip/seed-1", "plain/seed-1")),
    )
)


class CoarseScans:
    """The scans of a folder at 2 mm, a `FixedSource`.

    Parameters
    ----------
    folder : Path
        T1w + dseg pairs, skull-stripped.
    """

    def __init__(self, folder: Path) -> None:
        self._pairs = PairedSource(folder, "skip")
        self._volumes = [coarse(volume) for volume in self._pairs.volumes()]
        self.participants = [p.t1w.name.split("_T1w")[0] for p in self._pairs.pairs]

    def fingerprint(self) -> dict[str, object]:
        """That of the files."""
        return {**self._pairs.fingerprint(), "mm": 2}

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """One of the scans."""
        return self._volumes[int(rng.integers(len(self._volumes)))]

    def volumes(self) -> list[LabelledVolume]:
        """All of them."""
        return list(self._volumes)

    def reject(self, masks: list[Tensor]) -> None:
        """See `FixedSource`."""
        pairs = zip(self._volumes, masks, strict=True)
        self._volumes = [replace(volume, rejected=mask) for volume, mask in pairs]


def coarse(volume: LabelledVolume) -> LabelledVolume:
    """A volume at 2 mm: the mean of each 8 voxels, and the label that most of them have.

    Examples
    --------
    >>> labels = torch.zeros(4, 4, 4, dtype=torch.uint8)
    >>> labels[:2, :2] = 10
    >>> half = coarse(LabelledVolume(labels.float(), labels))
    >>> half.image[:, 0, 0], half.labels[:, 0, 0]
    (tensor([10.,  0.]), tensor([10,  0], dtype=torch.uint8))
    """
    image = torch.nn.functional.avg_pool3d(volume.image[None, None], 2)[0, 0]
    # background, and not a mixture, around a brain that has an edge
    image[image < BACKGROUND + 0.5] = BACKGROUND
    blocks = volume.labels.unfold(0, 2, 2).unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    affine = volume.affine @ np.diag((2.0, 2.0, 2.0, 1.0))
    affine[:3, 3] += volume.affine[:3, :3] @ np.full(3, 0.5)
    return LabelledVolume(image, blocks.mode(dim=3).values, affine=affine)


class LongRun:
    """A trainer, its scans and its tables.

    Parameters
    ----------
    run : Run
    network : NetworkConfig
        One of `NETWORKS`.
    work, out : Path
    compiled : bool
    every : int
        Samples from score to score.
    paper_loss : bool
        See `recipe`.
    """

    def __init__(
        self,
        run: Run,
        network: NetworkConfig,
        work: Path,
        out: Path,
        *,
        compiled: bool = True,
        every: int = EVERY,
        paper_loss: bool = False,
    ) -> None:
        self.run, self.every = run, every
        folder = out / run.name
        folder.mkdir(parents=True, exist_ok=True)
        # masks of rejected labels belong to one run
        own = CoarseScans(work / run.data / "train")
        options = RunOptions(folder, CPU, workers=0, checkpoint_minutes=3, compile=compiled)
        config = recipe(run, network, every, paper_loss=paper_loss)
        self.trainer = Trainer(config, own, options)
        if not self.trainer.resume() and run != run.start:
            begin_from_(self.trainer.network, out / run.start.name / CHECKPOINT_NAME)
        self.system = system_named(run.system)
        self.parts = {
            VALIDATION_NAME: shared_scans(work / run.data / "validation"),
            TRAINING_NAME: own,
        }
        if (work / run.data / "clean").exists():
            self.parts[CLEAN_NAME] = shared_scans(work / run.data / "clean")
        self.logs = {name: ValidationLog(folder / name, self.samples) for name in self.parts}
        self.progress = read_progress(folder / PROGRESS_NAME, self.samples)

    @property
    def samples(self) -> int:
        """How many it has seen."""
        return self.trainer.step * self.trainer.config.batch

    def advance(self, samples: int) -> None:
        """Train to that many samples in all, scoring on the way."""
        began, losses = time.monotonic(), []
        for report in self.trainer.run():
            losses.append(report.loss)
            if report.samples % self.every == 0 or report.step == self.trainer.config.steps:
                seconds = time.monotonic() - began
                self._score(report, float(np.mean(losses)), seconds)
                self.trainer.save()
                began, losses = time.monotonic(), []
            if report.samples >= samples:
                break
        self.trainer.save()

    def _score(self, report: StepReport, loss: float, seconds: float) -> None:
        row = {"samples": report.samples, "loss": loss, "training_seconds": seconds}
        began = time.monotonic()
        network = self.trainer.network.eval()
        for name, source in self.parts.items():
            tables, found = [], []
            scans = list(zip(source.participants, source.volumes(), strict=True))
            for who, volume in scans if name == VALIDATION_NAME else scans[:_TRAINING_SCORED]:
                dice, counts = judge(network, self.system, volume)
                self.logs[name].add(report.samples, who, dice)
                tables.append(counts)
                found.append(dice)
            part = name.removesuffix(".tsv")
            row |= {f"{part}_{key}": value for key, value in summary(sum(tables)).items()}
            row[f"{part}_dice"] = float(np.nanmean([list(d.values()) for d in found]))
        network.train()
        row["rejected"] = rejected_share(self.parts[TRAINING_NAME].volumes())
        row["scoring_seconds"] = time.monotonic() - began
        self.progress = pd.concat([self.progress, pd.DataFrame([row])], ignore_index=True)
        folder = self.trainer.options.out
        for table in self.logs.values():
            table.save()
        write_tsv(folder / PROGRESS_NAME, self.progress.round(6))
        log.info(
            "%s %d: Dice %.3f, training %.3f; %.0f samples/s, scored in %.0f s",
            self.run.name,
            report.samples,
            row["validation_dice"],
            row["training_dice"],
            self.every / seconds,
            row["scoring_seconds"],
        )


def recipe(
    run: Run, network: NetworkConfig, every: int = EVERY, *, paper_loss: bool = False
) -> TrainingConfig:
    """The recipe for a run: the paper's augmentation and restarts, the loss of the short runs.

    That loss has a Dice term beside each system's own, and AdamW; with `paper_loss` it is the
    paper's, without Dice, and RMSprop. Starts have the recipe ``small``; weights aren't averaged.
    """
    paper = paper_recipe(run.system, samples=_PLANNED, seed=run.seed)
    system = system_named(run.system)
    sampling = replace(paper.sampling, patch=PATCH, volumes_per_block=8, stacks_per_volume=25)
    network = replace(network, n_outputs=system.n_outputs(N_TASKS))
    small = small_recipe(run.system, samples=_START, seed=_START_SEED + run.seed)
    if run == run.start:
        near = replace(small.sampling.augmentation, offset=4.0)  # voxels of 2 mm
        sampling = replace(sampling, augmentation=near, structure_rate=0.5)
        return replace(small, network=network, sampling=sampling, ema_decay=0.0)
    rejection = None
    if run.variant == REJECTION:
        rejection = RejectionConfig(_FIRST_REJECTION // _BATCH, _REJECTION_EVERY // _BATCH)
    config = replace(
        paper,
        network=network,
        sampling=sampling,
        batch=_BATCH,
        schedule=replace(paper.schedule, period=every // _BATCH),
        plain_share=0.0,
        rejection=rejection,
    )
    if paper_loss:
        return config
    return replace(
        config,
        optimizer=small.optimizer,
        schedule=replace(config.schedule, peak=_PEAK),
        weight_decay=small.weight_decay,
        system_weight=small.system_weight,
        dice_weight=small.dice_weight,
        clip=small.clip,
    )


def begin_from_(network: HetsegNet, path: Path) -> None:
    """Take the weights of a start; what a plain network lacks stays random.

    Parameters
    ----------
    network : HetsegNet
        Of any system.
    path : Path
        The checkpoint of the start.
    """
    start, own = Checkpoint.load(path).network, network.state_dict()
    for name, values in start.items():
        if values.shape != own[name].shape:  # the head: a label map each, then a second map each
            blocks = len(own[name]) // network.config.n_outputs
            wider = own[name].clone().unflatten(0, (blocks, -1))
            wider[:, :N_TASKS] = values.unflatten(0, (blocks, -1))
            values = wider.flatten(0, 1)
        own[name].copy_(values)


@cache
def shared_scans(folder: Path) -> CoarseScans:
    """Scans that several runs are scored on, read once."""
    return CoarseScans(folder)


def read_progress(path: Path, seen: int) -> pd.DataFrame:
    """The rows of a run that are still valid; later ones come again."""
    if not path.exists():
        return pd.DataFrame()
    table = pd.read_csv(path, sep="\t", na_values="n/a")
    return table[table["samples"] <= seen]


def judge(
    network: HetsegNet, system: System, volume: LabelledVolume
) -> tuple[dict[str, float], np.ndarray]:
    """Segment a scan from three views and compare it with its labels.

    Parameters
    ----------
    network : HetsegNet
    system : System
    volume : LabelledVolume

    Returns
    -------
    dice : dict of str to float
        By structure.
    counts : (bins, 3) array
        (voxel, structure) pairs of the brain by forecast: number, sum of the forecasts, number
        that contradict the label. The forecast is the flip probability; that of plain is
        min(p, 1 - p).
    """
    outputs = torch.arange(network.config.n_outputs)
    box = brain_box(volume.image > BACKGROUND)
    image = volume.image[box]
    brain = image > BACKGROUND
    mean = empty_logits(len(outputs), image.shape)
    for plane in PLANES.values():
        add_view_(mean, image, View(network, plane, PATCH, outputs), brain)
    mean /= len(PLANES)
    count = len(STRUCTURES)
    label = mean[:count].permute(1, 2, 3, 0)[brain]  # (voxels, structures)
    membership = torch.from_numpy(ASEG.membership())[:, :count].bool()
    truth = membership[volume.labels[box][brain].int()]
    says = label > 0
    if isinstance(system, Heteroscedastic):
        second = mean[N_TASKS : N_TASKS + count].permute(1, 2, 3, 0)[brain]
        forecast = system.flip_probability(label, second)
    else:
        forecast = torch.sigmoid(-label.abs())
    overlap, size = (says & truth).sum(0), says.sum(0) + truth.sum(0)
    dice = (2 * overlap / size).tolist()
    bins = (forecast.clamp(0, 0.4999) * (2 * _BINS)).long().flatten()
    counts = np.stack(
        [
            np.bincount(bins.numpy(), weights, _BINS)
            for weights in (None, forecast.flatten().numpy(), (says != truth).flatten().numpy())
        ],
        axis=1,
    )
    return dict(zip((s.name for s in STRUCTURES), dice, strict=True)), counts


def summary(counts: np.ndarray) -> dict[str, float]:
    """Mean forecast, observed disagreement and expected calibration error of `judge`'s counts.

    Examples
    --------
    >>> summary(np.array([[90, 1.0, 0], [10, 4.0, 6]]))
    {'forecast': 0.05, 'disagreement': 0.06, 'ece': 0.03}
    """
    voxels, forecasts, wrong = counts.sum(axis=0)
    gap = np.abs(counts[:, 1] - counts[:, 2]).sum()
    shares = {"forecast": forecasts, "disagreement": wrong, "ece": gap}
    return {name: float(value / voxels) for name, value in shares.items()}


def rejected_share(volumes: list[LabelledVolume]) -> float:
    """Share of the brain's voxels of which at least one task's label is left out."""
    brain = sum(int((v.image > BACKGROUND).sum()) for v in volumes)
    return sum(int((v.rejected != 0).sum()) for v in volumes if v.rejected is not None) / brain


def main() -> None:
    """Train until all runs have seen --samples."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=200_000, help="of each run")
    parser.add_argument("--slice", type=int, default=SLICE, help="samples of a turn")
    parser.add_argument("--every", type=int, default=EVERY, help="samples from score to score")
    parser.add_argument("--only", nargs="+", metavar="DATA/SYSTEM/seed-N", help="one wave of these")
    parser.add_argument("--network", choices=NETWORKS, default="folded")
    parser.add_argument("--paper-loss", action="store_true", help="without Dice; RMSprop")
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    args = parser.parse_args()
    if args.samples > _PLANNED:
        parser.error(f"--samples: {_PLANNED} at most")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    set_threads(1)
    keep_freed_memory()
    torch._dynamo.config.recompile_limit = 64
    waves = (tuple(map(Run.named, args.only)),) if args.only else WAVES
    for wave in waves:
        train_wave(wave, args)


def open_run(run: Run, args: argparse.Namespace) -> LongRun:
    """A run, where it ended the last time."""
    network = NETWORKS[args.network]
    how = {"compiled": args.compiled, "every": args.every, "paper_loss": args.paper_loss}
    return LongRun(run, network, args.work, args.out, **how)


def train_wave(wave: tuple[Run, ...], args: argparse.Namespace) -> None:
    """Train the starts, then the runs in turn: always the one that has seen the fewest samples."""
    wave = tuple(run for run in wave if (args.work / run.data / "train").exists())
    for start in dict.fromkeys(run.start for run in wave):
        open_run(start, args).advance(_START)
    if wave == tuple(run.start for run in wave):
        return
    runs = [open_run(run, args) for run in wave]
    while runs and min(run.samples for run in runs) < args.samples:
        run = min(runs, key=lambda run: run.samples)
        run.advance(min(args.samples, run.samples // args.slice * args.slice + args.slice))


if __name__ == "__main__":
    main()
