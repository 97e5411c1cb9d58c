import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetseg_bids.segmentation.uncertainty import (
    POOLED,
    REPEAT_NOISE,
    FlipSums,
    RepeatNoise,
    StructureUncertainty,
    evidence,
    flip_map,
    flip_probability,
    spread,
    trained_flip,
    volume_sd,
)
from hetseg_bids.training.losses import focal_of_probability


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.1, 0.25, 0.4])
def test_the_flip_probability_is_the_rate_at_which_the_loss_is_least(rate):
    v = torch.linspace(-12, 6, 40_001, dtype=torch.float64)
    s = trained_flip(v)
    kept = focal_of_probability(s, torch.zeros_like(s), s.log())
    flipped = focal_of_probability(s, torch.ones_like(s), s.log())
    best = v[(rate * flipped + (1 - rate) * kept).argmin()]
    assert float(flip_probability(best)) == pytest.approx(rate, rel=0.01)


@given(st.floats(-80, 15))
def test_q_stays_between_zero_and_one_half(v):
    logit = torch.tensor(v)
    assert 0 < float(trained_flip(logit)) < 0.5
    assert 0 <= float(flip_probability(logit)) < 0.5


def test_predictive_variance_gives_the_chance_of_the_other_sign():
    a, v = torch.tensor([2.0, -2.0, 0.0, 3.0]), torch.tensor([0.0, 0.0, 1.0, 500.0])
    q = flip_map("predictive-variance", a, v)
    assert q.tolist() == pytest.approx([0.02275, 0.02275, 0.5, 0.49995], abs=1e-4)


def test_flip_probability_is_monotone_and_bounded():
    q = flip_probability(torch.linspace(-100, 100, 2001))
    assert torch.isfinite(q).all()
    assert (q.diff() >= 0).all()
    assert float(q[0]) == 0
    assert float(q[-1]) == pytest.approx(0.5, abs=1e-6)


def test_predictive_variance_gives_the_rate_of_sign_changes():
    a, log_variance = torch.tensor(1.3), torch.tensor(0.8)
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    changed = ((a + torch.exp(0.5 * log_variance) * noise) > 0) != (a > 0)
    q = flip_map("predictive-variance", a, log_variance)
    assert float(q) == pytest.approx(float(changed.float().mean()), abs=0.005)


@given(st.sampled_from((-7.0, -0.1, 0.1, 7.0)), st.floats(-30, 30))
def test_the_evidence_of_one_view_gives_back_its_flip_probability(a, v):
    label, second = torch.tensor(a), torch.tensor(v)
    said = evidence("label-flip", label, second)
    assert abs(float(said)) <= 12
    assert bool(said >= 0) == (a > 0) or float(said) == 0
    q = float(flip_map(POOLED, label, said))
    assert q == pytest.approx(float(flip_probability(second)), abs=1e-5)


def test_views_that_contradict_each_other_leave_the_answer_open():
    sure = torch.full((), -6.0)
    yes, no = (evidence("label-flip", torch.tensor(a), sure) for a in (2.0, -2.0))
    split, agreed = ((one + yes) / 2 for one in (no, yes))
    a = torch.tensor(0.3)
    assert float(flip_map(POOLED, a, split)) == 0.5
    assert float(flip_map(POOLED, a, agreed)) < 0.05
    # the others outvoted: no answer is more often wrong than right
    assert float(flip_map(POOLED, a, no)) == 0.5


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
    assert summary.mean_q == pytest.approx(0.1)


def test_an_empty_structure_has_no_mean():
    summary = summarise(np.zeros((3, 3, 3), bool), np.zeros((3, 3, 3)))
    assert np.isnan(summary.mean_q)
    assert np.isnan(summary.expected_dice)


def test_the_error_of_a_size_is_that_of_correlated_flips():
    segment = np.zeros((4, 4, 4), bool)
    segment[:2] = True
    q = np.full((4, 4, 4), 0.2)
    summary = summarise(segment, q)
    assert summary.size == 32
    assert summary.flip_variance == pytest.approx(64 * 0.2 * 0.8)
    assert volume_sd(10.0) == pytest.approx((10 * 50 + 5**2) ** 0.5)
    assert summary.expected_size == pytest.approx(32 * 0.8 + 32 * 0.2)
    assert summary.expected_dice == pytest.approx(2 * 32 * 0.8 / (32 + 32))


def test_one_missed_voxel_makes_an_empty_structure_wrong():
    q = np.zeros((3, 3, 3))
    q[0, 0, 0] = 0.4
    summary = summarise(np.zeros((3, 3, 3), bool), q)
    assert summary.expected_dice == 0
    assert summary.expected_size == pytest.approx(0.4)


def test_the_forecast_of_a_flip_needs_no_label_logit():
    v = torch.tensor([-3.0, 0.0, 3.0])
    for a in (-50.0, 0.0, 50.0):
        torch.testing.assert_close(
            flip_map("label-flip", torch.full((3,), a), v), flip_probability(v)
        )


def test_a_variance_has_an_end():
    assert float(spread(torch.tensor(2.0))) == pytest.approx(np.e)
    assert float(spread(torch.tensor(1e9))) == pytest.approx(np.exp(10))
    assert float(spread(torch.tensor(-1e9))) == pytest.approx(np.exp(-10))


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


def test_a_logit_of_zero_is_a_no_for_every_view():
    label, second = torch.tensor([-1.0, 0.0, -0.0, 1.0]), torch.full((4,), -3.0)
    assert (evidence("label-flip", label, second) > 0).tolist() == [False, False, False, True]
