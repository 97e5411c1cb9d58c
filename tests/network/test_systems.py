"""What the second output of each system means, and the focal loss behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hetseg_bids.config import SYSTEM_NAMES
from hetseg_bids.network.flip import flip_probability, focal_of_probability, trained_flip
from hetseg_bids.network.systems import (
    LabelFlip,
    Plain,
    PooledEnsemble,
    PredictiveVariance,
    spread,
    system_named,
)


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
    q = PredictiveVariance().flip_probability(a, v)
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
    q = PredictiveVariance().flip_probability(a, log_variance)
    assert float(q) == pytest.approx(float(changed.float().mean()), abs=0.005)


@given(st.sampled_from((-7.0, -0.1, 0.1, 7.0)), st.floats(-30, 30))
def test_the_evidence_of_one_view_gives_back_its_flip_probability(a, v):
    label, second = torch.tensor(a), torch.tensor(v)
    said = LabelFlip().evidence(label, second)
    assert abs(float(said)) <= 12
    assert bool(said >= 0) == (a > 0) or float(said) == 0
    q = float(PooledEnsemble().flip_probability(label, said))
    assert q == pytest.approx(float(flip_probability(second)), abs=1e-5)


def test_views_that_contradict_each_other_leave_the_answer_open():
    sure = torch.full((), -6.0)
    yes, no = (LabelFlip().evidence(torch.tensor(a), sure) for a in (2.0, -2.0))
    split, agreed = ((one + yes) / 2 for one in (no, yes))
    a = torch.tensor(0.3)
    assert float(PooledEnsemble().flip_probability(a, split)) == 0.5
    assert float(PooledEnsemble().flip_probability(a, agreed)) < 0.05
    # the others outvoted: no answer is more often wrong than right
    assert float(PooledEnsemble().flip_probability(a, no)) == 0.5


@given(st.sampled_from((-3.0, -0.1, 0.1, 3.0)), st.floats(-8, 8), st.floats(0, 2))
def test_a_pooled_answer_is_surer_by_its_constant_log_odds(a, said, answer):
    label, second = torch.tensor(a), torch.tensor(said)
    q = float(PooledEnsemble(answer).flip_probability(label, second))
    right = (said if a > 0 else -said) + answer
    assert q == pytest.approx(min(0.5, 1 / (1 + np.exp(right))), abs=1e-6)
    raised = PooledEnsemble(answer).raised(label, second, torch.tensor(0.3))
    found = float(PooledEnsemble(answer).flip_probability(label, raised))
    assert found == pytest.approx(max(q, 0.3), abs=1e-5)


def test_the_forecast_of_a_flip_needs_no_label_logit():
    v = torch.tensor([-3.0, 0.0, 3.0])
    for a in (-50.0, 0.0, 50.0):
        torch.testing.assert_close(
            LabelFlip().flip_probability(torch.full((3,), a), v), flip_probability(v)
        )


def test_a_variance_has_an_end():
    assert float(spread(torch.tensor(2.0))) == pytest.approx(np.e)
    assert float(spread(torch.tensor(1e9))) == pytest.approx(np.exp(10))
    assert float(spread(torch.tensor(-1e9))) == pytest.approx(np.exp(-10))


def test_a_logit_of_zero_is_a_no_for_every_view():
    label, second = torch.tensor([-1.0, 0.0, -0.0, 1.0]), torch.full((4,), -3.0)
    assert (LabelFlip().evidence(label, second) > 0).tolist() == [False, False, False, True]


@pytest.mark.parametrize("a", [-3.0, 0.4])
def test_every_system_has_evidence_whose_flip_probability_is_its_own(a):
    label, second = torch.tensor(a), torch.tensor(-1.5)
    for system in (PredictiveVariance(), LabelFlip(), PooledEnsemble()):
        said = PooledEnsemble().flip_probability(label, system.evidence(label, second))
        assert float(said) == pytest.approx(float(system.flip_probability(label, second)), abs=1e-5)


def test_outputs_per_system():
    assert Plain().n_outputs(31) == 31
    assert LabelFlip().n_outputs(31) == PredictiveVariance().n_outputs(31) == 62
    assert [s.heteroscedastic for s in (Plain(), LabelFlip())] == [False, True]


def test_a_system_by_its_name():
    assert [system_named(name).name for name in SYSTEM_NAMES] == list(SYSTEM_NAMES)
    assert system_named("plain") == Plain()
    flip = system_named("label-flip", detach_q=False)
    assert isinstance(flip, LabelFlip)
    assert not flip.detach_q
    variance = system_named("predictive-variance", monte_carlo=3)
    assert isinstance(variance, PredictiveVariance)
    assert variance.samples == 3
    with pytest.raises(
        ValueError,
        match=r"^unknown system 'nonsense'; choose one of plain, predictive-variance, label-flip$",
    ):
        system_named("nonsense")


def test_systems_are_equal_where_their_outputs_mean_the_same():
    assert LabelFlip(detach_q=False) == LabelFlip()
    assert LabelFlip() != PredictiveVariance()
    assert PredictiveVariance(samples=3) == PredictiveVariance()


def test_evidence_of_bfloat16_is_that_of_its_values():
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    every = bits.view(torch.bfloat16)
    second = every[every.isfinite()]
    label = torch.where(torch.arange(len(second)) % 2 == 0, 1.5, -1.5).to(torch.bfloat16)
    for system in (LabelFlip(), PredictiveVariance()):
        found = system.evidence(label, second)
        torch.testing.assert_close(found, system.evidence(label.float(), second.float()))
        assert found.dtype == torch.float32


def test_what_is_known_of_a_structure_changes_its_q_alone():
    label, second = torch.tensor([[2.0, -2.0]] * 3), torch.tensor([[1.0, -1.5]] * 3)
    alike = PooledEnsemble(0.4).flip_probability(label, second)
    system = PooledEnsemble(0.4, (0.0, -0.5, 1.0))
    found = system.flip_probability(label, second)
    torch.testing.assert_close(found[0], alike[0])
    assert (found[1] > alike[1]).all()  # also of the answer no
    torch.testing.assert_close(found[2], PooledEnsemble(1.4).flip_probability(label, second)[2])
    torch.testing.assert_close(
        system.of_rows(slice(1, 3)).flip_probability(label[1:], second[1:]), found[1:]
    )
    raised = system.of_rows(slice(1, 2)).raised(label[1], second[1], torch.tensor([0.3, 0.01]))
    q = system.of_rows(slice(1, 2)).flip_probability(label[1], raised)
    torch.testing.assert_close(q, torch.tensor([0.3, float(found[1, 1])]))
