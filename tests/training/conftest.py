"""Sources of training scans, and a model that was trained."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hetseg_bids.training.synthesis.painting import (
    SyntheticScans,
    SyntheticSource,
)
from hetseg_bids.training.volumes import LabelledVolume
from support.commands import run_cli
from support.phantoms import centred_affine, phantom_labels
from support.shared import made_once


@pytest.fixture(scope="session")
def maps(tmp_path_factory) -> Path:
    """A folder with the phantom as a label map."""

    def make(folder: Path) -> None:
        labels = phantom_labels()
        nib.save(nib.Nifti1Image(labels, centred_affine(labels.shape)), folder / "a_dseg.nii.gz")

    return made_once(tmp_path_factory, "maps", make)


@pytest.fixture(scope="session")
def source(maps) -> SyntheticSource:
    return SyntheticSource(sorted(maps.glob("*.nii.gz")))


@pytest.fixture(scope="session")
def scans(source) -> SyntheticScans:
    """Scans drawn once, for what doesn't depend on where they come from."""
    return SyntheticScans(source, 3, seed=2)


@pytest.fixture(scope="session")
def volume(source) -> LabelledVolume:
    return source.draw(np.random.default_rng(1))


@pytest.fixture(scope="session")
def trained(maps, tmp_path_factory) -> Path:
    """A label-flip model of one step of the small recipe, on scans that are drawn as needed."""

    def make(out: Path) -> None:
        arguments = ["--label-maps", maps, "--workers", 0, "--recipe", "small", "--samples", 2]
        done = run_cli("hetseg-train", out, *arguments)
        assert done.code == 0, done.err

    return made_once(tmp_path_factory, "trained", make) / "model"
