"""Random moves of stacks."""

from __future__ import annotations

import numpy as np

from hetseg_bids.training.augmentation import AugmentationConfig, sample_transform


def test_sampled_rotations_are_about_one_axis():
    config = AugmentationConfig(reflection_rate=0)
    for seed in range(20):
        matrix = sample_transform(np.random.default_rng(seed), config).matrix
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert sum(np.isclose(np.diag(matrix), 1)) >= 1
