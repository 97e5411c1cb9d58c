"""Labels made wrong on purpose."""

from __future__ import annotations

import numpy as np
import torch

from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.training.synthesis.label_noise import (
    LabelNoiseConfig,
    add_sporadic_errors_,
    displace,
    weaken,
)
from support.phantoms import phantom_labels


def test_label_noise_moves_boundaries_but_not_insides():
    labels = torch.from_numpy(phantom_labels())
    quiet = LabelNoiseConfig(jitter=(0.3, 0.9), sporadic_rate=0, missing_rate=0)
    weak = weaken(np.random.default_rng(0), labels, quiet)
    changed = weak != labels
    assert 0.005 < float(changed.float().mean()) < 0.15
    core = torch.from_numpy(phantom_labels()) == 51
    centre = torch.nonzero(core).float().mean(dim=0).round().int()
    assert int(weak[tuple(centre.tolist())]) == 51


def test_sporadic_errors_add_blobs():
    labels = torch.from_numpy(phantom_labels())
    config = LabelNoiseConfig(jitter=(0, 0), sporadic_rate=20, missing_rate=0)
    weak = weaken(np.random.default_rng(0), labels, config)
    assert 20 < int((weak != labels).sum()) < labels.numel() * 0.05


def test_label_noise_is_moved_boundaries_and_then_sporadic_errors():
    labels = torch.from_numpy(phantom_labels())
    config = LabelNoiseConfig(sporadic_rate=3)
    rng = np.random.default_rng(5)
    weak = displace(rng, labels, config)
    add_sporadic_errors_(rng, weak, config)
    assert torch.equal(weak, weaken(np.random.default_rng(5), labels, config))


def test_swapped_structures_change_sides_and_nothing_else():
    labels = torch.from_numpy(phantom_labels())
    weak = labels.clone()
    swap = LabelNoiseConfig(sporadic_rate=0, missing_rate=0, swap_rate=1)
    for seed in range(20):  # until a structure that the phantom has is drawn
        add_sporadic_errors_(np.random.default_rng(seed), weak, swap)
        if not torch.equal(weak, labels):
            break
    changed = weak != labels
    assert changed.any()
    table = torch.from_numpy(ASEG.mirror_labels())
    assert torch.equal(weak[changed], table[labels[changed].long()])
    assert len(labels[changed].unique()) == 2
