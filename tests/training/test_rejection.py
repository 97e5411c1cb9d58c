"""Sporadic error rejection on a phantom that a small network has learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.flip import flip_probability
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.segmentation import views
from hetseg_bids.structures.aseg import ASEG, N_TASKS
from hetseg_bids.training.losses import soft_dice_loss
from hetseg_bids.training.recipes import TrainingConfig, paper_recipe, small_recipe, with_rejection
from hetseg_bids.training.rejection import RejectionConfig, find_sporadic_errors
from hetseg_bids.training.samples import SamplingConfig
from hetseg_bids.training.schedules import Schedule
from hetseg_bids.training.tasks import mirror_tasks, pack_tasks, unpack_tasks
from hetseg_bids.training.trainer import RunOptions, Trainer
from hetseg_bids.training.volumes import LabelledVolume
from support.commands import run_here

SMALL = NetworkConfig(2 * N_TASKS, (4, 4, 8), (8, 8, 12), (1,), 8)
PUTAMEN = ASEG.task_names.index("left_putamen")


class TwoVolumes:
    """A fixed source made by code."""

    def __init__(self) -> None:
        self.items = [blocks(0), blocks(1)]

    def fingerprint(self) -> dict[str, object]:
        return {"kind": "test"}

    def volumes(self) -> list[LabelledVolume]:
        return self.items

    def reject(self, masks: list[torch.Tensor]) -> None:
        self.items = [replace(v, rejected=m) for v, m in zip(self.items, masks, strict=True)]

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        return self.items[rng.integers(2)]


def blocks(seed: int) -> LabelledVolume:
    image = torch.full((40, 44, 36), BACKGROUND)
    labels = torch.zeros(image.shape, dtype=torch.uint8)
    image[4:36, 4:40, 4:32] = 0
    labels[4:36, 4:40, 4:32] = 2
    image[10:20, 10:20, 10:20] = 2
    labels[10:20, 10:20, 10:20] = 12
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return LabelledVolume(image + 0.05 * noise * (image > BACKGROUND), labels)


RULE = RejectionConfig(first=0, every=1)


def constant_network(label: float, flip: float) -> HetsegNet:
    """Says the same everywhere: logits of the head's bias alone."""
    network = HetsegNet(SMALL).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias[:N_TASKS] = label
        network.head.bias[N_TASKS:] = flip
    return network


def test_confident_contradictions_are_rejected_and_others_kept():
    volume = blocks(0)
    truth = torch.from_numpy(ASEG.membership())[volume.labels.int()].movedim(-1, 0)
    inside = volume.image > BACKGROUND
    sure = find_sporadic_errors(constant_network(-5, -12), volume, (40, 36), RULE)
    flags = unpack_tasks(sure, N_TASKS)[..., :].movedim(1, 0)
    assert torch.equal(flags & inside, truth & inside)  # it denies every label there is
    unsure = find_sporadic_errors(constant_network(-5, 0), volume, (40, 36), RULE)
    assert not unsure.any()


def brute_force(
    network: HetsegNet, volume: LabelledVolume, config: RejectionConfig
) -> torch.Tensor:
    """The rule of the paper voxel by voxel, one explicit stack a slice."""
    table = torch.from_numpy(ASEG.membership())
    padded = torch.nn.functional.pad(volume.image, (3,) * 6, value=BACKGROUND)
    denied = torch.ones(N_TASKS, *volume.image.shape, dtype=torch.bool)
    for across in range(3):
        for place in range(volume.image.shape[across]):
            stack = padded.movedim(across, 0)[place : place + 7, 3:-3, 3:-3]
            if across == 0:
                output = network(stack[None, None])[0]
            else:  # axial and coronal stacks have left-right in their columns or rows
                turned = across == 2
                stack = stack.transpose(1, 2) if turned else stack
                output = network(stack[None, None])[0]
                output = output.transpose(1, 2) if turned else output
            labels = volume.labels.movedim(across, 0)[place]
            truth = table[labels.int()].movedim(-1, 0)
            p, q = torch.sigmoid(output[:N_TASKS]), 0.5 * torch.sigmoid(output[N_TASKS:])
            if config.corrected:
                q = flip_probability(output[N_TASKS:])
            contradicts = ((p > 0.5) != truth) & (q < config.confidence)
            denied.movedim(1 + across, 1)[:, place] &= contradicts
    return denied


@pytest.mark.parametrize(("corrected", "confidence"), [(False, 0.25), (True, 0.05)])
def test_rejection_is_what_the_rule_gives_voxel_by_voxel(monkeypatch, corrected, confidence):
    # float32 everywhere, so that both ways cross the thresholds at the same voxels
    monkeypatch.setattr(views, "inference_format", lambda _: torch.float32)
    torch.manual_seed(4)
    network = HetsegNet(SMALL).eval()
    image = torch.randn(16, 20, 12, generator=torch.Generator().manual_seed(1))
    labels = torch.from_numpy(
        np.random.default_rng(2).choice(np.uint8([0, 2, 3, 12, 41, 51]), image.shape)
    )
    volume = LabelledVolume(image, labels)
    rule = RejectionConfig(first=0, every=1, confidence=confidence, corrected=corrected)
    with torch.no_grad():
        expected = brute_force(network, volume, rule)
    assert 0.01 < float(expected.float().mean()) < 0.5
    found = find_sporadic_errors(network, volume, (4, 4), rule)
    assert torch.equal(found, pack_tasks(expected))


