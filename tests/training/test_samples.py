"""The stream of stacks that a network is trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.network.architecture import StackDepth
from hetseg_bids.planes import PLANES
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.training.augmentation import StackTransform
from hetseg_bids.training.samples import (
    BlockDataset,
    Cut,
    draw_cut,
    resample_stacks,
)
from hetseg_bids.training.volumes import LabelledVolume
from support.training import SAMPLING

IDENTITY = StackTransform(np.eye(3), False, np.zeros(2), 1.0, 0.0)


@pytest.mark.parametrize("depth", [StackDepth(), StackDepth(9, 3)], ids=str)
@pytest.mark.parametrize("plane", PLANES.values(), ids=lambda p: p.name)
def test_an_untransformed_stack_is_a_cut_through_the_volume(volume, plane, depth):
    centre = np.array([70.0, 90.0, 80.0])
    cut = resample_stacks(volume, [Cut(plane, centre, IDENTITY)], (32, 24), depth=depth)
    ordered = volume.image.permute(*plane.axes)
    k, r, c = (int(centre[a]) for a in plane.axes)
    window = (slice(r - 15, r + 17), slice(c - 11, c + 13))
    seen, labelled = (slice(k - n // 2, k + n // 2 + 1) for n in (depth.slices, depth.labelled))
    expected = ordered[seen, *window]
    torch.testing.assert_close(cut.images[0, 0].float(), expected, atol=3e-3, rtol=0)
    assert torch.equal(cut.labels[0], volume.labels.permute(*plane.axes)[labelled, *window])


def test_reflection_swaps_sides_of_image_and_labels(volume):
    mirror = replace(IDENTITY, matrix=np.diag([-1.0, 1.0, 1.0]), mirrored=True)
    flipped = LabelledVolume(
        volume.image.flip(0), torch.from_numpy(ASEG.mirror_labels())[volume.labels.flip(0).long()]
    )
    centre = (np.array(volume.image.shape) - 1) / 2
    centre[2] = 80
    for plane in PLANES.values():
        odd = (33, 25)  # symmetric about the centre
        one = resample_stacks(volume, [Cut(plane, np.round(centre + 0.1), mirror)], odd)
        middle = np.round(centre + 0.1)
        middle[0] = volume.image.shape[0] - 1 - middle[0]
        other = resample_stacks(flipped, [Cut(plane, middle, IDENTITY)], odd)
        torch.testing.assert_close(one.images, other.images, atol=3e-3, rtol=0)
        assert torch.equal(one.labels, other.labels)


def test_blocks_do_not_depend_on_what_was_drawn_before(source):
    dataset = BlockDataset(source, SAMPLING, seed=3)
    first = dataset[1]
    dataset[0]
    again = dataset[1]
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, dataset[2].images)


def test_stacks_cut_together_are_those_cut_one_by_one(volume):
    rng = np.random.default_rng(0)
    volume = replace(volume, rejected=(volume.labels == 10).int())
    cuts = [draw_cut(rng, volume, SAMPLING, ASEG) for _ in range(8)]
    assert 0 < sum(cut.transform.mirrored for cut in cuts) < 8
    together = resample_stacks(volume, cuts, SAMPLING.patch)
    for i, cut in enumerate(cuts):
        alone = resample_stacks(volume, [cut], SAMPLING.patch)
        assert torch.equal(together.images[i : i + 1], alone.images)
        assert torch.equal(together.labels[i : i + 1], alone.labels)
        assert torch.equal(together.rejected[i : i + 1], alone.rejected)
