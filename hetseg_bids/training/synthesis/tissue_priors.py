"""T1w intensities of each label, relative to cerebral white matter.

Means and spreads were measured on 1 mm T1w scans with FreeSurfer's or manual labels (median over
scans of the median within a structure; see docs/synthesis.md). Extra-cerebral values are guesses
with large spreads, because only thin parts of those tissues are left by a brain mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tissue:
    """The appearance that some labels share.

    Attributes
    ----------
    name : str
    labels : tuple of int
        aseg ids; extra-cerebral ids lowered by 300.
    mean, between : float
        Mean and between-scan standard deviation, white matter = 1.
    within : float
        Standard deviation inside the structure that isn't noise.
    """

    name: str
    labels: tuple[int, ...]
    mean: float
    between: float
    within: float


TISSUES: tuple[Tissue, ...] = (
    Tissue("background", (0,), 0.05, 0.04, 0.02),
    Tissue("white_matter", (2, 41), 1.0, 0.02, 0.05),
    Tissue("cortex", (3, 42), 0.64, 0.06, 0.06),
    Tissue("ventricle", (4, 5, 43, 44), 0.33, 0.08, 0.04),
    Tissue("third_ventricle", (14,), 0.38, 0.10, 0.06),
    Tissue("fourth_ventricle", (15,), 0.32, 0.08, 0.06),
    Tissue("csf", (24,), 0.33, 0.10, 0.09),
    Tissue("cerebellar_white_matter", (7, 46), 0.95, 0.05, 0.05),
    Tissue("cerebellar_cortex", (8, 47), 0.66, 0.06, 0.07),
    Tissue("thalamus", (10, 49), 0.84, 0.06, 0.04),
    Tissue("caudate", (11, 50), 0.70, 0.05, 0.03),
    Tissue("putamen", (12, 51), 0.79, 0.06, 0.03),
    Tissue("pallidum", (13, 52), 0.94, 0.05, 0.03),
    Tissue("accumbens", (26, 58), 0.67, 0.05, 0.03),
    Tissue("hippocampus", (17, 53), 0.67, 0.05, 0.06),
    Tissue("amygdala", (18, 54), 0.66, 0.05, 0.04),
    Tissue("ventral_dc", (28, 60), 0.91, 0.05, 0.08),
    Tissue("brainstem", (16,), 0.90, 0.05, 0.07),
    Tissue("corpus_callosum", (251, 252, 253, 254, 255), 1.03, 0.04, 0.04),
    Tissue("choroid_plexus", (31, 63), 0.48, 0.12, 0.08),
    Tissue("vessel", (30, 62), 0.55, 0.20, 0.08),
    Tissue("white_matter_lesion", (25, 57, 77, 78, 79), 0.72, 0.08, 0.05),
    Tissue("optic_chiasm", (85,), 0.80, 0.10, 0.05),
    Tissue("skull", (215,), 0.25, 0.12, 0.10),
    Tissue("soft_tissue", (207,), 0.55, 0.20, 0.15),
    Tissue("skin", (211,), 0.80, 0.25, 0.20),
)
_OTHER = Tissue("other", (), 0.45, 0.20, 0.12)


# with iron, age and some sequences these are nearly as bright as white matter, but not the cortex:
# one contrast factor for all tissues can't make such scans
DEEP_GREY = ("thalamus", "putamen", "pallidum", "ventral_dc")
_THALAMUS_FROM_MIDDLE = 0.14  # of half the frame: 11 mm


@dataclass(frozen=True)
class Appearance:
    """Intensities of one synthetic scan: one row per label id.

    Attributes
    ----------
    mean, within : (256,) float32 arrays
        Mean and standard deviation inside the structure, white matter about 1.
    slope : (256, 3) float32 array
        Intensity change from the middle of the volume to its border along each axis (RAS).
    """

    mean: npt.NDArray[np.float32]
    within: npt.NDArray[np.float32]
    slope: npt.NDArray[np.float32]


def draw_appearance(
    rng: np.random.Generator, contrast: tuple[float, float], deep: float = 1.0
) -> Appearance:
    """Draw the intensities of one scan.

    Parameters
    ----------
    rng : numpy.random.Generator
    contrast : tuple of 2 float
        Range of the factor that scales every tissue's distance to white matter.
    deep : float
        A further factor for `DEEP_GREY`.

    Returns
    -------
    look : Appearance

    Examples
    --------
    >>> look = draw_appearance(np.random.default_rng(0), contrast=(1, 1))
    >>> bool(look.mean[2] > look.mean[3] > look.mean[4])  # white matter, cortex, ventricle
    True
    """
    factor = rng.uniform(*contrast)
    mean = np.zeros(256, np.float32)
    within = np.zeros(256, np.float32)
    slope = np.zeros((256, 3), np.float32)
    named = {label for tissue in TISSUES for label in tissue.labels}
    others = [
        Tissue("other", (label,), _OTHER.mean, _OTHER.between, _OTHER.within)
        for label in range(256)
        if label not in named
    ]
    for tissue in (*TISSUES, *others):
        value = rng.normal(tissue.mean, tissue.between)
        value = 1 + factor * (deep if tissue.name in DEEP_GREY else 1.0) * (value - 1)
        for label in tissue.labels:
            # the two sides differ slightly, as coil sensitivity leaves them
            mean[label] = max(0.0, value + rng.normal(0, 0.01))
            within[label] = tissue.within * rng.uniform(0.4, 1.3)
            slope[label] = rng.normal(0, 0.07, 3)
    _brighten_lateral_thalamus_(rng, mean, slope, factor * deep)
    return Appearance(mean, within, slope)


def _brighten_lateral_thalamus_(
    rng: np.random.Generator,
    mean: npt.NDArray[np.float32],
    slope: npt.NDArray[np.float32],
    contrast: float,
) -> None:
    # the lateral nuclei are myelinated: 0.1-0.2 of WM brighter over about 20 mm
    gain = contrast * abs(rng.normal(0.7, 0.4))
    for label, side in ((10, -1), (49, 1)):
        slope[label, 0] += side * gain
        mean[label] -= gain * _THALAMUS_FROM_MIDDLE
