"""Fixtures and options; what test files call is in support/."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import pytest

from support.phantoms import centred_affine, stripped_phantom, three_quarters

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--containers", metavar="FOLDER", help="build and run the images; they are kept in FOLDER"
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the development scans (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium isn't installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def phantom() -> nib.Nifti1Image:
    """A stripped brain of 0.56 litres, for what doesn't depend on its size."""
    image = three_quarters(stripped_phantom())
    return nib.Nifti1Image(image, centred_affine(image.shape))


@pytest.fixture(scope="session")
def mni152() -> nib.Nifti1Image:
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=1)


# files that take minutes: begun first, they end together whoever runs them
_LONGEST = (
    "test_real_scans.py",
    "test_bad_inputs.py",
    "test_interruptions.py",
    "test_run.py",
    "test_workers.py",
    "test_trainer.py",
    "test_session.py",
    "test_docs.py",
    "test_change.py",
    "test_averaging.py",
    "test_soak.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
