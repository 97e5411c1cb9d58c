"""The pictures of README.md: both pages, as Chromium shows them.

    hetseg demo DEMO && python docs/make_pictures.py DEMO

The group page shows a simulated cohort of 300 (random numbers with a few odd ones out).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import Browser, sync_playwright

from hetseg_bids.reports.group import Cohort, write_group_page
from hetseg_bids.runs.missing import COLUMNS
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES

PICTURES = Path(__file__).with_name("pictures")
WIDTH = 1200  # pixels


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        group = write_group_page(Path(folder), simulated_cohort(300), None)
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        take(browser, args.demo / "derivatives" / "sub-mni152.html", "participant", 1450)
        take(browser, group, "group", 900)
        browser.close()


def take(browser: Browser, page: Path, name: str, height: int) -> None:
    """Photograph the top of a page."""
    tab = browser.new_page(viewport={"width": WIDTH, "height": height})
    tab.goto(page.resolve().as_uri())
    tab.wait_for_timeout(500)
    tab.screenshot(path=PICTURES / f"{name}.jpg", type="jpeg", quality=80)


def simulated_cohort(count: int) -> Cohort:
    """Random scans; every fortieth is odd."""
    rng = np.random.default_rng(1)
    stems = [f"sub-{i + 1:03d}" for i in range(count)]
    odd = np.arange(count) % 40 == 7
    size = rng.lognormal(0, 0.1, (count, 1))
    volume = size * rng.lognormal(1, 0.08, (count, N_STRUCTURES))
    volume[odd, 12] *= 2
    dice = np.clip(rng.normal(0.84, 0.03, (count, N_STRUCTURES)), 0, 1)
    dice[odd] -= 0.2
    quality = pd.DataFrame(
        {
            "participant_id": stems,
            "scan": stems,
            "verdict": np.where(odd, "look", "pass"),
            "reasons": np.where(odd, "mean expected Dice 0.64 is below 0.75", "n/a"),
            "outlier_score": np.where(odd, 2.3, rng.uniform(0.3, 0.9, count)),
            "outlier_of": np.where(odd, "Left putamen volume (z = +7.9)", "n/a"),
            "mean_expected_dice": dice.mean(axis=1),
            "model": "label-flip 20303180462c",
            "processing": "simulated",
        }
    )
    missing = dict.fromkeys(COLUMNS, "n/a")
    missing |= {"participant_id": "sub-301", "reason": "not run, or not to the end"}
    people = pd.DataFrame(
        {"sex": rng.choice(["F", "M"], count), "age": rng.integers(18, 90, count).astype(str)},
        index=stems,
    )
    return Cohort(
        structures=[s.title for s in ASEG.structures],
        quality=quality,
        pages=[f"{stem}.html" for stem in stems],
        volume_ml=volume,
        expected_dice=dice,
        asymmetry=rng.normal(0, 0.05, (count, N_STRUCTURES)),
        participants=people,
        missing=pd.DataFrame([missing]),
        crashes=[],
        intracranial_ml=1500 * size * np.array([1, 0.87, 1.13]),
        without_intracranial="",
        relative_to="the intracranial volume",
    )


if __name__ == "__main__":
    main()
