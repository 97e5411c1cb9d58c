"""Structures of other sizes than in the label map."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hetseg_bids.training.synthesis.label_noise import CLEAN
from hetseg_bids.training.synthesis.painting import (
    SynthesisConfig,
    SyntheticSource,
)
from hetseg_bids.training.synthesis.sizes import find_places, resize_


def _resized(positions, places, spread, seed=0):
    moved = [p.clone() for p in positions]
    here = np.c_[np.eye(3), np.zeros(3)]
    resize_(np.random.default_rng(seed), moved, places, spread, here)
    return moved


def test_resized_structures_keep_their_place_and_leave_the_distance_alone():
    labels = torch.zeros(60, 60, 60, dtype=torch.uint8)
    axes = torch.meshgrid(*[torch.arange(60.0)] * 3, indexing="ij")
    square = sum((a - 30) ** 2 for a in axes)
    labels[square <= 36] = 13
    places = find_places(labels)
    assert set(places) == {13}
    assert places[13].radius == pytest.approx(6, abs=0.1)
    assert np.allclose(places[13].centre, 30)
    volumes = []
    for seed in range(8):
        x, y, z = (p.round().long() for p in _resized(axes, places, 0.15, seed))
        new = labels[x, y, z]
        volumes.append(int((new == 13).sum()))
        moved = torch.stack((x, y, z)) != torch.stack(axes).long()
        assert not moved.any(dim=0)[square > 19**2].any()
        assert np.allclose(find_places(new)[13].centre, 30, atol=0.3)
    usual = int((labels == 13).sum())
    assert min(volumes) < 0.85 * usual
    assert max(volumes) > 1.15 * usual
    same = _resized(axes, places, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(axes, same, strict=True))


def test_sizes_reach_synthetic_scans(maps):
    paths = sorted(maps.glob("*.nii.gz"))
    usual, other = (
        SyntheticSource(paths, SynthesisConfig(sizes=spread, labels=CLEAN))
        .draw(np.random.default_rng(5))
        .labels
        for spread in (0.0, 0.3)
    )
    counts = [torch.bincount(v.reshape(-1).int(), minlength=256) for v in (usual, other)]
    deep = torch.tensor([10, 49, 12, 51])  # what the phantom has
    change = (counts[1][deep] / counts[0][deep] - 1).abs()
    assert float(change.max()) > 0.2
    assert float(counts[1][2] / counts[0][2]) == pytest.approx(1, abs=0.1)
