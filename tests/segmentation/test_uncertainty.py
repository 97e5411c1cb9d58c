import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetseg_bids.segmentation.uncertainty import (
    REPEAT_NOISE,
    FlipSums,
    RepeatNoise,
    StructureUncertainty,
    volume_sd,
)


def summarise(segment: np.ndarray, q: np.ndarray) -> StructureUncertainty:
    (one,) = FlipSums.of(segment, q[None]).summaries()
    return one


def test_expected_dice_and_size_match_simulated_references():
    generator = np.random.default_rng(0)
    segment = np.zeros((20, 20, 20), bool)
    segment[5:15, 5:15, 5:15] = True
    q = np.where(segment, 0.1, 0.02)
    summary = summarise(segment, q)
    references = [segment ^ (generator.random(q.shape) < q) for _ in range(200)]
    dice = np.mean([2 * (segment & r).sum() / (segment.sum() + r.sum()) for r in references])
    assert summary.expected_dice == pytest.approx(dice, abs=0.005)
    assert summary.expected_size == pytest.approx(np.mean([r.sum() for r in references]), rel=0.01)
    assert summary.mean_flip_probability == pytest.approx(0.1)


def test_an_empty_structure_has_no_mean():
    summary = summarise(np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3)))
    assert np.isnan(summary.mean_flip_probability)
    assert np.isnan(summary.expected_dice)


def test_the_error_of_a_size_is_that_of_correlated_flips():
    segment = np.zeros((4, 4, 4), bool)
    segment[:2] = True
    q = np.full((4, 4, 4), 0.2)
    summary = summarise(segment, q)
    assert summary.size == 32
    assert summary.flip_variance == pytest.approx(64 * 0.2 * 0.8)
    assert volume_sd(10.0) == pytest.approx((10 * 50 + 8**2) ** 0.5)
    assert summary.expected_size == pytest.approx(32 * 0.8 + 32 * 0.2)
    assert summary.expected_dice == pytest.approx(2 * 32 * 0.8 / (32 + 32))


def test_one_missed_voxel_makes_an_empty_structure_wrong():
    q = np.zeros((3, 3, 3))
    q[0, 0, 0] = 0.4
    summary = summarise(np.zeros((3, 3, 3), bool), q)
    assert summary.expected_dice == 0
    assert summary.expected_size == pytest.approx(0.4)


def test_repeat_noise_has_a_part_of_the_borders_and_a_part_of_the_size():
    noise = RepeatNoise(border_mm3=2.0, share=0.01, noise=0.1)
    assert noise.sd(1000.0, 0.0) == pytest.approx(10)
    assert noise.sd(0.0, 50.0) == pytest.approx(10)
    assert noise.sd(1000.0, 50.0) == pytest.approx(200**0.5)
    assert noise.sd(1000.0, 50.0, 0.1) == pytest.approx(400**0.5)


@given(st.floats(0, 1e6), st.floats(0, 1e5), st.floats(0, 1))
def test_a_noisier_image_never_has_surer_volumes(volume, flips, noise):
    quiet = REPEAT_NOISE.sd(volume, flips, noise)
    assert quiet <= REPEAT_NOISE.sd(volume, flips, noise + 0.1)
    assert quiet >= REPEAT_NOISE.sd(volume, flips)  # not known: as of a quiet image
