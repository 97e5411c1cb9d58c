import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.errors import ModelError, OptionError
from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.fitted import Border, Pooling
from hetseg_bids.network.models import (
    WEIGHTS_NAME,
    Plan,
    load_model,
    read_plan,
    save_model,
    shipped_models,
)
from hetseg_bids.network.systems import LabelFlip
from hetseg_bids.preprocessing.normalisation import BACKGROUND, CLIP
from hetseg_bids.structures.aseg import PARTS, WITH_PARTS, aseg_part
from hetseg_bids.structures.label_tables import make_label_set
from support.tiny_model import plan_of, write_tiny_model

CPU = torch.device("cpu")
# Apache-2.0, MIT, BSD-2, PDDL, CC0
_MAY_REACH_WEIGHTS = re.compile(
    r"sub-(voxelmorph|plotatlas|dfsp|ds002748x\d\d|ds000011x\d\d|niimath|child10y06m|philips41y"
    r"|adi26y|example)"
)


def test_the_default_model_is_shipped_with_plan_card_and_checksum():
    folder = shipped_models()["label-flip"]
    model = load_model("label-flip", CPU)
    assert model.plan.heteroscedastic
    assert (folder / "MODEL_CARD.md").is_file()


def scans_in(facts: object) -> set[str]:
    """Names of all scans in the provenance of a model."""
    if isinstance(facts, list):
        return set().union(*map(scans_in, facts))
    if not isinstance(facts, dict):
        return set()
    own = {name.split("_")[0] for name in facts.get("files", ())}
    return own.union(*map(scans_in, facts.values()))


def test_shipped_weights_have_seen_only_scans_whose_licences_allow_it():
    seen = {name: scans_in(read_plan(f).provenance) for name, f in shipped_models().items()}
    assert {"sub-voxelmorph", "sub-ds000011x08"} < seen["label-flip"]
    for scans in seen.values():
        assert not [scan for scan in scans if not _MAY_REACH_WEIGHTS.fullmatch(scan)]


def test_every_shipped_model_has_a_card_and_loads():
    for name, folder in shipped_models().items():
        assert load_model(name, CPU).plan.name == name
        assert (folder / "MODEL_CARD.md").read_text().startswith(f"# {name}\n")


def test_a_model_is_written_for_everyone_to_read(tmp_path):
    write_tiny_model(tmp_path / "model")
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    (tmp_path / "other").touch()
    assert modes == {(tmp_path / "other").stat().st_mode}


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shipped_models()["label-flip"], folder)
    return folder


def test_a_folder_is_a_model_too(copy):
    assert load_model(str(copy), CPU).folder == copy


def test_changed_weights_are_refused(copy):
    path = copy / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="checksum"):
        load_model(str(copy), CPU)


def test_other_weights_copied_over_those_of_a_loaded_model_do_not_change_it(copy, tmp_path):
    model = load_model(str(copy), CPU)
    before = {name: values.clone() for name, values in model.network.state_dict().items()}
    others = {name: torch.zeros_like(values) for name, values in before.items()}
    save_model(tmp_path / "other", model.plan, others)
    shutil.copyfile(tmp_path / "other" / WEIGHTS_NAME, copy / WEIGHTS_NAME)  # into the same file
    after = model.network.state_dict()
    assert all(torch.equal(after[name], values) for name, values in before.items())


def test_weights_of_a_training_that_diverged_are_refused(tmp_path):
    plan = plan_of("diverged")
    weights = HetsegNet(plan.network).state_dict()
    weights["head.bias"][3] = torch.nan
    save_model(tmp_path, plan, weights)
    with pytest.raises(ModelError, match="weights aren't numbers") as caught:
        load_model(str(tmp_path), CPU)
    assert caught.value.remedy == "train the model again"


def test_missing_weights_are_named(copy):
    (copy / WEIGHTS_NAME).unlink()
    with pytest.raises(ModelError, match="missing"):
        load_model(str(copy), CPU)


