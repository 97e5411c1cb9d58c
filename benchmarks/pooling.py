"""How a model's views are best pooled into one flip map, from scans whose truth is known.

    python benchmarks/pooling.py LABEL_MAPS [--model NAME] [--scans 8] [--write]
    python benchmarks/pooling.py DATA --labelled [--model NAME] [--write]
    python benchmarks/pooling.py DATA --structures [--share 0.5] [--model NAME] [--write]

Draws synthetic scans with clean labels, or with --labelled takes the sub-X_T1w.nii.gz and
sub-X_dseg.nii.gz of a folder, segments them, and fits the three numbers of
`hetseg_bids.network.fitted.Pooling` by logistic regression: is the ensemble's yes or no
right, given the mean of the views' log-odds and the ensemble's logit? Every scan counts alike, and
up to 30,000 voxels of each structure. --write puts them into the model's plan.json. The last
lines fit one half of the scans and say what that gives on the other.

With --structures, the three numbers stay, and what is added for each structure is fitted to
labelled scans: as many errors are to be expected of both sides together as there are, all scans
alike. Of that, --share is taken, because references of another protocol agree with other
structures. The lines say how expected and true Dice correlate before, after, and with each scan
left out of its own fit.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accuracy import scans_of
from scipy import optimize, special
from torch import Tensor

from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.images import read_labels
from hetseg_bids.network.fitted import Pooling
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.network.systems import SUREST, PooledEnsemble
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.islands import most_probable
from hetseg_bids.segmentation.uncertainty import FlipSums
from hetseg_bids.structures.label_sets import MAX_ASEG_ID, Structure
from hetseg_bids.training.synthesis.label_noise import CLEAN
from hetseg_bids.training.synthesis.painting import SynthesisConfig, SyntheticSource

_SEED = 11_2027  # other scans than those of intervals.py
_VOXELS = 30_000  # a structure and scan
_CERTAIN = 14.0  # log-odds: a million such voxels have one error
_FARTHEST = 3.0  # log-odds


def main() -> None:
    """Draw, segment, fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("--model", default="label-flip")
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--labelled", action="store_true")
    parser.add_argument("--structures", action="store_true")
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    model = load_model(args.model, torch.device("cpu"))
    if args.structures:
        fit_structures(model, args)
        return
    bare = replace(model, plan=replace(model.plan, pooling=Pooling(views=1.0, ensemble=0.0)))
    known = real_scans(args.maps) if args.labelled else synthetic_scans(args.maps, args.scans)
    scans = [sample(scan, bare, number) for number, scan in enumerate(known)]
    fitted = fit(scans)
    print(", ".join(f"{name} {value:.3f}" for name, value in asdict(fitted).items()))
    for half in (0, 1):
        other = fit(scans[half::2])
        seen, unseen = score(scans[half::2], other), score(scans[1 - half :: 2], other)
        print(f"fitted on one half: {other}, log loss {seen:.4f}, on the other half {unseen:.4f}")
    if args.write:
        rounded = Pooling(*(round(value, 3) for value in astuple(fitted)))
        replace(model.plan, pooling=rounded).save(model.folder)


@dataclass(frozen=True)
class KnownScan:
    """Standard scores, brain mask and labels on one grid."""

    image: Tensor
    mask: Tensor
    labels: Tensor


def synthetic_scans(maps: Path, count: int) -> Iterator[KnownScan]:
    """Scans made from label maps."""
    source = SyntheticSource(sorted(maps.glob("*.nii*")), SynthesisConfig(labels=CLEAN))
    for number in range(count):
        volume = source.draw(np.random.default_rng((_SEED, number)))
        yield KnownScan(volume.image, volume.image > BACKGROUND, volume.labels)


def real_scans(folder: Path) -> Iterator[KnownScan]:
    """Labelled scans as a run prepares them."""
    for t1w in scans_of(folder):
        prepared = prepare_image(t1w)
        labels, grid = read_labels(t1w.with_name(t1w.name.replace("_T1w", "_dseg")))
        known = np.where(labels <= MAX_ASEG_ID, labels, 0).astype(np.uint8)
        moved = nearest(known, grid, prepared.working)
        yield KnownScan(prepared.image, prepared.mask, torch.from_numpy(moved))


