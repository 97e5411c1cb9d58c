from dataclasses import replace

import psutil
import pytest
import torch

from hetseg_bids.network.architecture import (
    HetsegNet,
    NetworkConfig,
    to_channels_last,
)
from hetseg_bids.network.layers import InstanceNorm, Positive, upsample_twice
from support.pretend_card import CARD, pretend_card

SMALL = NetworkConfig(n_outputs=5, stem=(4, 4, 8), levels=(8, 12, 16), growth=8)
ADDED = {"stem": (4, 8), "added_skips": True}


@pytest.fixture
def network() -> HetsegNet:
    torch.manual_seed(0)
    return to_channels_last(HetsegNet(SMALL)).eval()


def test_a_block_gives_the_logits_of_its_stacks(network):
    block = torch.randn(11, 32, 24)
    stacks = torch.stack([block[i : i + 7] for i in range(5)])[:, None]
    with torch.no_grad():
        torch.testing.assert_close(
            network.forward_block(block), network(stacks), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("labelled", [1, 3])
def test_some_pixels_get_the_logits_that_all_get(labelled):
    torch.manual_seed(0)
    network = to_channels_last(HetsegNet(replace(SMALL, labelled=labelled))).eval()
    block, outputs = torch.randn(8 + labelled, 64, 24), torch.tensor([3, 0])
    many, none = torch.randperm(64 * 24)[:1100], torch.tensor([], dtype=torch.int64)
    with torch.no_grad():
        whole = network.forward_block(block, outputs).flatten(2)
        some = list(network.forward_pixels(block, [many, none, many[:1]], outputs))
    assert len(whole) == len(some) == 3
    for slice_, found, numbers in zip(whole, some, (many, none, many[:1]), strict=True):
        torch.testing.assert_close(found, slice_[:, numbers].T, rtol=1e-4, atol=1e-4)


def test_other_numbers_of_pixels_need_no_more_memory(network):
    """findings/: half a MiB is kept for every number of rows, where bfloat16 is fast."""
    block = torch.randn(7, 128, 128)

    def look(counts: range) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for count in counts:
                next(network.forward_pixels(block, [torch.arange(count)]))

    look(range(1_000, 16_000, 1_024))
    before = psutil.Process().memory_info().rss
    look(range(1_000, 16_000, 60))
    assert psutil.Process().memory_info().rss - before < 60 * 2**20


@pytest.mark.parametrize(
    "change", [{"stem": (4, 8)}, {"stem": (4, 4, 4, 8)}, {"labelled": 3}, {"labelled": 5}, ADDED]
)
def test_a_slice_has_the_mean_of_what_stacks_say_of_it(change):
    torch.manual_seed(0)
    config = replace(SMALL, **change)
    network = to_channels_last(HetsegNet(config)).eval()
    size, labelled = config.depth.slices, config.labelled
    block = torch.randn(13, 16, 24)
    said: dict[int, list[torch.Tensor]] = {}
    with torch.no_grad():
        found = network.forward_block(block, torch.tensor([0, 3]))
        for start in range(13 - size + 1):
            stack = block[None, None, start : start + size]
            logits = network.forward_training(stack)[0]
            torch.testing.assert_close(network(stack)[0], logits[labelled // 2])
            first = start + (size - labelled) // 2
            for i in range(labelled):
                said.setdefault(first + i, []).append(logits[i, [0, 3]])
    means = [torch.stack(v).mean(0) for k, v in sorted(said.items()) if len(v) == labelled]
    assert len(means) == 13 - 2 * config.reach
    torch.testing.assert_close(found, torch.stack(means), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("labelled", [0, 2, 9])
def test_slices_are_labelled_about_the_middle_one(labelled):
    with pytest.raises(ValueError, match="odd"):
        replace(SMALL, labelled=labelled)


def test_deep_supervision_adds_heads_that_only_training_uses():
    torch.manual_seed(0)
    network = HetsegNet(replace(SMALL, deep_supervision=True, labelled=3))
    stacks = torch.randn(2, 1, 7, 16, 24)
    shapes = [tuple(level.shape) for level in network.forward_training(stacks)]
    assert shapes == [(6, 5, 16, 24), (6, 5, 8, 12), (6, 5, 4, 6)]
    network.forward_training(stacks)[2].sum().backward()
    assert network.coarse_heads[1].weight.grad.any()
    assert network.head.weight.grad is None
    before = network(stacks)
    with torch.no_grad():
        for head in network.coarse_heads:
            head.weight.zero_()
    assert torch.equal(network(stacks), before)


def test_output_has_the_size_of_the_input(network):
    with torch.no_grad():
        assert network(torch.randn(2, 1, 7, 20, 36)).shape == (2, 5, 20, 36)


def test_logits_depend_on_all_seven_slices(network):
    stack = torch.randn(1, 1, 7, 16, 16)
    with torch.no_grad():
        before = network(stack)
        for i in (0, 3, 6):
            changed = stack.clone()
            changed[:, :, i] += 1
            assert not torch.allclose(network(changed), before)


def test_upsampling_is_bilinear():
    x = torch.randn(2, 3, 6, 10)
    expected = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(upsample_twice(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(upsample_twice(x), expected)


def test_every_bfloat16_below_0_becomes_0():
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    every = bits.view(torch.bfloat16)
    every = every[~every.isnan()]
    with torch.no_grad():
        changed = every.clone()
        found = Positive()(changed)
    assert found is changed
    assert torch.equal(found, every.float().clamp_min(0).to(torch.bfloat16))


def test_logits_are_the_same_with_and_without_gradients(network):
    # training and inference take different kernels
    stacks = torch.randn(2, 1, 7, 32, 24)
    with torch.no_grad():
        quick = network(stacks)
    torch.testing.assert_close(quick, network(stacks).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_the_norm_of_a_gpu_is_that_of_the_cpu(kind):
    torch.manual_seed(0)
    norm = InstanceNorm(8)
    norm.weight.data.uniform_(0.5, 2)
    x = (3 * torch.randn(5, 8, 24, 20) + 2).to(kind).to(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = norm(x)
        with pretend_card():
            found = norm.to(CARD)(x.to(CARD)).cpu()
    assert found.dtype == kind
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 if kind == torch.float32 else 0.01)


@pytest.mark.slow
def test_compiled_gradients_are_the_eager_ones():
    # torch 2.13's inductor silently returned zeros for everything below an upsampling
    def gradients(compiled: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = to_channels_last(HetsegNet(replace(SMALL, stem=(4,), dilations=(1,))))
        forward = torch.compile(network) if compiled else network
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = forward(torch.linspace(-2, 2, 3 * 48 * 32).sin().view(1, 1, 3, 48, 32))
        output.float().square().mean().backward()
        return {name: p.grad for name, p in network.named_parameters()}

    try:
        compiled = gradients(compiled=True)
    except Exception as error:
        if "compiler" in str(error).lower():
            pytest.skip("no C++ compiler on this machine")
        raise
    for name, expected in gradients(compiled=False).items():
        cosine = torch.nn.functional.cosine_similarity(
            compiled[name].flatten(), expected.flatten(), dim=0
        )
        assert cosine > 0.7, name  # bfloat16 rounds differently; a lost gradient gives 0
