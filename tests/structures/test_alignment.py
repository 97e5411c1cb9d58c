"""Heads laid over the template by their centroids."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hetseg_bids.structures.alignment import CENTROIDS, template_affine


def test_the_affine_of_moved_centroids_is_the_inverse_of_the_move():
    table = pd.read_csv(CENTROIDS, sep="\t").set_index("name")
    move = np.array([[0.9, 0.1, 0, 5], [-0.1, 1.1, 0.05, -20], [0, 0, 1.2, 8], [0, 0, 0, 1]])
    found = {
        n: (move @ [*row, 1])[:3] for n, row in zip(table.index, table.to_numpy(), strict=True)
    }
    np.testing.assert_allclose(template_affine(found) @ move, np.eye(4), atol=1e-9)
    assert template_affine(dict(list(found.items())[:5])) is None
