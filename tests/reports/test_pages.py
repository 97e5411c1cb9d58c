"""The participant page: what it holds, that nothing escapes, and how it works in Chromium."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from hetseg_bids.reports.participant import write_report
from support.browsing import HOSTILE, HOSTILE_NAME, Opened, Tags, brightness, drawn
from support.phantoms import phantom_t1w, small_brain
from support.results import write_results


def make_page(
    out: Path, hostile: str = "", *, flip: bool = True, icv_mm3: float | None = None
) -> Path:
    """Derivatives of a phantom scan as a run writes them, and their page."""
    stem = f"sub-{HOSTILE_NAME}" if hostile else "sub-01"
    results = {"hostile": hostile, "flip": flip, "icv_mm3": icv_mm3}
    paths, source = write_results(out, stem, small_brain(), **results)
    return write_report(paths, source, {"Command line": f"hetseg {hostile}"})


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return make_page(tmp_path_factory.mktemp("page"))


def test_the_page_says_what_a_rater_needs(page):
    text = page.read_text()
    assert "not found:" in text  # the phantom lacks structures
    assert "Left putamen: outlines and flip probability" in text
    assert "McKinley R" in text
    assert "deepbet" in text
    assert len(re.findall("data:image/jpeg", text)) >= 9
    assert page.stat().st_size < 8e6


def test_the_page_needs_no_other_file(page):
    for tag, attributes in Tags(page.read_text()).found:
        for name in ("src", "href"):
            link = attributes.get(name) or ""
            assert link == "" or link.startswith(("data:", "#")), (tag, link[:80])


def test_a_page_without_flip_map_says_so(tmp_path):
    text = make_page(tmp_path, flip=False).read_text()
    assert "no flip map" in text
    assert "viewer-flip" not in {a.get("id") for _, a in Tags(text).found}
    assert "scale" not in {a.get("class") for _, a in Tags(text).found}


def test_nothing_from_files_becomes_markup(tmp_path, page):
    hostile = Tags(make_page(tmp_path, HOSTILE).read_text()).found
    plain = Tags(page.read_text()).found
    scripts = [[a for t, a in tags if t == "script"] for tags in (plain, hostile)]
    assert scripts[0] == scripts[1]
    assert not any(name.startswith("on") for _, a in hostile for name in a)
    assert {t for t, _ in hostile} <= {t for t, _ in plain} | {"dt", "dd", "li", "ul"}


def shifted_with_a_spike(t1w: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Brain values from 3000 upwards, zero around it, and one absurd voxel."""
    t1w = np.where(brain, t1w + 3000, 0)
    t1w[3, 3, 3] = -1e6
    return t1w


