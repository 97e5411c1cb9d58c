"""Structures of one's own: the table, and a model trained and used with them."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from hetseg_bids.errors import DatasetError, ModelError
from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.models import load_model, model_folder, read_plan
from hetseg_bids.network.systems import LabelFlip
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import read_label_table, write_label_table
from hetseg_bids.training.augmentation import AugmentationConfig
from hetseg_bids.training.initialisation import start_from_
from hetseg_bids.training.samples import SamplingConfig, draw_cut, resample_stacks
from hetseg_bids.training.volumes import LabelledVolume
from support.commands import QUICK, run_cli, run_here
from support.datasets import t1w_path, write_dataset, write_pair

TABLE = """index\tname\tcolor\tmembers
1\tleft_striatum\t#ff0000\t11,12,26
2\tright_striatum\t#0000ff\t50,51,58
3\tleft_thalamus\tn/a\t10
4\tright_thalamus\tn/a\t49
5\tforebrain\t#777777\t2,41,3,42
16\tbrainstem\t#00ff00\t
"""


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "mine.tsv"
    path.write_text(TABLE)
    return path


def test_a_table_says_what_counts_as_what(table):
    found = read_label_table(table)
    assert found.names == (
        *("left_striatum", "right_striatum", "left_thalamus", "right_thalamus"),
        *("forebrain", "brainstem"),
    )
    assert len(found.tasks) == 9
    ids = np.array([0, 11, 26, 51, 10, 3, 41, 16, 17])
    np.testing.assert_array_equal(found.collapse(ids), [0, 1, 1, 2, 3, 5, 5, 16, 0])
    of = {name: found.membership()[:, i] for i, name in enumerate(found.task_names)}
    assert np.flatnonzero(of["left_striatum"]).tolist() == [11, 12, 26]
    assert np.flatnonzero(of["left_hemisphere"]).tolist() == [10, 11, 12, 26]
    assert np.flatnonzero(of["brain_parenchyma"]).tolist() == sorted(
        [2, 3, 10, 11, 12, 16, 26, 41, 42, 49, 50, 51, 58]
    )


def test_its_sides_change_places_in_a_mirror(table):
    found = read_label_table(table)
    mirrored = found.mirror_labels()
    assert mirrored[[11, 26, 51, 10, 3, 16]].tolist() == [50, 58, 12, 49, 3, 16]
    members = found.membership()
    np.testing.assert_array_equal(members[mirrored], members[:, found.mirror_permutation()])


def test_names_and_colours_survive_writing(table, tmp_path):
    found = read_label_table(table)
    write_label_table(tmp_path / "dseg.tsv", found)
    back = read_label_table(tmp_path / "dseg.tsv")
    assert [(s.name, s.label, s.color) for s in back.structures] == [
        (s.name, s.label, s.color) for s in found.structures
    ]
    assert len({s.color for s in found.structures}) == 6, "structures can be told apart"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nleft_x\n", "index"),
        ("index\tname\n", "no structure"),
        ("index\tname\n1\tleft_x\n", "right_x"),
        ("index\tname\n1\tx\n1\ty\n", "index 1 occurs twice"),
        ("index\tname\n1\tx\n2\tx\n", "name x occurs twice"),
        ("index\tname\n1\tbrain_parenchyma\n", "brain_parenchyma occurs twice"),
        ("index\tname\n0\tx\n", "outside 1-255"),
        ("index\tname\n300\tx\n", "outside 1-255"),
        ("index\tname\none\tx\n", "invalid literal"),
        ("index\tname\n1\tX y\n", "small letters"),
        ("index\tname\tcolor\n1\tx\tred\n", "#rrggbb"),
        ("index\tname\tmembers\n1\tx\t4,5\n2\ty\t5\n", "member 5 occurs twice"),
        ("index\tname\tmembers\n1\tleft_x\t4,5\n2\tright_x\t6\n", "as many members"),
    ],
)
def test_a_table_that_cannot_be_learned_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.tsv"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"bad\.tsv") as refusal:
        read_label_table(path)
    assert message in str(refusal.value)


def test_what_a_model_knows_by_name_is_taken_over(table):
    found, model = read_label_table(table), load_model("label-flip", torch.device("cpu"))
    outputs = LabelFlip().n_outputs(len(found.tasks))
    network = HetsegNet(replace(model.plan.network, n_outputs=outputs))
    known = model.plan.label_set.task_names
    before = network.state_dict()["head.weight"].clone()
    start_from_(network, LabelFlip(), model, found)
    after, old = network.state_dict()["head.weight"], model.network.state_dict()["head.weight"]
    for name in ("left_thalamus", "brainstem", "left_hemisphere"):
        here, there = found.task_names.index(name), known.index(name)
        assert torch.equal(after[here], old[there])
        assert torch.equal(after[9 + here], old[len(known) + there]), (
            "and what it knows of its errors"
        )
    striatum = found.task_names.index("left_striatum")
    assert torch.equal(after[striatum], before[striatum]), "nobody taught it that"


def test_half_the_stacks_go_through_a_structure_of_the_table(table):
    """By its members: the labels of the scans don't hold its index."""
    labels = torch.zeros((40, 40, 40), dtype=torch.uint8)
    labels[:, :, :] = 17  # of no structure
    labels[20, 20, 20], labels[22, 22, 22] = 26, 58
    volume = LabelledVolume(torch.zeros(labels.shape), labels)
    striatum = LabelSet(read_label_table(table).structures[:2])
    config = SamplingConfig(
        (8, 8), structure_rate=0.5, augmentation=AugmentationConfig(0.0, 0.0, 0.0, 0.0, 0.0)
    )
    rng = np.random.default_rng(0)
    cuts = [draw_cut(rng, volume, config, striatum) for _ in range(60)]
    stacks = resample_stacks(volume, cuts, config.patch, striatum)
    found = (stacks.labels == 26) | (stacks.labels == 58)
    hits = int(found.flatten(1).any(dim=1).sum())
    assert 20 < hits < 45


