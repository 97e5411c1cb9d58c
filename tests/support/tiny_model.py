"""A model of the real kind with few, random weights: for runs whose labels don't matter."""

from __future__ import annotations

from pathlib import Path

import torch

from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.models import Plan, save_model
from hetseg_bids.preprocessing.normalisation import BACKGROUND, CLIP
from hetseg_bids.structures.aseg import N_TASKS

_NETWORK = NetworkConfig(2 * N_TASKS, (4, 4, 4), (4, 4, 4), (1,), 4)


def write_tiny_model(folder: Path) -> Path:
    """Write a label-flip model that takes a second a scan."""
    torch.manual_seed(0)
    network = HetsegNet(_NETWORK)
    with torch.no_grad():
        network.head.bias[:N_TASKS] -= 1  # some structures everywhere, not all
    plan = Plan("tiny", "label-flip", _NETWORK, (32, 32), BACKGROUND, CLIP, "", {})
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, plan, network.state_dict())
    (folder / "MODEL_CARD.md").write_text("# tiny\n\nRandom weights, for tests.\n")
    return folder
