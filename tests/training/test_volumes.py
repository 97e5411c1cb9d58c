"""Labelled volumes."""

from __future__ import annotations

import numpy as np


def test_a_volume_knows_which_slices_hold_a_structure(volume):
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        for label in (0, 12, 16, 77):
            expected = (volume.labels == label).sum(dim=others) > 0
            assert np.array_equal(volume.presence[axis][:, label], expected.numpy())
