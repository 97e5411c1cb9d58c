"""Fixtures: phantoms made by code, the demo T1w, and the real scans where they are."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from hetseg_bids.config import Settings
from hetseg_bids.derivatives import (
    OutputPaths,
    Provenance,
    write_images,
    write_sidecars,
    write_tables,
)
from hetseg_bids.image_quality import ImageQuality
from hetseg_bids.images import Grid
from hetseg_bids.morphometry import measure
from hetseg_bids.plausibility import Plausibility
from hetseg_bids.segmentation import LevelMaps, Segmentation, to_levels
from hetseg_bids.structures import ASEG, N_STRUCTURES, STRUCTURES
from hetseg_bids.uncertainty import FlipSums, StructureUncertainty

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--containers", metavar="FOLDER", help="build and run the images; they are kept in FOLDER"
    )


# one view of a stripped brain: for runs whose labels don't matter
QUICK = ("--views", "axial", "--no-mirror", "--brain-extraction", "skip", "--skip-bids-validation")


def lasting(path: Path) -> bytes:
    """What is in a file but for the facts of the run (time, device) at a page's end."""
    return re.sub(rb'<dl id="run">.*?</dl>', b"", path.read_bytes(), flags=re.DOTALL)


_ENTRY_POINTS = {
    "hetseg": "hetseg_bids.cli.run",
    "hetseg-train": "hetseg_bids.cli.train",
    "hetseg-evaluate": "hetseg_bids.cli.evaluate",
    "hetseg-export": "hetseg_bids.cli.export",
}


def run_cli(command: str, *arguments: object) -> Finished:
    """Run an entry point in a process of its own, as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", _ENTRY_POINTS[command], *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip("the development scans (../shared/data) are not on this machine")
    return SHARED_DATA


def phantom_labels(shape: tuple[int, int, int] = (150, 180, 140)) -> np.ndarray:
    """A head of ellipsoids in RAS, 1 mm, with aseg ids; the left putamen is the larger one."""
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")

    def ball(centre: tuple[int, int, int], radii: tuple[int, int, int]) -> np.ndarray:
        terms = ((g - c) / r for g, c, r in zip(grid, centre, radii, strict=True))
        return sum(t * t for t in terms) <= 1

    x, y, z = (n // 2 for n in shape)
    labels = np.zeros(shape, np.uint8)
    left = grid[0] < x
    labels[ball((x, y, z), (72, 86, 66))] = 211  # skin
    labels[ball((x, y, z), (66, 80, 60))] = 24
    brain = ball((x, y, z), (62, 76, 56))
    labels[brain] = np.where(left, 3, 42)[brain]
    white = ball((x, y, z), (56, 70, 50))
    labels[white] = np.where(left, 2, 41)[white]
    for side, sign in ((0, -1), (1, 1)):
        size = 12 if side == 0 else 8
        labels[ball((x + sign * 28, y + 5, z), (size, size + 8, size))] = (12, 51)[side]
        labels[ball((x + sign * 12, y - 5, z), (8, 12, 8))] = (10, 49)[side]
        labels[ball((x + sign * 10, y, z + 16), (5, 24, 6))] = (4, 43)[side]
        labels[ball((x + sign * 26, y - 45, z - 32), (20, 18, 12))] = (8, 47)[side]
    labels[ball((x, y - 22, z - 28), (9, 9, 20))] = 16
    return labels


def phantom_t1w(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A plain T1w of the phantom: tissue values and a little noise, whole head."""
    values = np.zeros(256, np.float32)
    values[[2, 41]] = 1000
    values[[3, 42, 8, 47]] = 650
    values[[4, 43, 24]] = 280
    values[[12, 51]] = 790
    values[[10, 49]] = 840
    values[16] = 900
    values[211] = 800
    noise = np.random.default_rng(seed).normal(0, 15, labels.shape)
    return np.where(labels > 0, values[labels] + noise, 0).clip(0).astype(np.float32)


def three_quarters(volume: np.ndarray) -> np.ndarray:
    """The same volume at three quarters of the size along each axis: less than half the time."""
    return volume[np.ix_(*(np.arange(0, n, 4 / 3).astype(int) for n in volume.shape))]


def stripped_phantom() -> np.ndarray:
    labels = phantom_labels()
    image = phantom_t1w(labels)
    image[(labels == 0) | (labels == 211)] = 0
    return image


def centred_affine(shape: tuple[int, ...], zoom: float = 1.0) -> np.ndarray:
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = -zoom * (np.array(shape[:3]) - 1) / 2
    return affine


def reorient(image: nib.Nifti1Image, code: str) -> nib.Nifti1Image:
    """The same image stored in another axis order."""
    here = nib.io_orientation(image.affine)
    there = nib.orientations.axcodes2ornt(code)
    return image.as_reoriented(nib.orientations.ornt_transform(here, there))


