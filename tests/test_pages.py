"""The participant page: what it holds, that nothing escapes, and how it works in Chromium."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import centred_affine, phantom_labels, phantom_t1w

from hetseg_bids.config import Settings
from hetseg_bids.derivatives import (
    OutputPaths,
    Provenance,
    write_images,
    write_sidecars,
    write_tables,
)
from hetseg_bids.images import Grid
from hetseg_bids.morphometry import measure
from hetseg_bids.reports.participant import write_report
from hetseg_bids.segmentation import Segmentation
from hetseg_bids.structures import N_STRUCTURES, STRUCTURES

HOSTILE = "\"'><script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
CHROMIUM = shutil.which("chromium")


def make_page(out: Path, hostile: str = "", *, flip: bool = True) -> Path:
    """Derivatives of a phantom scan as a run writes them, and their page."""
    labels = phantom_labels()
    affine = centred_affine(labels.shape)
    source = out / "sub-01_T1w.nii.gz"
    source.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(phantom_t1w(labels), affine), source)
    brain = (labels > 0) & (labels != 211) & (labels != 24)
    dseg = np.where(brain, labels, 0).astype(np.uint8)
    q = np.zeros((N_STRUCTURES, *labels.shape), np.float32)
    for i, structure in enumerate(STRUCTURES):
        q[i][dseg == structure.label] = 0.4 if structure.name == "left_putamen" else 0.1
    whole = tuple(slice(0, n) for n in labels.shape)
    result = Segmentation(Grid(labels.shape, affine), whole, dseg, q if flip else None, None)
    paths = OutputPaths(out / "sub-01" / "anat", "sub-01", "", out / "sub-01.html")
    provenance = Provenance(
        source=f"bids::sub-01/{hostile}",
        source_sha256="0" * 64 + hostile,
        mask_sha256=hostile or None,
        model=f"label-flip{hostile}",
        model_sha256="1" * 64,
        settings=Settings(model=hostile or "label-flip"),
        extraction="deepbet",
        warnings=(f"something {hostile}",) if hostile else (),
    )
    write_images(paths, result, brain.astype(np.uint8))
    write_tables(paths, measure(result))
    write_sidecars(paths, provenance, flip=flip)
    return write_report(paths, source, {"Command line": f"hetseg {hostile}"})


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return make_page(tmp_path_factory.mktemp("page"))


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


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


def test_nothing_from_files_becomes_markup(tmp_path, page):
    hostile = Tags(make_page(tmp_path, HOSTILE).read_text()).found
    plain = Tags(page.read_text()).found
    scripts = [[a for t, a in tags if t == "script"] for tags in (plain, hostile)]
    assert scripts[0] == scripts[1]
    assert not any(name.startswith("on") for _, a in hostile for name in a)
    assert {t for t, _ in hostile} <= {t for t, _ in plain} | {"dt", "dd", "li", "ul"}


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("chromium isn't installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


class Opened:
    """A page in the browser that notes complaints and requests."""

    def __init__(self, chromium, path: Path) -> None:
        self.page = chromium.new_page(viewport={"width": 1280, "height": 900})
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on(
            "console",
            lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


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

    pixels = imread(picture)[..., :3]
    assert (pixels.max(axis=2) > 0.2).mean() > 0.05
    assert pixels.shape[0] > 300
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1


@pytest.mark.browser
@pytest.mark.slow
def test_hostile_text_runs_nothing(chromium, tmp_path):
    opened = Opened(chromium, make_page(tmp_path, HOSTILE))
    assert opened.page.evaluate("window.hacked") is None
    assert opened.complaints == []
