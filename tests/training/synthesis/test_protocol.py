"""Structures whose labels are larger than in the maps, while scans look as the maps say."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from hetseg_bids.training.synthesis.label_noise import CLEAN
from hetseg_bids.training.synthesis.painting import SynthesisConfig, SyntheticSource
from hetseg_bids.training.synthesis.protocol import grow
from support.phantoms import phantom_labels


def _ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> np.ndarray:
    offsets = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    return (offsets**2).sum(axis=0) <= radius**2


def _striatum() -> np.ndarray:
    """A left pallidum between putamen and white matter; an accumbens that touches a ventricle."""
    labels = np.full((40, 40, 40), 2, np.uint8)
    labels[:14] = 12
    labels[:, :, :8] = 0
    labels[:, 30:] = 4
    labels[_ball(labels.shape, (16, 14, 26), 6)] = 13
    labels[_ball(labels.shape, (22, 27, 12), 5)] = 26
    return labels


@pytest.mark.parametrize(
    ("name", "label", "sources"), [("pallidum", 13, {2}), ("accumbens", 26, {0, 2})]
)
@pytest.mark.parametrize("factor", [1.1, 1.3])
def test_a_structure_grows_by_the_factor_and_only_into_its_neighbours(name, label, sources, factor):
    before = _striatum()
    after = grow(torch.from_numpy(before), [(name, factor)]).numpy()
    own, now = before == label, after == label
    assert now[own].all()
    assert now.sum() == pytest.approx(factor * own.sum(), abs=1)
    assert set(np.unique(before[now & ~own])) == sources
    assert (after == before)[~now].all()
    # evenly: a shell around it, in one piece
    assert ndimage.distance_transform_edt(~own)[now].max() <= 2
    assert ndimage.label(now)[1] == 1


def test_each_side_takes_from_its_own():
    labels = _striatum()
    both = np.concatenate((labels, np.where(labels == 13, 52, labels)[::-1]))
    after = grow(torch.from_numpy(both), [("pallidum", 1.3)]).numpy()
    assert (after == 13).sum() > (both == 13).sum()
    assert (after == 52).sum() == (both == 52).sum()  # there is no right white matter


@pytest.mark.parametrize(("name", "factor"), [("hippocampus", 1.1), ("pallidum", 0.9)])
def test_what_cannot_grow_is_refused(name, factor):
    with pytest.raises(ValueError, match=name):
        grow(torch.from_numpy(_striatum()), [(name, factor)])


def test_synthetic_scans_look_like_the_map_under_grown_labels(tmp_path: Path):
    labels = phantom_labels()
    labels[_ball(labels.shape, (60, 80, 78), 6) & (labels == 2)] = 13
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    as_drawn, grown = (
        SyntheticSource([path], SynthesisConfig(grown=factors, labels=CLEAN)).draw(
            np.random.default_rng(3)
        )
        for factors in ((), (("pallidum", 1.3),))
    )
    assert torch.equal(as_drawn.image, grown.image)
    new = grown.labels != as_drawn.labels
    assert set(grown.labels[new].tolist()) == {13}
    assert set(as_drawn.labels[new].tolist()) == {2}
    growth = int((grown.labels == 13).sum()) / int((as_drawn.labels == 13).sum())
    assert growth == pytest.approx(1.3, abs=0.05)
