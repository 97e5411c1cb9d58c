"""The image's numbers as a reader meets them: value, unit, usual range, and a word on it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hetseg_bids.image_quality import ImageQuality
from hetseg_bids.qc import image_doubts

Assessment = Literal["good", "unusual", "look", "not measured"]
_OF_CONTRAST = "of the difference in brightness between white matter and cortex"


@dataclass(frozen=True)
class Measure:
    """How one number of `ImageQuality` is shown.

    Attributes
    ----------
    name : str
        Field of `ImageQuality`.
    title, meaning : str
        In plain words.
    unit : str
    usual : tuple of 2 float
        Range of ordinary scans in `unit` (benchmarks/results/usual_quality.tsv, its columns
        low and high rounded outwards).
    worse : {"low", "high", "both"}
        Values beyond this end of the usual range are unusual, beyond the other one good.
    scale : float
        Factor from the stored value to `unit`.
    digits : int
        Shown after the point.
    """

    name: str
    title: str
    meaning: str
    unit: str
    usual: tuple[float, float]
    worse: Literal["low", "high", "both"]
    scale: float = 1.0
    digits: int = 0

    def shown(self, value: float) -> float:
        """A stored value in `unit`, rounded as it is shown."""
        return round(value * self.scale, self.digits)

    def text(self, shown: float) -> str:
        """A shown value without the unit."""
        return f"{shown:.{self.digits}f}"


USUAL_SCANS = 28  # that the usual ranges were measured on
MEASURES = (
    Measure(
        name="noise",
        title="Noise",
        meaning=f"grain in deep white matter, share {_OF_CONTRAST}",
        unit="%",
        usual=(0.0, 4.0),
        worse="high",
        scale=100,
        digits=1,
    ),
    Measure(
        name="ripple",
        title="Ripples",
        meaning=f"waves in white matter, as motion leaves them, share {_OF_CONTRAST}",
        unit="%",
        usual=(2.0, 4.5),
        worse="high",
        scale=100,
        digits=1,
    ),
    Measure(
        name="edge",
        title="Sharpness",
        meaning=f"step from voxel to voxel at their border, share {_OF_CONTRAST}",
        unit="%",
        usual=(20, 50),
        worse="low",
        scale=100,
    ),
    Measure(
        name="contrast",
        title="Contrast of white matter to cortex",
        meaning="share of the contrast of white matter to the fluid in the ventricles",
        unit="%",
        usual=(30, 75),
        worse="both",
        scale=100,
    ),
    Measure(
        name="cut_cm2",
        title="Brain cut off",
        meaning="area in which the brain meets an edge of the image",
        unit="cm²",
        usual=(0, 0),
        worse="high",
    ),
    Measure(
        name="turn_deg",
        title="Turn of the head",
        meaning="to the side, or leaning; a nod isn't measured",
        unit="°",
        usual=(0, 5),
        worse="high",
    ),
)


@dataclass(frozen=True)
class QualityRow:
    """One line of the table of the image's numbers, as text."""

    title: str
    meaning: str
    value: str
    usual: str
    assessment: Assessment = "not measured"


def quality_rows(image: ImageQuality) -> list[QualityRow]:
    """The image's numbers in words, in the order of `MEASURES`.

    A number wants a *look* where the verdict names it (`qc.image_doubts`), and only there.
    """
    doubts = image_doubts(image)
    return [_row(measure, getattr(image, measure.name), doubts) for measure in MEASURES]


def _row(measure: Measure, value: float, doubts: Container[str]) -> QualityRow:
    low, high = (measure.text(end) for end in measure.usual)
    usual = low if low == high else f"{low} to {high}"
    row = QualityRow(measure.title, measure.meaning, "n/a", f"{usual} {measure.unit}")
    if np.isnan(value):
        return row
    shown = measure.shown(value)
    assessment = "look" if measure.name in doubts else _compare(measure, shown)
    return replace(row, value=f"{measure.text(shown)} {measure.unit}", assessment=assessment)


def _compare(measure: Measure, shown: float) -> Assessment:
    low, high = measure.usual
    below = shown < low and measure.worse != "high"
    above = shown > high and measure.worse != "low"
    return "unusual" if below or above else "good"
