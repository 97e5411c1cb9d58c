"""On which device deepbet runs; what it finds is tested on real scans."""

from __future__ import annotations

import deepbet.bet
import numpy as np
import pytest
import torch

from hetseg_bids.preprocessing.brain_extraction import _warn_of_no_room, extract_brain
from hetseg_bids.preprocessing.transfer import CPU
from support.pretend_card import CARD, pretend_card

_HEAD = np.zeros((60, 60, 60), np.float32)
_HEAD[10:50, 10:50, 10:50] = 100 + np.arange(40, dtype=np.float32)


class Bright(torch.nn.Module):
    """Stands in for deepbet's networks, which a pretended card can't hold: what is bright."""

    used: list[torch.device]

    def __init__(self, room: bool) -> None:
        super().__init__()
        self.room = room
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.used.append(x.device)
        if x.device.type == "cuda" and not self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        bright = (x * self.weight > 0.449).float()
        return torch.cat((1 - bright, bright), dim=1)


@pytest.fixture
def used(monkeypatch, request) -> list[torch.device]:
    """The devices on which the stand-in was called; `request.param`: whether a GPU has room."""
    found: list[torch.device] = []
    monkeypatch.setattr(Bright, "used", found, raising=False)
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
