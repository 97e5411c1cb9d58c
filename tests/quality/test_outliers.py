"""Outliers of a cohort: how many good scans stand out, and whether bad ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hetseg_bids.quality.outliers import Measure, find_outliers, limit_of, robust_z

ROOT = Path(__file__).parents[2]


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import outliers

    return outliers


@pytest.mark.parametrize("people", [8, 11, 30, 300, 10_000])
@pytest.mark.parametrize("name", ["independent", "correlated", "heavy tails"])
def test_about_one_good_scan_in_twenty_stands_out_of_a_cohort_of_any_size(simulation, people, name):
    cohorts = max(1, min(60, 1200 // people))
    row = simulation.row_of(people, name, simulation.COHORTS[name], cohorts, degraded=0)
    assert 2 <= row["good"] <= 9
    if people <= 30 and name != "independent":
        assert row["good, former"] > 20  # what a fixed limit of 3.5 makes of it


@pytest.mark.parametrize(("people", "least"), [(8, 35), (11, 45), (30, 75), (300, 90)])
def test_degraded_scans_stand_out(simulation, people, least):
    draw = simulation.COHORTS["correlated"]
    row = simulation.row_of(people, "correlated", draw, 2 if people == 300 else 20, degraded=20)
    found = [row[title] for title in simulation.DEGRADED]
    assert np.mean(found) > least
    assert min(found) > least / 2


def test_the_measures_beyond_the_limit_are_named_worst_first():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(10, 40))
    values[:, 3] += 40
    values[4, 3] -= 20
    measures = [Measure(f"M{i}", column, "kind") for i, column in enumerate(values)]
    found = find_outliers(measures, [str(i) for i in range(40)])
    assert found[3].score == max(o.score for o in found) > 1
    assert len(found[3].why) == 3
    assert "M4" not in " ".join(found[3].why)
    sizes = [float(text.split("= ")[1].rstrip(")")) for text in found[3].why]
    assert sizes == sorted(sizes, reverse=True)


def test_only_the_suspicious_end_counts():
    values = np.array([0.8, 0.81, 0.82, 0.8, 0.79, 0.8, 0.81, 0.82, 0.99, 0.3])
    people = [str(i) for i in range(10)]
    high, low = find_outliers([Measure("Dice", values, "Dice", "low")], people)[-2:]
    assert high.why == ()
    assert high.score < 1 < low.score
    assert low.why[0].startswith("Dice (z = -")


def test_robust_z_is_that_of_median_and_mad_and_small_cohorts_have_none():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 100, np.nan])[:, None]
    people = [str(i) for i in range(9)]
    z = robust_z(values, ["kind"], people)
    known = values[:-1]
    mad = np.median(np.abs(known - np.median(known)))
    assert z[7, 0] == pytest.approx((100 - 4.5) / (1.4826 * mad))
    assert np.isnan(z[8, 0])
    assert np.isnan(robust_z(values[:7], ["kind"], people[:7])).all()
    assert np.isnan(robust_z(np.ones((20, 1)), ["kind"], [str(i) for i in range(20)])).all()


def test_spreads_that_are_small_by_chance_are_drawn_to_what_is_usual_for_their_kind():
    rng = np.random.default_rng(1)
    people = [str(i) for i in range(8)]
    alone, together = [], []
    for _ in range(30):
        values = rng.normal(size=(8, 24))
        alone.append(np.abs(robust_z(values, [str(i) for i in range(24)], people)).max())
        together.append(np.abs(robust_z(values, ["kind"] * 24, people)).max())
    assert np.mean(together) < 0.6 * np.mean(alone)


def test_repeated_scans_of_a_person_count_once():
    rng = np.random.default_rng(2)
    once = rng.normal(size=(12, 9))
    people, kinds = [str(i) for i in range(12)], ["kind"] * 9
    many = np.concatenate([once, np.repeat(once[:1], 30, axis=0)])
    z = robust_z(many, kinds, [*people, *["0"] * 30])
    np.testing.assert_allclose(z[:12], robust_z(once, kinds, people))
    measures = [Measure(str(i), column, "kind") for i, column in enumerate(many[:36].T)]
    seven = [str(i % 7) for i in range(36)]
    assert all(np.isnan(outlier.score) for outlier in find_outliers(measures, seven))


def test_a_fifth_of_bad_scans_does_not_move_the_limit_out_of_reach():
    rng = np.random.default_rng(3)
    good = np.abs(rng.normal(size=(80, 200))).max(axis=0)
    bad = np.full(38, 25.0)
    assert limit_of(np.concatenate([good[38:], bad])) < 2 * limit_of(good) < 25
