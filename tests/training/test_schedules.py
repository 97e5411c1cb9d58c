"""Learning rates."""

from __future__ import annotations

import pytest

from hetseg_bids.training.schedules import Schedule


def test_the_schedule_warms_up_and_anneals_to_zero():
    schedule = Schedule(peak=1.0, warmup=10)
    rates = [schedule.rate(step, 110) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=1e-3)
    assert rates[-1] < 1e-3
    assert rates[60] == pytest.approx(0.5)
    short = [Schedule(peak=1.0, warmup=400).rate(step, 100) for step in range(100)]
    assert max(short) == pytest.approx(1, abs=1e-3), "a run shorter than its warm-up"
    assert short[-1] < 1e-2
