"""What is drawn black and white: made from the tissue, whatever else the image holds."""

from __future__ import annotations

import numpy as np
import pytest

from hetseg_bids.reports.window import display_window
from hetseg_bids.structures.aseg import ASEG

CORTEX, WHITE, THALAMUS, PALLIDUM, FLUID = 3, 2, 10, 13, 4
INTENSITIES = {CORTEX: 60.0, WHITE: 100.0, THALAMUS: 85.0, PALLIDUM: 95.0, FLUID: 20.0, 0: 0.0}


def scan(values: dict[int, float], noise: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """A T1w of five tissues and background, and its labels; most of it is background."""
    labels = np.repeat(
        np.array([CORTEX, WHITE, THALAMUS, PALLIDUM, FLUID, *[0] * 10], np.uint8), 4000
    ).reshape(40, 50, 30)
    image = np.zeros(labels.shape, np.float32)
    for label, value in values.items():
        image[labels == label] = value
    image += np.random.default_rng(0).normal(0, noise, image.shape)
    return image.astype(np.float32), labels


def greys(image: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Median of each label as it is drawn, 0 to 255."""
    low, high = display_window(image, labels > 0, labels, ASEG)
    drawn = ((image - low) * 255 / (high - low)).clip(0, 255)
    return {label: float(np.median(drawn[labels == label])) for label in INTENSITIES}


def assert_apart(shown: dict[int, float]) -> None:
    assert shown[WHITE] - shown[CORTEX] > 100
    assert shown[WHITE] - shown[THALAMUS] > 30
    assert shown[THALAMUS] - shown[CORTEX] > 50
    assert shown[WHITE] < 230  # white matter isn't pure white
    assert shown[CORTEX] > 50
    assert shown[FLUID] < 30


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (40, 0), (0.002, 0), (1, 3000), (1, -500)])
def test_tissues_are_drawn_alike_on_every_scale(scale, offset):
    image, labels = scan(INTENSITIES)
    assert_apart(greys(image * scale + offset, labels))


def test_scalp_neck_and_vessels_have_no_say():
    image, labels = scan(INTENSITIES)
    plain = display_window(image, labels > 0, labels, ASEG)
    image[labels == 0] *= 100
    image[np.flatnonzero(labels.ravel() == 0)[:20000] // 1500, :, 0] = 5000
    image[labels == 0] += 3000
    mask = np.ones(labels.shape, bool)  # and a mask that holds all of them
    assert display_window(image, mask, labels, ASEG) == plain


def test_white_matter_that_is_the_brightest_of_all_isnt_drawn_white():
    image, labels = scan(INTENSITIES, noise=0)
    image[labels == WHITE] = 110  # flattened, as in FreeSurfer's brain.mgz
    image[labels == PALLIDUM] = 110
    shown = greys(image, labels)
    assert 190 < shown[WHITE] < 220
    assert shown[WHITE] - shown[THALAMUS] > 50


def test_a_pale_cortex_is_drawn_apart_from_white_matter():
    pale = INTENSITIES | {CORTEX: 90.0, THALAMUS: 96.0, PALLIDUM: 99.0}
    shown = greys(*scan(pale, noise=0.5))
    assert shown[WHITE] - shown[CORTEX] > 100


def test_no_tissue_is_lost_at_the_ends_where_a_coil_brightens_the_middle():
    image, labels = scan(INTENSITIES)
    image = image * np.linspace(0.7, 1.5, image.shape[2], dtype=np.float32)
    low, high = display_window(image, labels > 0, labels, ASEG)
    assert (image[labels > 0] > high).mean() < 0.01
    assert (image[labels == CORTEX] < low).mean() < 0.1


@pytest.mark.parametrize(
    "values",
    [
        INTENSITIES | {CORTEX: 100.0, WHITE: 60.0},  # no T1w
        INTENSITIES | {CORTEX: 100.0, WHITE: 100.0},
        dict.fromkeys(INTENSITIES, 7.0),
    ],
)
def test_without_contrast_the_brain_decides(values):
    image, labels = scan(values, noise=0)
    low, high = display_window(image, labels > 0, labels, ASEG)
    inside = image[labels > 0]
    assert low <= inside.min()
    assert high >= inside.max()
    assert high > low


def test_without_labels_the_brain_decides():
    image, labels = scan(INTENSITIES)
    nothing = np.zeros_like(labels)
    low, high = display_window(image, labels > 0, nothing, ASEG)
    assert low == pytest.approx(14, abs=6)
    assert high == pytest.approx(108, abs=6)
