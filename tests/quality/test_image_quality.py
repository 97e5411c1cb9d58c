"""Noise, blur, ripples, contrast and cut-off brains, on the phantom."""

import json

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from hetseg_bids.quality.image_quality import ImageQuality, measure_image
from hetseg_bids.segmentation.uncertainty import REPEAT_NOISE
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet
from support.commands import QUICK, run_cli
from support.datasets import t1w_path, write_dataset
from support.phantoms import centred_affine, phantom_labels, phantom_t1w, three_quarters
from support.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def dseg() -> np.ndarray:
    return ASEG.collapse(phantom_labels())


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """White matter 1000, cortex 650, noise of 15."""
    return phantom_t1w(phantom_labels())


def measured(image: np.ndarray, dseg: np.ndarray) -> ImageQuality:
    return measure_image(image.astype(np.float32), dseg > 0, dseg, ASEG)


def test_noise_is_that_of_the_image_in_units_of_contrast(image, dseg):
    assert measured(image, dseg).noise == pytest.approx(15 / 350, rel=0.03)
    more = np.random.default_rng(1).normal(0, 80, image.shape)
    assert measured(image + more, dseg).noise == pytest.approx(np.hypot(15, 80) / 350, rel=0.03)


def test_a_volume_repeats_less_well_in_a_noisier_copy_though_its_q_is_the_same(image, dseg):
    copy = image + np.random.default_rng(1).normal(0, 80, image.shape)
    quiet, noisy = (REPEAT_NOISE.sd(4000.0, 900.0, measured(i, dseg).noise) for i in (image, copy))
    assert noisy > 1.5 * quiet
    assert quiet < 1.1 * REPEAT_NOISE.sd(4000.0, 900.0)


def test_a_bias_field_is_no_noise(image, dseg):
    ramp = np.linspace(0.7, 1.3, image.shape[0])[:, None, None]
    assert measured(image * ramp, dseg).noise == pytest.approx(15 / 350, rel=0.1)


def test_edges_tell_blur_and_do_not_depend_on_the_scale_of_intensities(image, dseg):
    sharp = measured(image, dseg)
    assert sharp.edge == pytest.approx(1, rel=0.03)
    assert measured(image / 500 - 3, dseg).edge == pytest.approx(sharp.edge, rel=1e-3)
    assert measured(ndimage.gaussian_filter(image, 1.0), dseg).edge < 0.6


def test_ripples_are_neither_noise_nor_bias(image, dseg):
    assert measured(image, dseg).ripple < 0.01
    loud = image + np.random.default_rng(1).normal(0, 80, image.shape)
    assert measured(loud, dseg).ripple < 0.02
    ramp = np.linspace(0.7, 1.3, image.shape[0])[:, None, None]
    assert measured(image * ramp, dseg).ripple < 0.02


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ripples_are_measured_in_units_of_contrast(image, dseg, axis):
    """A wave of 9 mm keeps exp(-(2 pi / 9)^2 / 2) at 1 mm, and nearly nothing at 3 mm."""
    place = np.arange(image.shape[axis]).reshape([-1 if i == axis else 1 for i in range(3)])
    phase = 2 * np.pi / 9 * place
    kept = np.exp(-((2 * np.pi / 9) ** 2) / 2) - np.exp(-((2 * np.pi / 9 * 3) ** 2) / 2)
    for strength in (30, 60):
        rippled = measured(image + strength * np.sin(phase), dseg)
        # robust_sd of a sine is 1.4826 times the median of its |values|, 1 / sqrt(2)
        expected = strength * kept * 1.4826 / np.sqrt(2) / 350
        assert rippled.ripple == pytest.approx(expected, rel=0.15)


def test_a_cut_brain_has_an_area(image, dseg):
    assert measured(image, dseg).cut_cm2 == 0
    half = slice(None), slice(None), slice(70, None)
    whole = (dseg[:, :, 70] > 0).sum() / 100
    assert measured(image[half], dseg[half]).cut_cm2 == pytest.approx(whole)


