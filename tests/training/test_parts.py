"""Parts are learned from labels that have them, and only from those."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.network.models import load_model
from hetseg_bids.network.systems import LabelFlip, Plain
from hetseg_bids.structures.aseg import ASEG, WITH_PARTS
from hetseg_bids.training.objective import Objective
from hetseg_bids.training.samples import draw_cut
from hetseg_bids.training.trainer import RunOptions, Trainer
from hetseg_bids.training.validation import ValidationScan, even_stacks, structure_dice
from support.commands import run_cli, run_here
from support.datasets import write_pair
from support.training import SAMPLING, OneScan, small_config, tiny_scan

TASKS = WITH_PARTS.task_names


def changes_of(labels: dict[int, int], tmp_path) -> dict[str, float]:
    """Size of the gradient of each task's row of the head, after a step on changed labels."""
    scan = tiny_scan()
    table = torch.arange(256, dtype=torch.uint8)
    table[list(labels)] = torch.tensor(list(labels.values()), dtype=torch.uint8)
    volume = replace(scan, labels=table[scan.labels.to(torch.int64)])
    config = small_config(samples=4)
    network = replace(config.network, n_outputs=LabelFlip().n_outputs(len(TASKS)))
    config = replace(config, network=network, batch=4)
    options = RunOptions(tmp_path, torch.device("cpu"), workers=0)
    trainer = Trainer(config, OneScan(volume), options, label_set=WITH_PARTS)
    list(trainer.run())
    rows = trainer.network.head.weight.grad.flatten(1).abs().sum(dim=1).view(2, len(TASKS))
    return dict(zip(TASKS, rows.sum(dim=0).tolist(), strict=True))


def test_a_part_that_the_labels_lack_is_not_taught_to_be_absent(tmp_path):
    # the blocks of the cerebral white matter become the cerebellum's, and some ventricle CSF
    found = changes_of({2: 7, 41: 46, 14: 24}, tmp_path)
    for name in ("left_cerebellum_white_matter", "right_cerebellum_white_matter", "csf"):
        assert found[name] > 0, name
    for name in ("left_choroid_plexus", "right_vessel", "optic_chiasm", "wm_hypointensities"):
        assert found[name] == 0, name
    # what isn't there of the structures themselves is known not to be there
    assert found["left_hippocampus"] > 0


def test_a_part_on_one_side_says_that_the_other_side_has_none(tmp_path):
    found = changes_of({2: 7}, tmp_path)
    assert found["right_cerebellum_white_matter"] > 0


def test_a_teacher_leaves_parts_to_the_labels():
    count = len(ASEG.structures)
    membership = torch.from_numpy(WITH_PARTS.membership())
    objective = Objective(Plain().loss, LabelFlip().loss, membership, len(WITH_PARTS.parts))
    labels = torch.full((2, 8, 8), 7, dtype=torch.uint8)  # left cerebellar white matter
    output = torch.zeros(2, 2 * len(TASKS), 8, 8, requires_grad=True)
    kept = torch.ones(2, len(TASKS), 1, 1, dtype=torch.bool)
    kept[1, TASKS.index("left_cerebellum_white_matter")] = False  # not told by the second
    lesson = (torch.zeros(2, 8, 8, 2 * count, dtype=torch.uint8), torch.ones(2))
    losses = objective((output,), labels, kept, lesson, warm=False)
    losses[1].backward()
    dice = output.grad[:, : len(TASKS)].abs().sum(dim=(2, 3))
    part = TASKS.index("left_cerebellum_white_matter")
    assert dice[0, part] > 0
    assert dice[1, part] == 0
    assert dice[:, count : count + 3].sum() == 0, "auxiliary tasks are the labels' alone"
    output.grad = None
    objective((output,), labels, kept, lesson, warm=False)[0].backward()
    focal = output.grad[:, : len(TASKS)].abs().sum(dim=(2, 3))
    assert focal[0, part] > 0
    assert focal[1, part] == 0
    assert focal[:, count : count + 3].sum() == 0, "labels are left out but for parts"


