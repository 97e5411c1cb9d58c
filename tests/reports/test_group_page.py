"""The page of a large cohort: its data, and how it opens, filters, scrolls and prints."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hetseg_bids.reports.group import Cohort, page_data, write_group_page
from hetseg_bids.structures.aseg import N_STRUCTURES, STRUCTURES
from support.browsing import Opened


def big_cohort(n: int) -> Cohort:
    rng = np.random.default_rng(0)
    stems = [f"sub-{i:05d}" for i in range(n)]
    quality = pd.DataFrame(
        {
            "participant_id": stems,
            "scan": stems,
            "verdict": rng.choice(["pass", "look", "fail"], n, p=[0.9, 0.08, 0.02]),
            "reasons": "n/a",
            "outlier_score": np.abs(rng.normal(0, 2, n)),
            "outlier_of": "Left putamen volume (z = +4.0)",
            "mean_expected_dice": rng.uniform(0.6, 0.9, n),
        }
    )
    quality["model"], quality["processing"] = "label-flip 1", "hetseg 1"
    people = pd.DataFrame(
        {"sex": rng.choice(["F", "M"], n), "age": rng.integers(18, 90, n).astype(str)}, index=stems
    )
    size = (n, N_STRUCTURES)
    return Cohort(
        [s.title for s in STRUCTURES],
        quality,
        [f"{s}.html" for s in stems],
        rng.lognormal(1, 0.2, size),
        rng.uniform(0.5, 1, size),
        rng.normal(0, 0.1, size),
        people,
        None,
        [],
        np.full((n, 3), np.nan),
        "",
        "the brain mask's",
    )


def test_page_data_is_in_order_of_concern():
    data = page_data(big_cohort(200))
    gravity = [("fail", "look", "pass").index(v) for v in data["verdict"]]
    assert gravity == sorted(gravity)
    failed = [s for s, v in zip(data["score"], data["verdict"], strict=True) if v == "fail"]
    assert failed == sorted(failed, reverse=True)
    assert set(data["columns"]) == {"sex"}
    assert set(data["ranges"]) == {"age"}


def test_the_band_of_a_plot_counts_each_person_once():
    cohort = big_cohort(20)
    cohort.quality["participant_id"] = ["sub-a"] * 15 + [f"sub-{i}" for i in range(5)]
    cohort.volume_ml[:15] = 5.0
    cohort.volume_ml[15:, 0] = [1.0, 2.0, 3.0, 4.0, 6.0]
    low, middle, high = page_data(cohort)["quartiles"]["Volume, ml"][0]
    assert (low, middle, high) == (2.25, 3.5, 4.75)


@pytest.mark.browser
@pytest.mark.slow
def test_ten_thousand_scans_open_filter_and_scroll(chromium, tmp_path):
    page = write_group_page(tmp_path, big_cohort(10_000), None)
    opened = Opened(chromium, page)
    tab = opened.page
    tab.wait_for_function("document.body.dataset.ready")
    assert 0.1 < opened.busy_seconds() < 3
    assert tab.inner_text("#shown") == "10000 of 10000 scans"
    assert tab.locator("#ranking tbody tr").count() == 100
    tab.click("#more")
    assert tab.locator("#ranking tbody tr").count() == 200
    tab.select_option("#verdict-filter", "fail")
    tab.select_option("[data-column=sex]", "=F")
    tab.fill("[data-range=age][data-end=from]", "60")
    data = page_data(big_cohort(10_000))
    expected = sum(
        v == "fail" and s == "F" and a >= 60
        for v, s, a in zip(
            data["verdict"], data["columns"]["sex"], data["ranges"]["age"], strict=True
        )
    )
    assert expected > 10
    assert tab.inner_text("#shown") == f"{expected} of 10000 scans"
    assert tab.locator("#ranking tbody td.level").all_inner_texts() == ["fail"] * expected
    tab.select_option("#verdict-filter", "")
    tab.locator("#plots").scroll_into_view_if_needed()
    tab.wait_for_selector("#plots canvas[data-drawn=yes]")
    scroll = """async (step) => {
            let slowest = 0, last = performance.now();
            for (let i = 0; i < 40; i++) {
                window.scrollBy(0, step);
                await new Promise(requestAnimationFrame);
                slowest = Math.max(slowest, performance.now() - last);
                last = performance.now();
            }
            return slowest;
        }"""
    # down, up and down again: what is slow every time is the page, not another program
    slowest = min(tab.evaluate(scroll, step) for step in (60, -60, 60))
    opened.keep_picture("group-10000")
    assert slowest < 500  # ms; a machine without a GPU paints in software
    assert opened.complaints == []
    assert len(opened.requests) == 1 + sum(u.startswith("data:") for u in opened.requests)


@pytest.mark.browser
@pytest.mark.slow
def test_a_printed_page_has_all_distributions(chromium, tmp_path):
    tab = Opened(chromium, write_group_page(tmp_path, big_cohort(200), None)).page
    tab.wait_for_function("document.body.dataset.ready")
    drawn = tab.locator("#plots canvas[data-drawn=yes]")
    assert drawn.count() < len(STRUCTURES)
    tab.pdf(path=tmp_path / "group.pdf")
    assert drawn.count() == len(STRUCTURES)
    inked = """canvases => canvases.filter(c => c.width > 100 &&
        c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some(v => v > 0)).length"""
    assert tab.locator("#plots canvas").evaluate_all(inked) == len(STRUCTURES)
