"""A model of the real kind with few, random weights: for runs whose labels don't matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hetseg_bids.network.architecture import HetsegNet, NetworkConfig
from hetseg_bids.network.models import Plan, save_model
from hetseg_bids.network.systems import LabelFlip
from hetseg_bids.preprocessing.normalisation import BACKGROUND, CLIP
from hetseg_bids.structures.aseg import ASEG, WITH_PARTS
from hetseg_bids.structures.label_sets import LabelSet


def _network(label_set: LabelSet) -> NetworkConfig:
    return NetworkConfig(2 * len(label_set.tasks), (4, 4, 4), (4, 4, 4), (1,), 4)


def plan_of(name: str, weights_sha256: str = "", label_set: LabelSet = ASEG, **more: Any) -> Plan:
    """A plan of such a model; `more` are other fields of `Plan`."""
    facts = (_network(label_set), (32, 32), BACKGROUND, CLIP, weights_sha256, {}, label_set)
    return Plan(name, LabelFlip(), *facts, **more)


def write_tiny_model(
    folder: Path, *, sure: bool = False, parts: bool = False, mirror: bool = True
) -> Path:
    """Write a label-flip model that takes a second a scan.

    One that is sure sees a single structure and hardly doubts it, so that its maps are mostly zero
    as those of trained models are. One with parts can label all of an aseg. Without the mirror
    image it takes half of the time.
    """
    torch.manual_seed(0)
    label_set = WITH_PARTS if parts else ASEG
    network = HetsegNet(_network(label_set))
    with torch.no_grad():
        network.head.bias[: len(label_set.tasks)] -= 1  # some structures everywhere, not all
        if sure:
            network.head.bias[1:] -= 30
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder, plan_of("tiny", label_set=label_set, mirror=mirror), network.state_dict())
    (folder / "MODEL_CARD.md").write_text("# tiny\n\nRandom weights, for tests.\n")
    return folder