def test_contrast_is_cortex_between_white_matter_and_fluid(image, dseg):
    found = measured(image, dseg).contrast
    white, cortex, fluid = (
        float(np.median(image[np.isin(dseg, ids)])) for ids in ((2, 41), (3, 42), (4, 43))
    )
    assert found == pytest.approx((white - cortex) / (white - fluid), rel=0.02)
    assert measured(image / 3 - 7, dseg).contrast == pytest.approx(found, rel=1e-3)
    no_fluid = np.where(np.isin(dseg, (4, 43)), 2, dseg).astype(np.uint8)
    assert np.isnan(measured(image, no_fluid).contrast)


def test_an_image_that_is_no_t1w_has_a_negative_contrast_and_no_noise(image, dseg):
    found = measured(-image, dseg)
    assert found.contrast < 0
    assert np.isnan(found.noise)
    assert np.isnan(measured(np.ones_like(image), dseg).contrast)


@pytest.mark.parametrize("axes", [(0, 1), (0, 2)])
@pytest.mark.parametrize("degrees", [-40, 15])
def test_a_head_that_looks_to_the_side_or_leans_is_turned(image, dseg, axes, degrees):
    upright = measured(image, dseg).turn_deg
    assert upright < 2
    labels = ndimage.rotate(dseg, degrees, axes, reshape=False, order=0)
    assert measured(image, labels).turn_deg == pytest.approx(abs(degrees), abs=upright + 1)


def test_a_nod_and_a_lost_structure_turn_no_head(image, dseg):
    nodding = ndimage.rotate(dseg, 30, (1, 2), reshape=False, order=0)
    assert measured(image, nodding).turn_deg < 2
    assert measured(image, np.where(dseg == 17, 0, dseg).astype(np.uint8)).turn_deg < 2


def test_a_brain_without_sides_is_not_turned(image, dseg):
    for labels in (np.zeros_like(dseg), np.where(dseg == 16, dseg, 0).astype(np.uint8)):
        assert np.isnan(measured(image, labels).turn_deg)


def test_without_white_matter_nothing_is_known_of_noise(image, dseg):
    thalamus = LabelSet(tuple(s for s in ASEG.structures if s.bare_name == "thalamus"))
    facing = measured(image, np.where(np.isin(dseg, (10, 49)), dseg, 0).astype(np.uint8)).turn_deg
    found = measure_image(image, dseg > 0, dseg, thalamus)
    nothing = dict.fromkeys(("noise", "edge", "ripple", "contrast"))
    assert found.for_record() == {**nothing, "cut_cm2": 0.0, "turn_deg": round(facing, 4)}
    back = ImageQuality.of_record({"HetsegImageQuality": found.for_record()})
    assert np.isnan(back.noise)
    assert back.cut_cm2 == 0


@pytest.mark.parametrize("junk", ["loud", 3, ["a"], {"noise": "loud"}, {"edge": [1]}])
def test_a_sidecar_without_numbers_is_refused(junk):
    with pytest.raises(ValueError, match="no numbers"):
        ImageQuality.of_record({"HetsegImageQuality": junk})
    assert np.isnan(ImageQuality.of_record({}).noise)


def test_a_run_says_that_the_image_ends_in_the_brain(tmp_path):
    labels = three_quarters(phantom_labels())[:, :, 38:]
    stripped = phantom_t1w(labels)
    stripped[(labels == 0) | (labels == 211)] = 0
    bids, out = write_dataset(tmp_path / "bids"), tmp_path / "out"
    nib.save(nib.Nifti1Image(stripped, centred_affine(labels.shape)), t1w_path(bids, "01"))
    model = write_tiny_model(tmp_path / "model")
    done = run_cli("hetseg", bids, out, "participant", "--model", model, *QUICK)
    assert done.code == 0, done.err
    sidecar = out / "sub-01" / "anat" / "sub-01_seg-hetseg_dseg.json"
    area = json.loads(sidecar.read_text())["HetsegImageQuality"]["cut_cm2"]
    assert area > 50
    assert f"the image ends in the brain ({area:.0f} cm2" in (out / "sub-01.html").read_text()
