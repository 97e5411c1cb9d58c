"""Scans painted from label maps: contrast, artefacts, and what repeats."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.training.synthesis.label_noise import CLEAN
from hetseg_bids.training.synthesis.painting import (
    SynthesisConfig,
    SyntheticScans,
    SyntheticSource,
    paint,
)
from support.phantoms import phantom_labels

_SHARP = SynthesisConfig(
    bias=0,
    blur=(0, 0),
    thick_rate=0,
    motion_rate=0,
    noise=(0, 0),
    gamma=(1, 1),
    pale_rate=0,
    pia=(0, 0),
)


_DEEP = (10, 49, 12, 51, 13, 52, 28, 60)


def test_a_synthetic_scan_is_standardised_and_stripped(volume):
    inside = volume.image > BACKGROUND
    assert abs(float(volume.image[inside].mean())) < 0.1
    assert 0.8 < float(volume.image[inside].std()) < 1.1
    assert inside.float().mean() < 0.7
    assert {2, 41, 3, 42, 16} <= set(volume.labels.unique().tolist())


def test_white_matter_is_brighter_than_cortex_and_cortex_than_ventricle(source):
    means = []
    for seed in range(4):
        drawn = source.draw(np.random.default_rng(seed))
        means.append([float(drawn.image[drawn.labels == i].median()) for i in (41, 42, 43)])
    white, grey, ventricle = np.mean(means, axis=0)
    assert white > grey > ventricle


def test_equal_seeds_give_equal_scans(source):
    first, second = (source.draw(np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.labels, second.labels)


def test_pale_scans_lose_the_contrast_of_the_deep_grey_matter_only():
    labels = torch.from_numpy(phantom_labels())
    usual, pale = (
        paint(np.random.default_rng(4), labels, replace(_SHARP, pale_rate=1, pale=(share, share)))
        for share in (1.0, 0.2)
    )
    changed = usual != pale
    assert changed.any()
    assert torch.isin(labels[changed], torch.tensor(_DEEP)).all()
    for putamen in (12, 51):  # darker than white matter, and less so
        assert float(usual[labels == putamen].mean()) < float(pale[labels == putamen].mean())


def test_motion_smears_an_image_along_one_axis_and_keeps_its_sum():
    labels = torch.from_numpy(phantom_labels())
    still, shaken, held = (
        paint(np.random.default_rng(6), labels, replace(_SHARP, motion_rate=rate, motion=(mm, mm)))
        for rate, mm in ((0, 0.0), (1, 3.0), (1, 0.0))
    )
    assert torch.allclose(still, held, atol=1e-5)
    assert float((still - shaken).abs().mean()) > 0.01
    assert float(shaken.mean()) == pytest.approx(float(still.mean()), rel=0.02)
    middle = sorted(
        float(torch.fft.fft(still - shaken, dim=axis).abs().narrow(axis, 0, 3).max())
        for axis in range(3)
    )
    # along the axis that was filled, the middle of k-space is whole
    assert 10 * middle[0] < middle[1]


def test_only_the_fluid_that_touches_grey_matter_looks_like_it():
    labels = torch.zeros(24, 24, 24, dtype=torch.uint8)
    labels[4:20, 4:20, 4:20] = 24
    labels[8:16, 8:16, 8:16] = 3
    labels[10:14, 10:14, 10:14] = 2
    without, half = (
        paint(np.random.default_rng(3), labels, replace(_SHARP, pia=(share, share)))
        for share in (0.0, 0.5)
    )
    changed = (without - half).abs() > 1e-6
    expected = torch.zeros_like(changed)
    for axis in range(3):
        wide = [slice(8, 16)] * 3
        wide[axis] = slice(7, 17)
        expected[tuple(wide)] = True
    expected &= labels == 24
    assert torch.equal(changed, expected)
    # halfway to one value, the mean of the cortex
    grey = 2 * half[expected] - without[expected]
    assert grey.std() < 1e-5
    assert float(grey.mean()) == pytest.approx(float(half[labels == 3].mean()), abs=0.1)


def test_the_thalamus_is_as_bright_as_the_prior_says():
    labels = torch.from_numpy(phantom_labels((160, 192, 160)))  # the frame
    thalamus, white = (torch.isin(labels, torch.tensor(ids)) for ids in ((10, 49), (2, 41)))
    config = replace(_SHARP, contrast=(0.5, 0.5))
    ratios = []
    for seed in range(40):
        image = paint(np.random.default_rng(seed), labels, config)
        ratios.append(float(image[thalamus].mean() / image[white].mean()))
    assert np.mean(ratios) == pytest.approx(1 + 0.5 * (0.84 - 1), abs=0.015)


def test_a_set_of_synthetic_scans_comes_back(source):
    scans = SyntheticScans(source, 2, seed=3)
    first, second = scans.volumes()
    assert not torch.equal(first.image, second.image)
    again = SyntheticScans(source, 2, seed=3)
    drawn = [again.draw(np.random.default_rng(i)) for i in range(8)]
    images = {bytes(v.image.numpy()[60].tobytes()) for v in drawn}
    assert images == {bytes(v.image.numpy()[60].tobytes()) for v in (first, second)}
    masks = [torch.ones(first.labels.shape, dtype=torch.int32)] * 2
    scans.reject(masks)
    assert all(v.rejected is not None for v in scans.volumes())
    assert scans.fingerprint() != source.fingerprint()


def test_synthesis_settings_reach_the_fingerprint(maps):
    paths = sorted(maps.glob("*"))
    plain = SyntheticSource(paths).fingerprint()
    other = SyntheticSource(paths, SynthesisConfig(bias=0)).fingerprint()
    assert plain != other
    json.dumps(other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_makes_scans_of_the_same_kind(maps):
    paths = sorted(maps.glob("*.nii.gz"))
    config = SynthesisConfig(noise=(0.0, 0.0), labels=CLEAN)
    here, there = (
        SyntheticSource(paths, config, torch.device(d)).draw(np.random.default_rng(5))
        for d in ("cpu", "cuda")
    )
    assert (here.labels == there.labels.cpu()).float().mean() > 0.99
    torch.testing.assert_close(here.image.mean(), there.image.mean().cpu(), atol=0.01, rtol=0)