@pytest.mark.parametrize(
    "change",
    [
        *({"format": 99}, {"tasks": ["one"]}, {"patch": 3}, {"background": 0.0}),
        *({"pooling": {"views": 1.0}}, {"pooling": 3}),
        *({"pooling": {"views": 1, "ensemble": 0, "structures": {"spleen": 0.1}}},),
        *({"pooling": {"views": 1, "ensemble": 0, "structures": {"brainstem": 9}}},),
        *({"pooling": {"views": 1, "ensemble": 0, "structures": {"brainstem": np.nan}}},),
        *({"system": system} for system in ("plain", "pooled", None, ["label-flip"])),
        *({"smoothing": times} for times in (-1, 10, 2.0, "2")),
        *({"mirror": value} for value in (1, "yes", None)),
        *({"borders": value} for value in ({"spleen": {}}, {"brainstem": 1}, [], 1)),
        *({"borders": {"brainstem": value}} for value in ({"smoothing": 2}, {"offset": "1"})),
        *({"network": {"n_outputs": 62, "labelled": slices}} for slices in (2, "3")),
    ],
)
def test_a_plan_of_another_kind_is_refused(copy, change):
    path = copy / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match="not a usable model plan"):
        load_model(str(copy), CPU)


@pytest.mark.parametrize("change", [{"stem": []}, {"growth": 8}, {"levels": [32, 64, "96"]}])
def test_weights_of_another_network_are_refused(copy, change):
    path = copy / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps(plan | {"network": plan["network"] | change}))
    with pytest.raises(ModelError, match="don't fit the plan"):
        load_model(str(copy), CPU)


def test_a_plan_keeps_how_its_model_is_used(copy):
    plan = load_model(str(copy), CPU).plan
    for pooling, smoothing, mirror, borders in (
        (Pooling(0.9, 0.25), 0, True, {}),
        (Pooling(0.9, 0.25, 0.1, {"brainstem": -0.5}), 0, True, {}),
        (None, 3, False, {"brainstem": Border(0.5, 1.0)}),
    ):
        changed = replace(
            plan, pooling=pooling, smoothing=smoothing, mirror=mirror, borders=borders
        )
        changed.save(copy)
        assert load_model(str(copy), CPU).plan == changed


def test_a_model_of_some_structures_of_the_table_is_read_as_that(tmp_path):
    names = ("left_thalamus", "right_thalamus", "third_ventricle")
    part = aseg_part(names)
    network = NetworkConfig(2 * len(part.tasks), (4, 4, 4), (4, 4, 4), (1,), 4)
    plan = Plan("part", LabelFlip(), network, (32, 32), BACKGROUND, CLIP, "", {}, part)
    save_model(tmp_path, plan, HetsegNet(network).state_dict())
    assert "structures" not in json.loads((tmp_path / "plan.json").read_text())
    found = read_plan(tmp_path).label_set
    assert found == part
    table = dict(zip(found.task_names, found.membership().T, strict=True))
    assert table["left_hemisphere"][[2, 3, 10, 31]].all()  # what the model doesn't label
    assert table["brain_parenchyma"][[2, 3, 10, 77]].all()
    assert not table["brain_parenchyma"][[14, 4]].any()


def test_flip_maps_that_are_not_there_cannot_be_pooled(tmp_path):
    shutil.copytree(shipped_models()["plain"], tmp_path / "plain")
    path = tmp_path / "plain" / "plan.json"
    pooling = {"views": 1.0, "ensemble": 0.25}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pooling": pooling}))
    with pytest.raises(ModelError, match="no flip maps"):
        load_model(str(tmp_path / "plain"), CPU)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ModelError, match="label-flip"):
        load_model("no-such-model", CPU)


def test_names_of_parts_may_be_structures_of_a_users_own_table(tmp_path):
    own = make_label_set(tuple(p for p in PARTS if p.bare_name == "inferior_lateral_ventricle"))
    plan = plan_of("own", "0" * 64, own)
    plan.save(tmp_path)
    assert read_plan(tmp_path).label_set == own


def test_only_two_words_say_what_is_written():
    plan = plan_of("parts", label_set=WITH_PARTS)
    assert len(plan.division("paper").label_set.structures) == 28
    assert len(plan.division("aseg").label_set.structures) == 43
    with pytest.raises(OptionError, match="paper or aseg"):
        plan.division("Aseg")
