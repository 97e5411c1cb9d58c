"""Real scans that a teacher labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.network.models import Model, load_model
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES, STRUCTURES
from hetseg_bids.training.unlabelled import UnlabelledSource, labels_of
from support.commands import run_cli
from support.datasets import write_pair
from support.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Model:
    return load_model(str(write_tiny_model(tmp_path_factory.mktemp("teacher"), sure=True)), CPU)


def test_the_label_of_a_voxel_is_what_its_teacher_holds_for_most_probable():
    maps = torch.zeros(1, 1, 3, 2 * N_STRUCTURES, dtype=torch.uint8)
    maps[0, 0, 0, :2] = torch.tensor([200, 210])
    maps[0, 0, 1, 5] = 127  # less than a half
    maps[0, 0, 2, N_STRUCTURES] = 255  # flip probabilities aren't probabilities
    assert labels_of(maps, ASEG).tolist() == [[[STRUCTURES[1].label, 0, 0]]]


def test_a_scan_is_labelled_once_and_comes_back_the_same(teacher, tmp_path, caplog):
    caplog.set_level("INFO")
    scans = write_pair(tmp_path / "scans")
    drawn = []
    for _ in range(2):
        source = UnlabelledSource(scans, teacher, tmp_path / "taught")
        drawn.append(source.draw(np.random.default_rng(0)))
    assert len([r for r in caplog.records if "teacher labels" in r.getMessage()]) == 1
    assert torch.equal(drawn[0].taught, drawn[1].taught)
    assert torch.equal(drawn[0].image, drawn[1].image)
    assert drawn[0].taught.any()
    assert torch.equal(drawn[0].labels, labels_of(drawn[0].taught, ASEG))
    # another scan of the same name is labelled anew
    path = source.scans[0]
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), path)
    other = UnlabelledSource(scans, teacher, tmp_path / "taught")
    assert not torch.equal(other.draw(np.random.default_rng(0)).taught, drawn[0].taught)
    assert other.fingerprint()["files"] != source.fingerprint()["files"]


@pytest.mark.slow
def test_a_compact_network_learns_from_labels_and_a_teacher_and_the_plan_says_so(teacher, tmp_path):
    scans = write_pair(tmp_path / "scans")
    arguments = [tmp_path / "run", "--scans", scans, "--unlabelled", scans, "--shares", 1, 3]
    arguments += ["--teacher", teacher.folder, "--teaching-share", 0.7, "--init", teacher.folder]
    arguments += ["--recipe", "compact", "--workers", 0, "--samples", 8]
    done = run_cli("hetseg-train", *arguments)
    assert done.code == 0, done.err
    plan = load_model(str(tmp_path / "run/model"), CPU).plan
    assert (plan.network.added_skips, plan.mirror) == (True, False)
    assert plan.provenance["training"]["teaching_share"] == 0.7
    source = plan.provenance["source"]
    assert source["shares"] == [0.25, 0.75]
    assert [part["kind"] for part in source["sources"]] == ["scans", "unlabelled scans"]
    assert source["sources"][1]["teacher"] == teacher.plan.weights_sha256
