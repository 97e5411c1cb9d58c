"""Parts are learned from labels that have them, and only from those."""

from dataclasses import replace

import pytest
import torch

from hetseg_bids.network.models import load_model
from hetseg_bids.network.systems import LabelFlip
from hetseg_bids.structures.aseg import ASEG, WITH_PARTS
from hetseg_bids.training.trainer import RunOptions, Trainer
from support.commands import run_cli, run_here
from support.datasets import write_pair
from support.training import OneScan, small_config, tiny_scan

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


def test_a_model_of_other_structures_learns_no_parts(tmp_path):
    table = tmp_path / "dseg.tsv"
    table.write_text("index\tname\n1\tlesion\n")
    command = ("hetseg-train", tmp_path / "out", "--label-maps", tmp_path, "--labels", table)
    done = run_here(*command, "--parts")
    assert done.code == 2
    assert "--parts" in done.err