def write_dataset(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content = {"Name": "test", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "dataset_description.json").write_text(json.dumps(content))
    return root


def t1w_path(root: Path, subject: str, extra: str = "") -> Path:
    path = root / f"sub-{subject}" / "anat" / f"sub-{subject}{extra}_T1w.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_pair(folder: Path, subject: str = "01") -> Path:
    """The `phantom` and its labels, to train on or to compare with."""
    t1w, labels = t1w_path(folder, subject), three_quarters(phantom_labels())
    affine = centred_affine(labels.shape)
    brain = np.where((labels == 211) | (labels == 24), 0, labels)
    nib.save(nib.Nifti1Image(three_quarters(stripped_phantom()), affine), t1w)
    nib.save(nib.Nifti1Image(brain, affine), t1w.with_name(f"sub-{subject}_dseg.nii.gz"))
    return folder


def small_brain() -> np.ndarray:
    """The phantom at 2 mm, without skin and CSF."""
    labels = phantom_labels()[::2, ::2, ::2]
    return np.where((labels == 211) | (labels == 24), 0, labels).astype(np.uint8)


def level_maps(values: np.ndarray, highest: float) -> LevelMaps:
    """(S, x, y, z) probabilities as a result holds them."""
    return LevelMaps(to_levels(torch.from_numpy(values), highest).numpy(), highest)


def uncertainty_of(dseg: np.ndarray, q: np.ndarray) -> tuple[StructureUncertainty, ...]:
    """What a result holds of an aseg image and its (S, x, y, z) flip maps."""
    number = np.zeros(256, np.uint8)
    number[[s.label for s in STRUCTURES]] = np.arange(1, N_STRUCTURES + 1)
    return FlipSums.of(number[dseg], q).summaries()


def write_results(
    out: Path, stem: str, dseg: np.ndarray, *, hostile: str = "", flip: bool = True
) -> tuple[OutputPaths, Path]:
    """Derivatives of a 2 mm scan as a run writes them; returns their paths and the T1w."""
    affine = centred_affine(dseg.shape, 2)
    source = out / "sources" / f"{stem}_T1w.nii.gz"
    source.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(phantom_t1w(dseg), affine), source)
    q = np.zeros((N_STRUCTURES, *dseg.shape), np.float32)
    for i, structure in enumerate(STRUCTURES):
        q[i][dseg == structure.label] = 0.4 if structure.name == "left_putamen" else 0.1
    whole = tuple(slice(0, n) for n in dseg.shape)
    grid = Grid(dseg.shape, affine)
    result = Segmentation(grid, whole, dseg, None, None, ASEG)
    if flip:
        result = replace(result, flip=level_maps(q, 0.5), uncertainty=uncertainty_of(dseg, q))
    paths = OutputPaths(out / stem.split("_")[0] / "anat", stem, "", out / f"{stem}.html")
    provenance = Provenance(
        sources=[f"bids:raw:{stem}/{hostile}"],
        source_sha256="0" * 64 + hostile,
        mask_sha256=hostile or None,
        model=f"label-flip{hostile}",
        model_sha256="1" * 64,
        pooling=None,
        smoothing=0,
        settings=Settings(model=hostile or "label-flip"),
        extraction="deepbet",
        mask_mm3=float((dseg > 0).sum()) * grid.voxel_volume,
        image=ImageQuality(0.05, 0.3, 0.02, 0.0, 4.0, 0.5),
        plausibility=Plausibility(),
        warnings=(f"something {hostile}",) if hostile else (),
    )
    write_images(paths, result, (dseg > 0).astype(np.uint8))
    write_tables(paths, measure(result), ASEG)
    write_sidecars(paths, provenance, ASEG, flip=flip)
    return paths, source


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


def run_here(command: str, *arguments: object) -> Finished:
    """Run an entry point in this process: for calls that end before there is work to do.

    To import torch and pybids costs a process of its own three seconds. An exception that isn't
    caught, a traceback in a process of its own, is one here, too.
    """
    main = importlib.import_module(_ENTRY_POINTS[command]).main
    out, err = io.StringIO(), io.StringIO()
    with _unchanged_process(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([*map(str, arguments)])
        except SystemExit as stop:  # argparse
            code = stop.code if isinstance(stop.code, int) else 1
    return Finished(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _unchanged_process() -> Iterator[None]:
    """What an entry point sets for its process: loggers, threads, how SIGTERM is met."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    root.handlers.clear()  # else basicConfig leaves pytest's
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        signal.signal(signal.SIGTERM, handler)
        torch.set_num_threads(threads)


# files that take minutes: begun first, they end together whoever runs them
_LONGEST = (
    "test_real_scans.py",
    "test_bad_inputs.py",
    "test_interruptions.py",
    "test_training.py",
    "test_run.py",
    "test_execution.py",
    "test_docs.py",
    "test_group.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
