"""What unlabelled scans bring, and each way to learn from the labels that a model gives them.

    python benchmarks/self_training.py MAPS SCANS UNLABELLED DATA OUT --teacher MODEL
        [--start-samples 8000] [--samples 4000] [--only WAY ...] [--leave-out]

MAPS holds label maps, SCANS and DATA sub-X_T1w.nii.gz with sub-X_dseg.nii.gz (FreeSurfer aseg ids),
UNLABELLED T1w images, which the teacher labels. A network of `--recipe compact` learns from MAPS
alone: the start of all ways. Each way sees as many stacks, a quarter of them of UNLABELLED, in the
same order. DATA, which nobody learned from, is scored. With --leave-out the ways are trained once
more without each scan of SCANS, which is scored. Writes OUT/self_training.tsv and prints it as
Markdown. What exists isn't made again. For a core that is free.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import link, read_reference, scans_of
from torch import Tensor

from hetseg_bids import segment
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.devices import keep_freed_memory, set_threads
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.labels import LEVELS, MAX_FLIP_PROBABILITY
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.training.paired import PairedSource
from hetseg_bids.training.recipes import TrainingConfig, compact_recipe, polish_recipe
from hetseg_bids.training.rejection import RejectionConfig, find_sporadic_errors
from hetseg_bids.training.session import export
from hetseg_bids.training.synthesis.painting import SyntheticSource
from hetseg_bids.training.tasks import pack_tasks
from hetseg_bids.training.trainer import RunOptions, Trainer
from hetseg_bids.training.unlabelled import UnlabelledSource
from hetseg_bids.training.volumes import LabelledVolume, MixedSource, VolumeSource

_SHARES = (0.35, 0.40, 0.25)  # of MAPS, SCANS and UNLABELLED, as the default weights saw them
_PEAK = 1e-3  # learning rate
_SEED = 11


@dataclass(frozen=True)
class Way:
    """How unlabelled scans are learned from.

    Attributes
    ----------
    unlabelled : bool
        Whether they are seen at all.
    soft : float
        Share of their loss that is the distance from the teacher's p and q; the rest is the
        label-flip loss of the teacher's labels.
    limit : float
        Labels of which the teacher's q is larger don't count.
    rejects : bool
        Whether labels that the network contradicts with confidence after half of the stacks are
        left out in the other half.
    rounds : int
        With 2 the network of a first round is the teacher of the second, from the same start.
    renewals : int
        So many times in a run, at even distances, the moving average of its weights becomes the
        teacher.
    """

    unlabelled: bool = True
    soft: float = 0.0
    limit: float = 1.0
    rejects: bool = False
    rounds: int = 1
    renewals: int = 0


WAYS = {
    "no unlabelled scans": Way(unlabelled=False),
    "labels as they are": Way(),
    "labels with q up to 0.1": Way(limit=0.1),
    "labels, sporadic errors rejected": Way(rejects=True),
    "p and q": Way(soft=1.0),
    "p and q, and labels": Way(soft=0.5),
    "p and q, and labels, two rounds": Way(soft=0.5, rounds=2),
    "p and q, and labels, of the moving average": Way(soft=0.5, renewals=2),
}


class Weak:
    """Unlabelled scans with the teacher's labels, some of them left out.

    Parameters
    ----------
    source : UnlabelledSource
    way : Way
    """

    def __init__(self, source: UnlabelledSource, way: Way) -> None:
        self.source, self.way = source, way
        self.rejected: list[Tensor] = []  # of each scan

    def fingerprint(self) -> dict[str, object]:
        """That of the scans."""
        return self.source.fingerprint()

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """One of the scans."""
        number = int(rng.integers(len(self.source.scans)))
        volume = self.source.volume(number)
        assert volume.taught is not None  # noqa: S101
        if self.way.limit < 1:
            q = volume.taught[..., len(ASEG.structures) :].float() / LEVELS * MAX_FLIP_PROBABILITY
            doubted = torch.zeros(len(ASEG.tasks), *volume.labels.shape, dtype=torch.bool)
            doubted[: len(ASEG.structures)] = q.permute(3, 0, 1, 2) > self.way.limit
            volume = replace(volume, rejected=pack_tasks(doubted))
        if self.rejected:
            volume = replace(volume, rejected=self.rejected[number])
        return volume if self.way.soft else replace(volume, taught=None)

    def reject(self, network: HetsegNet, config: TrainingConfig) -> None:
        """From now on leave labels out that a network contradicts."""
        network.eval()
        rule, patch = RejectionConfig(0, 1), config.sampling.patch
        self.rejected = [
            find_sporadic_errors(network, self.source.volume(number), patch, rule)
            for number in range(len(self.source.scans))
        ]
        network.train()

    def renew(self, trainer: Trainer) -> None:
        """From now on the moving average of a run's weights is the teacher."""
        folder = trainer.options.out / f"teacher-{trainer.step}"
        export(trainer, folder, "label-flip")
        teacher = load_model(str(folder), CPU)
        self.source = UnlabelledSource(self.source.folder, teacher, self.source.cache)

    def between(self, trainer: Trainer, config: TrainingConfig) -> None:
        """What happens between two parts of a run."""
        if self.way.rejects:
            self.reject(trainer.network, config)
        if self.way.renewals:
            self.renew(trainer)

    @property
    def parts(self) -> int:
        """Of a run."""
        return 2 if self.way.rejects else self.way.renewals + 1


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("maps", "scans", "unlabelled", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--start-samples", type=int, default=8000)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=tuple(WAYS))
    parser.add_argument("--leave-out", action="store_true")
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    start(args)
    rows = scored("start", args.out / "start", scans_of(args.data))
    rows += scored("start", args.out / "start", scans_of(args.scans)) if args.leave_out else []
    for name in args.only:
        if args.leave_out:
            for scan in scans_of(args.scans):
                folder = args.out / f"without-{scan.name.split('_')[0]}" / name.replace(" ", "-")
                train(folder, WAYS[name], others(scan, args), args)
                rows += scored(name, folder, [scan])
        else:
            folder = args.out / name.replace(" ", "-")
            train(folder, WAYS[name], args.scans, args)
            rows += scored(name, folder, scans_of(args.data))
        table = pd.DataFrame(rows)
        kind = "left_out" if args.leave_out else "self_training"
        write_table(table, args.out / f"{kind}.tsv")
    print(markdown(table))


def start(args: argparse.Namespace) -> None:
    """The network that all ways begin with: it has seen label maps alone."""
    config = compact_recipe("label-flip", samples=args.start_samples, seed=_SEED)
    teacher = load_model(args.teacher, CPU)
    carry_out(args.out / "start", config, SyntheticSource(maps_of(args)), teacher)


def train(folder: Path, way: Way, scans: Path, args: argparse.Namespace) -> None:
    """One way."""
    teacher = args.teacher
    for number in range(way.rounds - 1):
        before = folder / f"round-{number + 1}"
        train(before, replace(way, rounds=1), scans, args)
        teacher = str(before / "model")
    config = polish_recipe("label-flip", samples=args.samples, seed=_SEED)
    beginning = load_model(str(args.out / "start" / "model"), CPU)
    config = replace(
        config,
        network=beginning.plan.network,
        mirror=False,
        teaching_share=way.soft,
        schedule=replace(config.schedule, peak=_PEAK),
    )
    cache = args.out / "taught"
    weak = Weak(UnlabelledSource(args.unlabelled, load_model(teacher, CPU), cache), way)
    sources: list[VolumeSource] = [SyntheticSource(maps_of(args)), PairedSource(scans)]
    count = 2 + way.unlabelled
    mixed = MixedSource([*sources, weak][:count], _SHARES[:count])
    carry_out(folder, config, mixed, beginning, weak)


def carry_out(
    folder: Path,
    config: TrainingConfig,
    source: VolumeSource,
    initial: Model,
    weak: Weak | None = None,
) -> None:
    """Train, and write the model and its plan; nothing where they are."""
    if (folder / "model" / "plan.json").exists():
        return
    parts = weak.parts if weak is not None else 1
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(config, smoothing=initial.plan.smoothing)
    part = -(-config.steps // parts)
    options = RunOptions(folder, CPU, workers=0, compile=True, stop_after=part)
    trainer = Trainer(config, source, options, initial, ASEG)
    for number in range(parts):
        if weak is not None and number:
            weak.between(trainer, config)
        for _ in trainer.run():
            pass
    export(trainer, folder / "model", "label-flip")


def maps_of(args: argparse.Namespace) -> list[Path]:
    """The label maps."""
    return sorted(args.maps.glob("*.nii*"))


def others(left_out: Path, args: argparse.Namespace) -> Path:
    """A folder with all labelled scans but one."""
    folder: Path = args.out / f"without-{left_out.name.split('_')[0]}" / "scans"
    for scan in scans_of(args.scans):
        if scan != left_out:
            for name in (scan.name, scan.name.replace("_T1w", "_dseg")):
                link(scan.with_name(name), folder / name)
    return folder


def scored(name: str, folder: Path, scans: Sequence[Path]) -> list[dict[str, object]]:
    """Dice of each structure of each scan."""
    rows: list[dict[str, object]] = []
    for t1w in scans:
        kept = folder / f"{t1w.name.split('_')[0]}.tsv"
        if not kept.exists():
            found = np.asarray(segment(t1w, model=str(folder / "model")).dseg.dataobj)
            truth = read_reference(t1w)
            dices = [dice(found == s.label, truth == s.label) for s in ASEG.structures]
            names = [s.name for s in ASEG.structures]
            write_table(pd.DataFrame({"name": names, "dice": dices}), kept)
        table = pd.read_csv(kept, sep="\t", na_values="n/a")
        table.insert(0, "way", name)
        table.insert(1, "scan", t1w.name.split("_")[0])
        rows += table.to_dict("records")
    return rows


def markdown(table: pd.DataFrame) -> str:
    """Mean Dice: a row per way, a column per scan."""
    means = table.pivot_table("dice", "way", "scan", sort=False)
    means["mean"] = means.mean(axis=1)
    lines = ["| learned from | " + " | ".join(means) + " |"]
    lines.append("|" + "---|" * (1 + len(means.columns)))
    for way, row in means.iterrows():
        lines.append(f"| {way} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