@pytest.mark.parametrize(
    "change",
    [
        {"label": 999},
        {"color": [1]},
        {"members": 7},
        {"name": "left_alone"},
        {"name": None},
    ],
)
def test_a_plan_whose_structures_make_no_sense_is_refused(tmp_path, change):
    plan = json.loads((model_folder("label-flip") / "plan.json").read_text())
    row = {"name": "x", "label": 1, "members": [1], "color": [1, 2, 3]} | change
    names = [row["name"], "left_hemisphere", "right_hemisphere", "brain_parenchyma"]
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"structures": [row], "tasks": names}))
    with pytest.raises(ModelError, match="not a usable model plan"):
        read_plan(tmp_path)


@pytest.mark.slow
def test_a_model_of_ones_own_structures_from_scans_to_scores(table, phantom, tmp_path):
    write_pair(tmp_path / "mine")
    run = (tmp_path / "run", "--scans", tmp_path / "mine", "--labels", table, "--workers", 0)
    more = ("--init", "label-flip", "--samples", 8, "--name", "ours")
    done = run_cli("hetseg-train", *run, *more, "--validate", tmp_path / "mine")
    assert done.code == 0, done.err
    model = tmp_path / "run" / "model"
    assert read_plan(model).label_set == read_label_table(table)

    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    nib.save(phantom, t1w_path(bids, "01"))
    done = run_cli("hetseg", bids, out, "participant", "--model", model, *QUICK)
    assert done.code == 0, done.err
    stem = out / "sub-01" / "anat" / "sub-01_seg-hetseg"
    ours = read_label_table(table).names
    assert tuple(pd.read_csv(f"{stem}_dseg.tsv", sep="\t")["name"]) == ours
    assert tuple(pd.read_csv(f"{stem}_morph.tsv", sep="\t")["name"]) == (*ours, "intracranial")
    dseg = np.asarray(nib.load(f"{stem}_dseg.nii.gz").dataobj)
    assert set(np.unique(dseg)) <= {0, 1, 2, 3, 4, 5, 16}
    flip = nib.load(f"{stem}_desc-labelflip_probseg.nii.gz")
    assert flip.shape == (*phantom.shape, 6)
    sidecar = Path(f"{stem}_desc-labelflip_probseg.json")
    assert tuple(json.loads(sidecar.read_text())["LabelMap"]) == ours
    assert "6 structures" in (out / "sub-01.html").read_text()
    assert "Left striatum" in (out / "sub-01.html").read_text()

    assert run_cli("hetseg", bids, out, "group").code == 0
    assert "Left striatum" in (out / "group.html").read_text()
    scores = tmp_path / "scores.tsv"
    arguments = (tmp_path / "mine", out, "--labels", table, "--out", scores)
    done = run_cli("hetseg-evaluate", *arguments, "--report", tmp_path / "report")
    assert done.code == 0, done.err
    assert set(pd.read_csv(scores, sep="\t")["name"]) == set(ours)
    refused = run_here("hetseg-export", out, tmp_path / "subjects")
    assert refused.code == 2
    assert "structures of its own" in refused.err
