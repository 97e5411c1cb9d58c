"""Real scans that a teacher labels."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.network.devices import CPU
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES, STRUCTURES
from hetseg_bids.training.unlabelled import UnlabelledSource, labels_of
from support.commands import run_cli
from support.datasets import write_small_pair
from support.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Model:
    return load_model(str(write_tiny_model(tmp_path_factory.mktemp("teacher"))), CPU)


def test_the_label_of_a_voxel_is_what_its_teacher_holds_for_most_probable():
    maps = torch.zeros(1, 1, 3, 2 * N_STRUCTURES, dtype=torch.uint8)
    maps[0, 0, 0, :2] = torch.tensor([200, 210])
    maps[0, 0, 1, 5] = 127  # less than a half
    maps[0, 0, 2, N_STRUCTURES] = 255  # flip probabilities aren't probabilities
    assert labels_of(maps, ASEG).tolist() == [[[STRUCTURES[1].label, 0, 0]]]


def test_a_scan_is_labelled_once_and_comes_back_the_same(teacher, tmp_path, caplog):
    caplog.set_level("INFO")
    scans = write_small_pair(tmp_path / "scans")
    drawn = []
    for _ in range(2):
        source = UnlabelledSource(scans, teacher, tmp_path / "taught")
        drawn.append(source.draw(np.random.default_rng(0)))
    assert len([r for r in caplog.records if "teacher labels" in r.getMessage()]) == 1
    assert torch.equal(drawn[0].taught, drawn[1].taught)
    assert torch.equal(drawn[0].image, drawn[1].image)
    assert drawn[0].taught.any()
    assert torch.equal(drawn[0].labels, labels_of(drawn[0].taught, ASEG))


def test_another_scan_of_the_same_name_is_labelled_anew(teacher, tmp_path):
    scans = write_small_pair(tmp_path / "scans")
    first = UnlabelledSource(scans, teacher, tmp_path / "taught")
    first.draw(np.random.default_rng(0))
    path = first.scans[0]
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), path)
    second = UnlabelledSource(scans, teacher, tmp_path / "taught")
    second.draw(np.random.default_rng(0))
    assert len(list((tmp_path / "taught").iterdir())) == 2
    assert first.fingerprint()["files"] != second.fingerprint()["files"]


@pytest.mark.slow
def test_labelled_and_unlabelled_scans_are_mixed_and_the_plan_says_so(teacher, tmp_path):
    scans = write_small_pair(tmp_path / "scans")
    arguments = [tmp_path / "run", "--scans", scans, "--unlabelled", scans, "--shares", 1, 3]
    arguments += ["--teacher", teacher.folder, "--recipe", "small", "--workers", 0, "--samples", 4]
    done = run_cli("hetseg-train", *arguments)
    assert done.code == 0, done.err
    plan = load_model(str(tmp_path / "run/model"), CPU).plan
    source = plan.provenance["source"]
    assert source["shares"] == [0.25, 0.75]
    assert [part["kind"] for part in source["sources"]] == ["scans", "unlabelled scans"]
    assert source["sources"][1]["teacher"] == teacher.plan.weights_sha256