def test_a_look_asks_no_second_opinion_where_the_first_view_agrees(monkeypatch):
    network = constant_network(-5, 0)  # never sure
    passes = []
    run = network.forward_pixels
    monkeypatch.setattr(network, "forward_pixels", lambda *x: passes.append(1) or run(*x))
    assert not find_sporadic_errors(network, blocks(0), (40, 36), RULE).any()
    assert len(passes) == -(-32 // 8)  # the brain box has 28 + 4 axial slices


def test_flags_pack_mirror_and_unpack():
    flags = torch.rand(N_TASKS, 5, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    packed = pack_tasks(flags)
    assert torch.equal(unpack_tasks(packed[None], N_TASKS)[0], flags)
    assert torch.equal(unpack_tasks(packed[None, None], N_TASKS)[0], flags[:, None])
    labels = torch.tensor([[12, 51, 16, 2]], dtype=torch.uint8)
    table = torch.from_numpy(ASEG.membership())
    one = pack_tasks(table[labels.int()].movedim(-1, 0))
    mirrored = torch.from_numpy(ASEG.mirror_labels())[labels.long()]
    other = pack_tasks(table[mirrored.int()].movedim(-1, 0))
    assert torch.equal(mirror_tasks(one, ASEG), other)


def test_dice_ignores_what_is_left_out():
    labels = torch.zeros(1, N_TASKS, 4, 4)
    labels[:, PUTAMEN, :2] = 1
    logits = torch.where(labels > 0, 50.0, -50.0)
    logits[:, PUTAMEN, 3] = 50
    assert float(soft_dice_loss(logits, labels)) > 0.1
    kept = torch.ones_like(labels)
    kept[:, PUTAMEN, 3] = 0
    assert float(soft_dice_loss(logits, labels, kept)) == pytest.approx(0, abs=1e-6)


def searches(rejection: RejectionConfig, steps: int, every: int = 1) -> list[int]:
    found: list[int] = []
    for step in range(0, steps, every):
        if rejection.due(step, steps, found[-1] if found else None):
            found.append(step)
    return found


def test_the_paper_looks_at_restart_120_and_every_20_after():
    paper = with_rejection(paper_recipe("label-flip"))
    looks = searches(paper.rejection, paper.steps, every=500)
    assert looks[:3] == [240_000, 280_000, 320_000]
    assert (paper.rejection.confidence, paper.rejection.corrected) == (0.001, False)


@given(steps=st.integers(10, 3000))
def test_a_run_that_anneals_once_looks_twice(steps):
    rejection = with_rejection(small_recipe("label-flip", samples=2 * steps)).rejection
    first, second = searches(rejection, steps)
    assert 0 <= first - 0.3 * steps < 1
    assert 0 <= second - 0.65 * steps < 1
    assert (rejection.confidence, rejection.corrected) == (0.001, True)


def test_a_run_whose_end_moves_looks_neither_never_nor_all_the_time():
    rejection = with_rejection(small_recipe("label-flip")).rejection
    looks: list[int] = []
    for step in range(200):  # as paced by the clock: the end comes nearer and moves to and fro
        steps = 200 + step % 7 if step > 20 else 3000
        if rejection.due(step, steps, looks[-1] if looks else None):
            looks.append(step)
    assert len(looks) == 2
    # a longer plan begins to look anew
    assert searches(rejection, 1000)[0] == 300
    assert rejection.due(300, 1000, looks[-1])


def config() -> TrainingConfig:
    return TrainingConfig(
        network=SMALL,
        sampling=SamplingConfig(patch=(40, 36), volumes_per_block=2, stacks_per_volume=4),
        samples=40,
        schedule=Schedule(warmup=2),
        rejection=RejectionConfig(first=3, every=3, confidence=0.4, corrected=False),
    )


def losses_of(out: Path, stop_after: int | None = None) -> list[float]:
    options = RunOptions(out, torch.device("cpu"), workers=0, stop_after=stop_after)
    trainer = Trainer(config(), TwoVolumes(), options)
    trainer.resume()
    return [report.loss for report in trainer.run()]


def test_masks_of_another_run_are_not_taken_up(tmp_path):
    whole = losses_of(tmp_path / "whole")
    losses_of(tmp_path / "reused")
    for path in tmp_path.glob("reused/checkpoint*"):  # as the message about other settings advises
        path.unlink()
    assert losses_of(tmp_path / "reused", stop_after=2) == whole[:2]
    assert not list((tmp_path / "reused" / "rejected").iterdir())
    assert losses_of(tmp_path / "reused") == whole[2:]


def test_the_length_of_a_run_with_rejection_may_change(tmp_path):
    short = replace(
        config(), rejection=replace(config().rejection, first=0.3, every=0.4, of_run=True)
    )
    options = RunOptions(tmp_path, torch.device("cpu"), workers=0, stop_after=2)
    assert len(list(Trainer(short, TwoVolumes(), options).run())) == 2
    trainer = Trainer(replace(short, samples=24), TwoVolumes(), replace(options, stop_after=None))
    assert trainer.resume()
    assert len(list(trainer.run())) == 4
    steps = {path.name[:13] for path in (tmp_path / "rejected").iterdir()}
    assert steps == {"step-00000002", "step-00000005"}


@pytest.mark.parametrize("stop", [3, 5])
def test_rejection_resumes_exactly_and_leaves_its_masks(tmp_path, stop):
    whole = losses_of(tmp_path / "whole")
    parts = losses_of(tmp_path / "parts", stop) + losses_of(tmp_path / "parts")
    assert parts == whole
    names = sorted(p.name for p in (tmp_path / "whole" / "rejected").iterdir())
    assert len(names) == 6  # three looks, two scans
    assert names[0] == "step-00000003_scan-000_rejected.nii.gz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label-maps", "."], "--scans"),
        (["--scans", ".", "--system", "plain"], "label-flip"),
    ],
)
def test_rejection_is_refused_where_it_makes_no_sense(tmp_path, arguments, message):
    done = run_here("hetseg-train", tmp_path / "run", *arguments, "--reject-sporadic")
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
