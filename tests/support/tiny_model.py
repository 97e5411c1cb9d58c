"""A model of the real kind with few, random weights: for runs whose labels don't matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.models import Plan, save_model
from hetseg_bids.network.systems import LabelFlip
from hetseg_bids.preprocessing.normalisation import BACKGROUND, CLIP
from hetseg_bids.structures.aseg import N_TASKS

_NETWORK = NetworkConfig(2 * N_TASKS, (4, 4, 4), (4, 4, 4), (1,), 4)


def plan_of(name: str, weights_sha256: str = "", **more: Any) -> Plan:
    """A plan of such a model; `more` are other fields of `Plan`."""
    facts = (_NETWORK, (32, 32), BACKGROUND, CLIP, weights_sha256, {})
    return Plan(name, LabelFlip(), *facts, **more)


def write_tiny_model(folder: Path, *, sure: bool = False) -> Path:
    """Write a label-flip model that takes a second a scan.

    One that is sure sees a single structure and hardly doubts it, so that its maps are mostly zero
    as those of trained models are.
    """
    torch.manual_seed(0)
    network = HetsegNet(_NETWORK)
    with torch.no_grad():
        network.head.bias[:N_TASKS] -= 1  # some structures everywhere, not all
        if sure:
            network.head.bias[1:] -= 30
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, plan_of("tiny"), network.state_dict())
    (folder / "MODEL_CARD.md").write_text("# tiny\n\nRandom weights, for tests.\n")
    return folder