def sample(scan: KnownScan, model: Model, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one scan (2, N): log-odds and logit of the answer given; and (N,): whether it is wrong.

    Voxels where all views say no as surely as they can teach nothing and are left out.
    """
    rng = np.random.default_rng((_SEED, number, 1))
    logits = predict(model, scan.image, scan.mask)
    assert logits.second_output is not None  # noqa: S101 (a model without it has no q to pool)
    labels = scan.labels[logits.box]
    forecasts, wrong = [], []
    for structure, a, said in zip(
        model.plan.label_set.structures, logits.label, logits.second_output, strict=True
    ):
        here = members_of(structure, labels)
        places = torch.nonzero((here | (a > -SUREST) | (said > -SUREST)).view(-1))[:, 0].numpy()
        places = rng.permutation(places)[:_VOXELS]
        answer, log_odds = (x.reshape(-1)[places].numpy() for x in (a, said))
        yes = answer > 0
        forecasts.append(np.stack((np.where(yes, log_odds, -log_odds), np.abs(answer))))
        wrong.append(yes != here.reshape(-1)[places].numpy())
    return np.concatenate(forecasts, axis=1), np.concatenate(wrong)


def members_of(structure: Structure, labels: Tensor) -> Tensor:
    """Where labels are those of a structure: bool tensor."""
    return torch.isin(labels, torch.tensor(structure.members, dtype=labels.dtype))


def fit(scans: list[tuple[np.ndarray, np.ndarray]]) -> Pooling:
    """The numbers of the smallest log loss."""
    best = optimize.minimize(
        lambda x: score(scans, Pooling(*map(float, x))), [0.5, 0.5, 0.0], method="Nelder-Mead"
    )
    return Pooling(*map(float, best.x))


def score(scans: list[tuple[np.ndarray, np.ndarray]], pooling: Pooling) -> float:
    """Mean log loss of the forecast that an answer is wrong."""
    losses = []
    for (log_odds, logit), wrong in scans:
        right = pooling.views * log_odds + pooling.ensemble * logit + pooling.answer
        losses.append(-special.log_expit(np.where(wrong, -right, right)).mean())
    return float(np.mean(losses))


@dataclass(frozen=True)
class Answers:
    """What is said of one structure of a scan, in the N voxels where it isn't certain.

    Attributes
    ----------
    label, log_odds : (N,) float32 tensor
        The ensemble's label logits and log-odds.
    answer : float
        Added to the log-odds in favour of the answer, as `Pooling.answer`.
    labelled, there : (N,) bool array
        Whether the voxel has this label (another may be more probable), and the truth.
    """

    label: Tensor
    log_odds: Tensor
    answer: float
    labelled: np.ndarray
    there: np.ndarray

    def q(self, more: float) -> np.ndarray:
        """Flip probabilities with so much added to the log-odds."""
        system = PooledEnsemble(self.answer + more)
        return np.asarray(system.flip_probability(self.label, self.log_odds).numpy())

    def surplus(self, more: float) -> float:
        """Errors that are expected beyond those that there are, as a share of the true size."""
        wrong = (self.label > 0).numpy() != self.there
        return float((self.q(more).sum(dtype=float) - wrong.sum()) / self.there.sum())

    def dice(self, more: float) -> tuple[float, float]:
        """Expected and true."""
        sums = FlipSums.of(self.labelled, self.q(more)[None])
        return sums.summaries()[0].expected_dice, dice(self.labelled, self.there)


def fit_structures(model: Model, args: argparse.Namespace) -> None:
    """What is added for each structure, and what that is worth."""
    assert model.plan.pooling is not None  # noqa: S101
    bare = replace(model.plan.pooling, structures={})
    model = replace(model, plan=replace(model.plan, pooling=bare))
    scans = [answers_of(scan, model) for scan in real_scans(args.maps)]
    fitted = more_of(scans)
    names = model.plan.label_set.structures
    more = {s.name: round(args.share * fitted.get(s.bare_name, 0.0), 2) + 0.0 for s in names}
    print(more)
    report("before", [(scan, {}) for scan in scans], args.share)
    report("after", [(scan, fitted) for scan in scans], args.share)
    others = [more_of([s for s in scans if s is not scan]) for scan in scans]
    report("each scan left out of its fit", list(zip(scans, others, strict=True)), args.share)
    if args.write:
        replace(model.plan, pooling=replace(bare, structures=more)).save(model.folder)


def answers_of(scan: KnownScan, model: Model) -> dict[Structure, Answers]:
    """Those of the structures that the truth has."""
    logits = predict(model, scan.image, scan.mask)
    assert logits.second_output is not None  # noqa: S101
    assert model.plan.pooling is not None  # noqa: S101
    winner, labels = most_probable(logits.label), scan.labels[logits.box]
    answer, found = model.plan.pooling.answer, {}
    for number, structure in enumerate(model.plan.label_set.structures):
        there, labelled = members_of(structure, labels), winner == number + 1
        a, said = logits.label[number], logits.second_output[number]
        right = torch.where(a > 0, said, -said) + answer
        kept = there | labelled | (right < _CERTAIN)
        if there.any():
            truth = (labelled[kept].numpy(), there[kept].numpy())
            found[structure] = Answers(a[kept], said[kept], answer, *truth)
    return found


def more_of(scans: list[dict[Structure, Answers]]) -> dict[str, float]:
    """By bare name: what has to be added so that as many errors are expected as there are."""
    more = {}
    for name in dict.fromkeys(s.bare_name for scan in scans for s in scan):
        sides = [a for scan in scans for s, a in scan.items() if s.bare_name == name]

        def surplus(x: float, sides: list[Answers] = sides) -> float:
            return sum(side.surplus(x) for side in sides)

        ends = (-_FARTHEST, _FARTHEST)
        least, most = surplus(ends[1]), surplus(ends[0])
        inside = least < 0 < most
        more[name] = optimize.brentq(surplus, *ends) if inside else ends[int(least > 0)]
    return more


def report(
    what: str, scans: list[tuple[dict[Structure, Answers], dict[str, float]]], share: float
) -> None:
    """Print how the expected Dice of structures agrees with the true one."""
    pairs = [
        answers.dice(share * more.get(structure.bare_name, 0.0))
        for scan, more in scans
        for structure, answers in scan.items()
    ]
    expected, true = np.array(pairs).T
    r, error = np.corrcoef(expected, true)[0, 1], np.abs(expected - true).mean()
    print(f"{what}: r {r:.3f}, mean |expected - true| {error:.4f}, n = {len(scans)} scans")


if __name__ == "__main__":
    main()
