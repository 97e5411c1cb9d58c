"""Uniform images of an MP2RAGE: the noise around the head doesn't reach the brain mask."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.preprocessing.mp2rage import darken_noise
from hetseg_bids.preprocessing.pipeline import prepare_image
from support.commands import QUICK, run_cli
from support.corruptions import good
from support.datasets import t1w_path, write_dataset
from support.phantoms import phantom_labels, phantom_t1w, three_quarters
from support.tiny_model import write_tiny_model


def uniform_image(t1w: np.ndarray, sigma: float = 0.03) -> np.ndarray:
    """The UNIT1 of a head (Marques et al. 2010): both inversions have complex noise."""
    rng = np.random.default_rng(0)
    share = t1w / np.percentile(t1w[t1w > 0], 95)
    unit = np.clip(-0.5 + 0.75 * share, -0.499, 0.45)
    unit = np.where(np.abs(unit) < 1e-3, 1e-3, unit)
    second = 1 - np.exp(-share / 0.1)  # air is dark, everything else isn't
    first = second * (1 - np.sqrt(1 - 4 * unit**2)) / (2 * unit)
    noise = rng.normal(0, sigma, (4, *t1w.shape))
    a, b = first + noise[0] + 1j * noise[1], second + noise[2] + 1j * noise[3]
    unit = (a.conj() * b).real / (np.abs(a) ** 2 + np.abs(b) ** 2)
    return ((unit + 0.5) * 4095).round().astype(np.int16)


def test_air_becomes_dark_and_the_brain_stays():
    labels = three_quarters(phantom_labels())
    image = uniform_image(phantom_t1w(labels)).astype(np.float32)
    air = (slice(0, 8),) * 3
    assert image[air].std() > 1000
    darkened = darken_noise(image)
    assert np.median(darkened[air]) == 0
    low, high = np.percentile(image, (0.5, 99.5))
    kept = np.isclose(darkened, ((image - low) / (high - low)).clip(0), atol=1e-4)
    assert kept[np.isin(labels, (2, 41, 3, 42))].mean() > 0.97


def test_results_of_a_uniform_image_lie_beside_those_of_the_t1w(tmp_path):
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    path = t1w_path(bids, "01")
    good(path)
    good(path.with_name("sub-01_UNIT1.nii.gz"))
    options = (*QUICK, "--model", write_tiny_model(tmp_path / "model"))
    for suffix, stem in (("T1w", "sub-01"), ("UNIT1", "sub-01_mod-UNIT1")):
        done = run_cli("hetseg", bids, out, "participant", "--suffix", suffix, *options)
        assert done.code == 0, done.err
        record = out / "sub-01" / "anat" / f"{stem}_seg-hetseg_dseg.json"
        sources = json.loads(record.read_text())["Sources"]
        assert sources == [f"bids:raw:sub-01/anat/sub-01_{suffix}.nii.gz"]
        page = (out / f"{stem}.html").read_text()
        assert f"SHA-256 of the {suffix}" in page
        assert ("Marques et al., 2010" in page) == (suffix == "UNIT1")
    again = run_cli("hetseg", bids, out, "participant", *options)
    assert "sub-01: complete already" in again.out


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_uniform_image_gets_the_brain_mask_of_the_t1w(tmp_path, shared_data):
    t1w = shared_data / "freesurfer_labelled" / "sub-swmribbon_T1w.nii.gz"
    image, unit1 = nib.load(t1w), tmp_path / "sub-01_UNIT1.nii.gz"
    nib.save(nib.Nifti1Image(uniform_image(image.get_fdata()), image.affine), unit1)
    wanted, found = (prepare_image(path).mask.numpy() for path in (t1w, unit1))
    assert dice(wanted, found) > 0.992  # 0.988 with the noise
