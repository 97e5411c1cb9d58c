"""On which device deepbet runs; what it finds is tested on real scans."""

from __future__ import annotations

import deepbet.bet
import numpy as np
import pytest
import torch

from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.preprocessing import number_formats
from hetseg_bids.preprocessing.brain_extraction import _warn_of_no_room, extract_brain
from hetseg_bids.preprocessing.conform import resample, working_grid
from hetseg_bids.preprocessing.headers import read_t1w
from hetseg_bids.preprocessing.transfer import CPU
from support.pretend_card import CARD, pretend_card

_HEAD = np.zeros((60, 60, 60), np.float32)
_HEAD[10:50, 10:50, 10:50] = 100 + np.arange(40, dtype=np.float32)


class Bright(torch.nn.Module):
    """Stands in for deepbet's networks, which a pretended card can't hold: what is bright."""

    used: list[torch.device]
    kinds: list[torch.dtype]

    def __init__(self, room: bool) -> None:
        super().__init__()
        self.room = room
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.used.append(x.device)
        self.kinds.append(x.dtype)
        if x.device.type == "cuda" and not self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        bright = (x * self.weight > 0.449).float()
        return torch.cat((1 - bright, bright), dim=1)


@pytest.fixture
def used(monkeypatch, request) -> list[torch.device]:
    """The devices on which the stand-in was called; `request.param`: whether a GPU has room."""
    found: list[torch.device] = []
    monkeypatch.setattr(Bright, "used", found, raising=False)
    monkeypatch.setattr(Bright, "kinds", [], raising=False)
    monkeypatch.setattr(deepbet.bet, "load_model", lambda *_: Bright(request.param))
    small = ((32, 32, 32), (64, 64, 64), 0.1)  # deepbet's own are 64 times as large
    monkeypatch.setattr(deepbet.bet.BrainExtraction.run_model, "__defaults__", small)
    _warn_of_no_room.cache_clear()
    return found


@pytest.mark.parametrize("used", [True], indirect=True)
@pytest.mark.parametrize("device", [CPU, CARD], ids=str)
def test_it_runs_on_the_device_that_was_asked_for(used, device):
    with pretend_card():
        mask = extract_brain(_HEAD, device)
    assert used == [device, device]  # a first look, and the brain
    assert mask[12:48, 12:48, 48].all()
    assert not mask[:8].any()


@pytest.mark.usefixtures("used")
@pytest.mark.parametrize("used", [True], indirect=True)
@pytest.mark.parametrize(
    ("device", "fast", "kind"),
    [
        (CPU, True, torch.bfloat16),
        (CPU, False, torch.float32),
        (CARD, True, torch.float32),
    ],
    ids=str,
)
def test_it_computes_in_half_precision_where_a_cpu_does_so_fast(monkeypatch, device, fast, kind):
    monkeypatch.setattr(number_formats, "computes_bf16", lambda _: fast)
    with pretend_card():
        extract_brain(_HEAD, device)
    assert Bright.kinds == [kind, kind]


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.skipif(not number_formats.computes_bf16(CPU), reason="bfloat16 would be emulated")
def test_half_precision_moves_a_few_voxels_at_the_border(shared_data, monkeypatch):
    scan = read_t1w(shared_data / "freesurfer_dev" / "sub-ads01_T1w.nii.gz")
    grid = working_grid(scan.grid)
    head = resample(torch.from_numpy(scan.data)[None], scan.grid, grid, outside=scan.background)
    half = extract_brain(head[0].numpy())
    monkeypatch.setattr(number_formats, "computes_bf16", lambda _: False)
    full = extract_brain(head[0].numpy())
    assert (half != full).any()
    assert dice(half, full) > 0.999


@pytest.mark.parametrize("used", [False], indirect=True)
def test_without_room_on_the_gpu_it_runs_on_the_cpu_and_says_so_once(used, caplog):
    wanted = extract_brain(_HEAD)
    used.clear()
    with pretend_card():
        for _ in range(2):
            np.testing.assert_array_equal(extract_brain(_HEAD, CARD), wanted)
    assert used == 2 * [CARD, CPU, CPU]
    (said,) = caplog.messages
    assert said.startswith(f"no room for brain extraction on {CARD}: done on the CPU")


@pytest.mark.parametrize("used", [True], indirect=True)
def test_other_errors_of_a_gpu_are_not_hidden(used, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Bright, "forward", broken)
    with pretend_card(), pytest.raises(RuntimeError, match="illegal memory access"):
        extract_brain(_HEAD, CARD)
    assert not used
