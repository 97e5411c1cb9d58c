"""Group level: tables, outliers, the cohort's map and the page."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from browsing import HOSTILE, HOSTILE_NAME, Opened, Tags
from conftest import run_cli, small_brain, write_dataset, write_results

from hetseg_bids.alignment import CENTROIDS, template_affine
from hetseg_bids.cohort import cohort_map, load_template
from hetseg_bids.outliers import Measure, find_outliers, robust_z
from hetseg_bids.reports.group import Cohort, page_data, write_group_page
from hetseg_bids.structures import N_STRUCTURES, STRUCTURES

N = 10
SUBJECTS = [f"sub-{n:02d}" for n in range(N)]
SUBJECTS[4] = f"sub-{HOSTILE_NAME}"


def one_brain(number: int) -> np.ndarray:
    """A phantom whose right putamen differs a little from person to person."""
    labels = small_brain()
    places = np.argwhere(labels == 51)
    for place in places[: 3 * number]:
        labels[tuple(place)] = 41
    return labels


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> tuple[Path, Path]:
    """Ten scans, the last one with most of its left putamen lost; and one that never finished."""
    root = tmp_path_factory.mktemp("cohort")
    bids, out = write_dataset(root / "bids"), root / "out"
    for number in range(N):
        labels = one_brain(number)
        if number == N - 1:
            places = np.argwhere(labels == 12)
            labels[tuple(places[len(places) // 6 :].T)] = 2
        write_results(out, SUBJECTS[number], labels)
        (bids / SUBJECTS[number]).mkdir()
    (bids / "sub-lost").mkdir()
    people = [f"{SUBJECTS[n]}\t{20 + n}\t{'FM'[n % 2]}\t{n % 3}{HOSTILE}" for n in range(N)]
    header = f"participant_id\tage\tsex\tnote{HOSTILE}"
    (bids / "participants.tsv").write_text("\n".join([header, *people[:-1]]) + "\n")
    broken, _ = write_results(out, "sub-broken", small_brain())
    broken.morph.write_text("nonsense")
    (out / "logs").mkdir()
    (out / "logs" / f"crash-sub-{HOSTILE.replace('/', '')}.txt").write_text("it failed")
    done = run_cli("hetseg", bids, out, "group")
    assert done.code == 0, done.err
    assert done.out.strip() == str(out / "group.html")
    assert "sub-broken" in done.err
    return bids, out


def test_tables_hold_every_finished_scan_with_a_data_dictionary(cohort):
    _, out = cohort
    for name, rows in (("group_morph", N * N_STRUCTURES), ("group_qc", N)):
        table = pd.read_csv(out / f"{name}.tsv", sep="\t")
        assert len(table) == rows
        dictionary = json.loads((out / f"{name}.json").read_text())
        assert list(dictionary) == list(table.columns)


def test_the_odd_scan_comes_first_and_says_why(cohort):
    _, out = cohort
    table = pd.read_csv(out / "group_qc.tsv", sep="\t").set_index("scan")
    assert table["outlier_score"].idxmax() == f"sub-{N - 1:02d}"
    assert "utamen" in table.loc[f"sub-{N - 1:02d}", "outlier_of"]
    brain = small_brain()
    assert table.loc["sub-00", "brain_mask_ml"] == pytest.approx((brain > 0).sum() * 8 / 1000)


def test_the_page_names_who_is_missing_and_escapes_everything(cohort):
    _, out = cohort
    text = (out / "group.html").read_text()
    assert "sub-lost" in text
    tags = Tags(text).found
    assert not any(name.startswith("on") for _, a in tags for name in a)
    assert len([t for t, _ in tags if t == "script"]) == 2
    for tag, attributes in tags:
        for name in ("src", "href"):
            link = attributes.get(name) or ""
            assert link == "" or link.startswith(("data:", "#")), (tag, link[:80])


def test_the_group_level_can_run_again_and_needs_a_finished_scan(cohort, tmp_path):
    bids, out = cohort
    before = {p.name: p.read_bytes() for p in out.glob("group*")}
    assert run_cli("hetseg", bids, out, "group").code == 0
    assert {p.name: p.read_bytes() for p in out.glob("group*")} == before
    done = run_cli("hetseg", bids, tmp_path, "group")
    assert done.code == 2
    assert "no finished scans" in done.err


def test_a_table_of_an_older_version_is_left_out_and_said_how_to_make_again(tmp_path):
    paths, _ = write_results(tmp_path / "out", "sub-01", small_brain())
    table = pd.read_csv(paths.morph, sep="\t", dtype=str, keep_default_na=False)
    table.drop(columns="volume_repeat_sd_mm3").to_csv(paths.morph, sep="\t", index=False)
    done = run_cli("hetseg", write_dataset(tmp_path / "bids"), tmp_path / "out", "group")
    assert done.code == 2
    assert "no column volume_repeat_sd_mm3" in done.err
    assert "run the participant level again" in done.err


def test_robust_z_ignores_the_outlier_itself_and_small_cohorts():
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 100, np.nan])
    z = robust_z(values)
    known = values[:-1]
    mad = np.median(np.abs(known - np.median(known)))
    assert z[7] == pytest.approx((100 - 4.5) / (1.4826 * mad))
    assert np.isnan(z[8])
    assert np.isnan(robust_z(values[:5])).all()
    assert np.isnan(robust_z(np.ones(20))).all()


def test_only_low_dice_is_suspicious():
    values = np.array([0.8, 0.81, 0.82, 0.8, 0.79, 0.8, 0.81, 0.82, 0.99, 0.3])
    high, low = find_outliers([Measure("Dice", values, "low")])[-2:]
    assert high.why == ()
    assert low.why[0].startswith("Dice (z = -")


def test_the_affine_of_moved_centroids_is_the_inverse_of_the_move():
    table = pd.read_csv(CENTROIDS, sep="\t").set_index("name")
    move = np.array([[0.9, 0.1, 0, 5], [-0.1, 1.1, 0.05, -20], [0, 0, 1.2, 8], [0, 0, 0, 1]])
    found = {
        n: (move @ [*row, 1])[:3] for n, row in zip(table.index, table.to_numpy(), strict=True)
    }
    np.testing.assert_allclose(template_affine(found) @ move, np.eye(4), atol=1e-9)
    assert template_affine(dict(list(found.items())[:5])) is None


def test_the_map_puts_a_moved_head_where_the_template_is(tmp_path):
    table = pd.read_csv(CENTROIDS, sep="\t").set_index("name")
    move = np.array([[0.9, 0.1, 0, 5], [-0.1, 0.95, 0.05, -4], [0, 0, 0.9, 8], [0, 0, 0, 1]])
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -100
    labels = np.zeros((101, 101, 101), np.uint8)
    for structure in STRUCTURES:  # a cube of 6 mm at each centroid, in the moved head
        place = np.linalg.inv(affine) @ move @ [*table.loc[structure.name], 1]
        i, j, k = np.rint(place[:3]).astype(int)
        labels[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = structure.label
    flip = np.zeros((*labels.shape, N_STRUCTURES), np.float32)
    flip[labels == 10] = 0.4
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "dseg.nii.gz")
    nib.save(nib.Nifti1Image(flip, affine), tmp_path / "flip.nii.gz")
    template = load_template()
    (tmp_path / "bad.nii.gz").write_text("not an image")
    scans = [(tmp_path / "dseg.nii.gz", tmp_path / "flip.nii.gz")] * 3
    scans.append((tmp_path / "dseg.nii.gz", tmp_path / "bad.nii.gz"))
    made = cohort_map(scans, template, STRUCTURES)
    assert made.count == 3
    assert float(made.sd.max()) < 1e-5
    weight = made.mean / made.mean.sum()
    middle = [float((weight * g).sum()) for g in np.indices(weight.shape)]
    found = template.grid.affine @ [*middle, 1]
    np.testing.assert_allclose(found[:3], table.loc["left_thalamus"], atol=3)


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
        [],
        [],
    )


def test_page_data_is_in_order_of_concern():
    data = page_data(big_cohort(200))
    gravity = [("fail", "look", "pass").index(v) for v in data["verdict"]]
    assert gravity == sorted(gravity)
    failed = [s for s, v in zip(data["score"], data["verdict"], strict=True) if v == "fail"]
    assert failed == sorted(failed, reverse=True)
    assert set(data["columns"]) == {"sex"}
    assert set(data["ranges"]) == {"age"}


@pytest.mark.browser
@pytest.mark.slow
def test_ten_thousand_scans_open_filter_and_scroll(chromium, tmp_path):
    page = write_group_page(tmp_path, big_cohort(10_000), None)
    began = time.monotonic()
    opened = Opened(chromium, page)
    tab = opened.page
    tab.wait_for_function("document.body.dataset.ready")
    assert time.monotonic() - began < 3
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
    slowest = tab.evaluate(
        """async () => {
            let slowest = 0, last = performance.now();
            for (let i = 0; i < 40; i++) {
                window.scrollBy(0, 60);
                await new Promise(requestAnimationFrame);
                slowest = Math.max(slowest, performance.now() - last);
                last = performance.now();
            }
            return slowest;
        }"""
    )
    opened.keep_picture("group-10000")
    assert slowest < 500  # ms; a machine without a GPU paints in software
    assert opened.complaints == []
    assert len(opened.requests) == 1 + sum(u.startswith("data:") for u in opened.requests)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_small_cohort_links_its_pages_and_runs_nothing(chromium, cohort, scheme):
    _, out = cohort
    opened = Opened(chromium, out / "group.html", color_scheme=scheme)
    tab = opened.page
    tab.wait_for_function("document.body.dataset.ready")
    assert tab.evaluate("window.hacked") is None
    links = tab.locator("#ranking a").evaluate_all(
        "links => links.map(l => l.getAttribute('href'))"
    )
    assert sorted(unquote(link) for link in links) == sorted(f"./{s}.html" for s in SUBJECTS)
    column = tab.locator("#column-filters select").last
    assert HOSTILE in column.get_attribute("data-column")
    column.select_option(f"=1{HOSTILE}")
    assert tab.inner_text("#shown") == f"3 of {N} scans"
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("#map img").count() == 6
    opened.keep_picture(f"group-{scheme}")
    assert opened.complaints == []
    assert len(STRUCTURES) == tab.locator("#plots canvas").count()