def test_validation_scores_the_parts_that_the_labels_have(tmp_path):
    scan = tiny_scan()
    scan.labels[scan.labels == 41] = 46  # the right cerebellum's white matter
    config = small_config(samples=4)
    network = replace(config.network, n_outputs=LabelFlip().n_outputs(len(TASKS)))
    options = RunOptions(tmp_path, torch.device("cpu"), workers=0)
    trainer = Trainer(
        replace(config, network=network), OneScan(scan), options, label_set=WITH_PARTS
    )
    weights = dict(trainer.network.state_dict())
    weights["head.weight"] = torch.zeros_like(weights["head.weight"])
    # the network sees white matter of the right cerebellum everywhere, and nothing else
    weights["head.bias"] = torch.full_like(weights["head.bias"], -1.0)
    weights["head.bias"][TASKS.index("right_cerebellum_white_matter")] = 1.0
    stacks = ValidationScan("sub-01", *even_stacks(scan, SAMPLING.patch))
    dice = structure_dice(trainer.network, weights, stacks, WITH_PARTS, amp=False)
    assert list(dice) == [*WITH_PARTS.names, "right_cerebellum_white_matter"]
    voxels = stacks.labels.numel()
    there = int((stacks.labels == 46).sum())
    assert dice["right_cerebellum_white_matter"] == pytest.approx(2 * there / (voxels + there))


def test_slices_are_also_chosen_for_parts_that_the_labels_have():
    scan = tiny_scan()
    scan.labels[40, 20, 20] = 85  # a chiasm of one voxel
    rng = np.random.default_rng(0)
    centres = [draw_cut(rng, scan, SAMPLING, WITH_PARTS).centre for _ in range(600)]
    met = np.mean([np.any(c == (40, 20, 20)) for c in np.array(centres)])
    centres = [draw_cut(rng, scan, SAMPLING, ASEG).centre for _ in range(600)]
    by_chance = np.mean([np.any(c == (40, 20, 20)) for c in np.array(centres)])
    assert met > by_chance + 0.01


@pytest.mark.slow
def test_a_trained_model_learns_parts_in_addition(trained, tmp_path):
    scans = write_pair(tmp_path / "scans")
    command = ("hetseg-train", tmp_path / "out", "--scans", scans, "--workers", 0)
    command += ("--recipe", "polish", "--samples", 2, "--batch", 2, "--init", trained, "--parts")
    done = run_cli(*command)
    assert done.code == 0, done.err
    before, after = (
        load_model(str(m), torch.device("cpu")) for m in (trained, tmp_path / "out" / "model")
    )
    assert after.plan.label_set == WITH_PARTS
    count = len(ASEG.tasks)
    one, other = (m.network.head.bias for m in (before, after))
    torch.testing.assert_close(one[:count], other[:count], rtol=0, atol=1e-2)
    # and goes on to learn them without being told again
    command = ("hetseg-train", tmp_path / "more", "--scans", scans, "--workers", 0)
    command += ("--recipe", "polish", "--samples", 2, "--batch", 2)
    done = run_cli(*command, "--init", tmp_path / "out" / "model")
    assert done.code == 0, done.err
    assert load_model(str(tmp_path / "more/model"), torch.device("cpu")).plan.label_set.parts
    # but for rejection, which has no room for them
    command = ("hetseg-train", tmp_path / "less", "--scans", scans, "--workers", 0)
    command += ("--recipe", "polish", "--samples", 2, "--batch", 2, "--reject-sporadic")
    done = run_cli(*command, "--init", tmp_path / "out" / "model")
    assert done.code == 0, done.err
    less = load_model(str(tmp_path / "less/model"), torch.device("cpu"))
    assert less.plan.label_set == ASEG
    torch.testing.assert_close(less.network.head.bias[:count], other[:count], rtol=0, atol=1e-2)


def test_a_model_of_other_structures_learns_no_parts(tmp_path):
    table = tmp_path / "dseg.tsv"
    table.write_text("index\tname\n1\tlesion\n")
    command = ("hetseg-train", tmp_path / "out", "--label-maps", tmp_path, "--labels", table)
    done = run_here(*command, "--parts")
    assert done.code == 2
    assert "--parts" in done.err
