"""Weights of a model that a run starts from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hetseg_bids.errors import ModelError
from hetseg_bids.network.architecture import HetsegNet
from hetseg_bids.network.models import load_model
from hetseg_bids.network.systems import LabelFlip, Plain, PredictiveVariance
from hetseg_bids.structures.aseg import ASEG, N_TASKS
from hetseg_bids.training.initialisation import start_from_
from support.training import fresh


def test_a_run_starts_from_all_weights_of_the_same_system(trained):
    model = load_model(str(trained), torch.device("cpu"))
    network = fresh("label-flip")
    start_from_(network, LabelFlip(), model, ASEG)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, model.network.state_dict()[name]), name


def test_the_second_map_of_another_system_stays_behind(trained):
    model = load_model(str(trained), torch.device("cpu"))
    weights = model.network.state_dict()
    before = fresh("predictive-variance").state_dict()
    network = fresh("predictive-variance")
    start_from_(network, PredictiveVariance(), model, ASEG)
    after = network.state_dict()
    assert torch.equal(after["head.weight"][:N_TASKS], weights["head.weight"][:N_TASKS])
    assert torch.equal(after["head.weight"][N_TASKS:], before["head.weight"][N_TASKS:])
    plain = fresh("plain")
    start_from_(plain, Plain(), model, ASEG)
    assert torch.equal(plain.state_dict()["head.bias"], weights["head.bias"][:N_TASKS])


@pytest.mark.parametrize(
    "larger",
    [
        {},
        {"stem": (12, 9, 24)},
        {"levels": (20, 40, 64)},
        {"growth": 24},
        {"dilations": (1, 2, 4, 8, 1, 2, 4)},
        {"stem": (16, 16, 32), "levels": (32, 64, 96), "dilations": (1, 2, 4, 8, 1, 2)},
    ],
)
def test_a_larger_network_starts_with_the_same_output(trained, larger):
    model = load_model(str(trained), torch.device("cpu"))
    torch.manual_seed(1)
    network = HetsegNet(replace(model.plan.network, **larger))
    start_from_(network, LabelFlip(), model, ASEG)
    stacks = torch.randn((2, 1, 7, 32, 40), generator=torch.Generator().manual_seed(2))
    expected = model.network(stacks)
    found = network(stacks)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    found.square().mean().backward()
    gradient = network.reduce1.weight.grad
    assert gradient is not None
    assert gradient.flatten(1).any(dim=0).all(), "new channels are heard after the first step"


def test_new_slices_and_resolutions_start_from_the_middle_slice(trained):
    model = load_model(str(trained), torch.device("cpu"))
    old = model.network.state_dict()
    torch.manual_seed(1)
    network = HetsegNet(replace(model.plan.network, labelled=3, deep_supervision=True))
    start_from_(network, LabelFlip(), model, ASEG)
    stacks = torch.randn((2, 1, 7, 32, 40), generator=torch.Generator().manual_seed(2))
    expected = model.network(stacks).repeat_interleave(3, dim=0)
    found = network.forward_training(stacks)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.state_dict()["head.bias"], old["head.bias"].repeat(3))


def test_a_network_that_adds_takes_over_the_coarse_layers(trained):
    model = load_model(str(trained), torch.device("cpu"))
    old = model.network.state_dict()
    config = model.plan.network
    torch.manual_seed(1)
    levels = (8, *config.levels[1:])
    network = HetsegNet(replace(config, stem=(8, 16), levels=levels, added_skips=True))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    copied = start_from_(network, LabelFlip(), model, ASEG)
    after = network.state_dict()
    for name in ("encode2.0.weight", "bottleneck.1.dilated.0.weight", "reduce1.weight"):
        assert name in copied
        assert torch.equal(after[name], old[name])
    for name in ("stem.conv1.weight", "encode1.0.0.weight", "head.weight"):
        assert name not in copied
        assert torch.equal(after[name], before[name])
    channels = config.levels[1]
    added, beside = old["decode1.0.weight"].split(channels, dim=1)
    assert torch.equal(after["decode1.0.weight"], added)
    # what is added does to the decoder what lay beside did, as well as a 1x1 convolution can
    encoded = torch.randn(1, channels, 12, 16)
    wanted = torch.nn.functional.conv2d(encoded, beside, padding=1)
    with torch.no_grad():
        said = torch.nn.functional.conv2d(network.join1.project(encoded), added, padding=1)
        nothing = wanted.square().mean()
    assert (said - wanted).square().mean() < nothing


@pytest.mark.parametrize(
    "smaller",
    [
        {"growth": 8},
        {"levels": (16, 31, 48)},
        {"dilations": (1, 2, 4, 8)},
        {"stem": (8, 16)},
        {"stem": (8, 8, 16, 16)},
        {"stem": (8, 16), "levels": (8, 12, 48), "added_skips": True},
    ],
)
def test_a_smaller_network_can_not_start_from_a_model(trained, smaller):
    model = load_model(str(trained), torch.device("cpu"))
    network = HetsegNet(replace(model.plan.network, **smaller))
    with pytest.raises(ModelError, match="a larger one"):
        start_from_(network, LabelFlip(), model, ASEG)