def with_bright_scalp(t1w: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Fat ten times as bright as white matter all around the brain."""
    return np.where(brain, t1w, 10_000)


def with_pale_cortex_as_bytes(t1w: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """White matter 150, cortex 120, fluid 35: a third of the contrast, in few levels."""
    steps = np.interp(t1w, (0, 280, 650, 1000), (0, 35, 120, 150))
    return np.where(brain, steps, 0).astype(np.uint8)


@pytest.mark.parametrize(
    "change", [shifted_with_a_spike, with_bright_scalp, with_pale_cortex_as_bytes]
)
def test_the_brain_alone_decides_what_is_black_and_white(tmp_path, change):
    brain = np.pad(small_brain(), 20)  # a wide field of view: empty space has no say
    paths, source = write_results(tmp_path, "sub-01", brain, flip=False)
    image = change(phantom_t1w(brain), brain > 0)
    nib.save(nib.Nifti1Image(image, nib.load(source).affine), source)
    text = write_report(paths, source).read_text()
    cortex, white = (brightness(text, f"cerebral_{t}") for t in ("cortex", "white_matter"))
    assert white - cortex >= 0.3
    assert cortex >= 0.2  # no tissue is lost in black
    assert white <= 0.95  # nor in white
    mosaic = drawn(text, 1)  # after the picture beside the verdict
    rows, columns = (n // 2 for n in (mosaic.shape[0], mosaic.shape[1] / 7))
    middle = mosaic[rows - 20 : rows + 20, int(columns * 7) - 20 : int(columns * 7) + 20]
    assert 100 < np.median(middle) < 250  # the mosaics have the viewer's window


def test_the_flip_maps_have_a_colour_bar_in_words_and_colours(page):
    text = page.read_text()
    bars = re.findall('<figure class="scale">.*?</figure>', text, re.DOTALL)
    assert len(bars) == 2  # of the mosaics and of the enlargements
    assert "Probability that the label is wrong" in bars[0]
    assert re.findall("<span>([^<]*)</span>", bars[0]) == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    colors = drawn(bars[0])[5]
    assert np.ptp(colors[:10]) < 5  # clear: nothing is drawn there
    assert (np.diff(colors[20::20]) > 0).all()  # brighter from left to right, in print, too


def test_the_table_has_the_noise_of_repeated_scans_where_it_was_measured(tmp_path):
    paths, source = write_results(tmp_path, "sub-01", small_brain(), flip=False)
    table = pd.read_csv(paths.morph, sep="\t", keep_default_na=False)
    table["volume_repeat_sd_mm3"] = ["n/a", *range(1234, 1233 + len(table))]
    table.to_csv(paths.morph, sep="\t", index=False)
    text = write_report(paths, source).read_text()
    heads = re.findall('<th scope="col"><button type="button">([^<]*)<', text)
    first, second = re.findall(r"<tr><td data-value=.*?</tr>", text, re.DOTALL)[:2]
    cells = [re.findall("<td[^>]*>([^<]*)</td>", row) for row in (first, second)]
    place = heads.index("Repeat SD, mm³") - len(heads)
    assert [row[place] for row in cells] == ["n/a", "1,234"]


def cells_of(text: str) -> dict[str, dict[str, str]]:
    """The page's table: by structure, the text of each column."""
    heads = re.findall('<th scope="col"><button type="button">([^<]*)<', text)
    rows = re.findall('<tr><td data-value="([^"]*)">(.*?)</tr>', text, re.DOTALL)
    cells = {title: re.findall("<td[^>]*>([^<]*)</td>", row) for title, row in rows}
    return {title: dict(zip(heads[1:], values, strict=True)) for title, values in cells.items()}


def test_asymmetry_stands_once_for_both_sides(page):
    column = "Asymmetry (L \N{MINUS SIGN} R) / mean"
    shown = {title: row[column] for title, row in cells_of(page.read_text()).items()}
    assert float(shown["Left putamen"]) > 0.3  # the phantom's left one is the larger
    assert {v for title, v in shown.items() if title.startswith("Right")} == {""}
    assert shown["Brainstem"] == "n/a"
    assert "-0.00" not in shown.values()


def test_the_top_of_the_page_tells_the_result_at_a_glance(page, tmp_path):
    text = page.read_text()
    glance = re.search('<section class="verdict glance.*?</section>', text, re.DOTALL)[0]
    assert text.index(glance) < text.index("<nav")
    assert "<strong>fail</strong>" in glance  # in words, not by colour alone
    volumes = [row["Volume, mm³"].replace(",", "") for row in cells_of(text).values()]
    total = sum(map(float, volumes)) / 1000
    assert f"<b>{total:,.0f} ml</b>" in glance
    worst = re.findall('<th scope="row">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td>', glance)
    assert len(worst) == 3
    assert worst[0][0] == "Left putamen"  # its flip probability is 0.4, the others' 0.1
    assert worst[0][2] == "0.40"
    assert [float(dice) for _, dice, _ in worst] == sorted(float(dice) for _, dice, _ in worst)
    picture = drawn(glance)
    assert picture.shape[1] == 2 * picture.shape[0]  # an axial and a coronal slice
    line = "<p>Intracranial volume: <b>{}</b> <small>({}"
    assert line.format("n/a", "results of an earlier version)") in glance
    without = make_page(tmp_path, flip=False, icv_mm3=1.5e6).read_text()
    assert line.format("1,500 ml", "95 % interval of a reference: 1,4") in without
    assert "look at the outlines" in without
    assert "Least certain</th>" not in without


def test_outlines_have_a_legend_and_a_side(page):
    text = page.read_text()
    legend = re.search('<ul class="legend".*?</ul>', text, re.DOTALL)[0]
    entries = dict(re.findall('background: (rgb[^"]*)"></span>([^<]*)</li>', legend))
    names = [name for _, name in re.findall('background: (rgb[^"]*)"></span>([^<]*)</li>', legend)]
    assert len(names) == len(set(names)) == 16  # sides share a colour
    assert entries["rgb(0, 118, 14)"] == "Thalamus"
    axial, _, sagittal = (drawn(text, number) for number in (1, 2, 3))
    corners = [mosaic[2:16, 3:14] for mosaic in (axial, sagittal)]
    assert corners[0].max() > 200  # R, on black
    assert corners[1].max() < 100


@pytest.mark.browser
@pytest.mark.slow
def test_viewer_sorting_and_rating_work_from_disk(chromium, page, tmp_path):
    opened = Opened(chromium, page)
    tab = opened.page
    # sorting: by expected Dice, upwards, then downwards; empty cells stay last
    header = tab.locator("th button", has_text="Expected Dice")
    for order in (1, -1):
        header.click()
        cells = tab.locator("#structures tbody tr td:last-child").evaluate_all(
            "cells => cells.map(c => c.dataset.value)"
        )
        numbers = [float(c) for c in cells if c]
        assert len(numbers) > 10
        assert numbers == sorted(numbers, reverse=order < 0)
        assert all(c == "" for c in cells[len(numbers) :])
    # rating: refused without a choice, then exported as JSON and TSV
    tab.click("#save-json")
    assert tab.evaluate("document.getElementById('rating').checkValidity()") is False
    tab.check("input[value=usable]")
    tab.fill("#comment", "=1+1\tweak")
    tab.select_option("#wrong", ["Left putamen", "Brainstem"])
    saved = {}
    for kind in ("json", "tsv"):
        with tab.expect_download() as download:
            tab.click(f"#save-{kind}")
        assert download.value.suggested_filename == f"sub-01_rating.{kind}"
        download.value.save_as(tmp_path / kind)
        saved[kind] = (tmp_path / kind).read_text()
    judgement = json.loads(saved["json"])
    assert judgement["rating"] == "usable"
    assert judgement["structures"] == ["Left putamen", "Brainstem"]
    header_row, row = (line.split("\t") for line in saved["tsv"].splitlines())
    assert dict(zip(header_row, row, strict=True))["comment"] == "'=1+1 weak"
    # viewer
    tab.click("#viewer-start")
    tab.wait_for_function("document.body.dataset.viewer", timeout=120_000)
    assert tab.evaluate("document.body.dataset.viewer") == "ready"
    tab.focus("#viewer")
    tab.keyboard.press("ArrowUp")
    tab.wait_for_function("document.getElementById('viewer-place').textContent.includes('mm')")
    picture = tmp_path / "viewer.png"
    tab.locator("#viewer").screenshot(path=picture)
    from matplotlib.image import imread

    opened.keep_picture("participant")
    pixels = imread(picture)[..., :3]
    assert (pixels.max(axis=2) > 0.2).mean() > 0.05
    assert pixels.shape[0] > 300
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_prints_and_works_by_keyboard(chromium, page, tmp_path):
    opened = Opened(chromium, page, color_scheme="dark")
    tab = opened.page
    reached = []
    for _ in range(30):  # the sections' links, the viewer, its sliders, the headers of the table
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"viewer-start", "viewer", "opacity-dseg", "BUTTON"} <= set(reached)
    tab.locator("th button").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("th[aria-sort=ascending]").count() == 1
    opened.keep_picture("participant-dark")
    tab.emulate_media(media="print")
    assert not tab.is_visible("#viewer")
    assert not tab.is_visible("#rating")
    assert tab.is_visible("#structures table")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    tab.set_viewport_size({"width": 700, "height": 1000})  # A4 less its margins, at 96 dpi
    assert tab.evaluate(wide) <= 0
    printed = tmp_path / "page.pdf"
    tab.pdf(path=printed, format="A4")
    assert printed.read_bytes().startswith(b"%PDF")
    assert 2 <= printed.read_bytes().count(b"/Type /Page\n") <= 8


@pytest.mark.browser
@pytest.mark.slow
def test_hostile_text_runs_nothing(chromium, tmp_path):
    opened = Opened(chromium, make_page(tmp_path, HOSTILE))
    assert opened.page.evaluate("window.hacked") is None
    assert opened.complaints == []
