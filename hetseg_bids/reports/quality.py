"""The table of image quality on a page: value, unit, usual range, assessment."""

from __future__ import annotations

import csv
from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np

from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.quality.verdict import image_doubts

RANGES = Path(str(resources.files("hetseg_bids"))) / "data" / "usual_quality.tsv"
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
        Text after the number, with its space.
    worse : {"low", "high"}
        The bad end of the usual range: values beyond it are unusual, beyond the other end good.
    scale : float
        Factor from the stored value to `unit`.
    digits : int
        Shown after the point.
    """

    name: str
    title: str
    meaning: str
    unit: str
    worse: Literal["low", "high"]
    scale: float = 1.0
    digits: int = 0

    def text(self, value: float) -> str:
        """A stored value in `unit`, as it is shown.

        Examples
        --------
        >>> MEASURES[0].title, MEASURES[0].text(0.1234)
        ('Noise', '12.3 %')
        """
        return f"{value * self.scale:.{self.digits}f}{self.unit}"


MEASURES = (
    Measure(
        name="noise",
        title="Noise",
        meaning=f"grain in deep white matter, share {_OF_CONTRAST}",
        unit=" %",
        worse="high",
        scale=100,
        digits=1,
    ),
    Measure(
        name="ripple",
        title="Ripples",
        meaning=f"waves in white matter, as motion leaves them, share {_OF_CONTRAST}",
        unit=" %",
        worse="high",
        scale=100,
        digits=1,
    ),
    Measure(
        name="edge",
        title="Sharpness",
        meaning=f"step from voxel to voxel at their border, share {_OF_CONTRAST}",
        unit=" %",
        worse="low",
        scale=100,
    ),
    Measure(
        name="contrast",
        title="Contrast of white matter to cortex",
        meaning="share of the contrast of white matter to the fluid in the ventricles",
        unit=" %",
        worse="low",
        scale=100,
    ),
    Measure(
        name="cut_cm2",
        title="Brain cut off",
        meaning="area in which the brain meets an edge of the image",
        unit=" cm²",
        worse="high",
    ),
    Measure(
        name="turn_deg",
        title="Turn of the head",
        meaning="to the side, or leaning; a nod isn't measured",
        unit="°",
        worse="high",
    ),
)


@dataclass(frozen=True)
class UsualRange:
    """The middle 95 % of the values of some ordinary scans, as stored."""

    low: float
    high: float
    scans: int


@cache
def usual_ranges() -> dict[str, UsualRange]:
    """The usual range of each field of `ImageQuality` (benchmarks/usual_quality.py)."""
    with RANGES.open(encoding="utf-8", newline="") as file:
        return {
            row["measure"]: UsualRange(float(row["low"]), float(row["high"]), int(row["scans"]))
            for row in csv.DictReader(file, delimiter="\t")
        }


@dataclass(frozen=True)
class QualityRow:
    """One line of the table of the image's numbers, as text."""

    title: str
    meaning: str
    value: str
    usual: str
    assessment: Assessment = "not measured"


def quality_rows(image: ImageQuality) -> list[QualityRow]:
    """One row per measure of the image, in the order of `MEASURES`.

    The assessment is *look* exactly for the measures that the verdict names (`image_doubts`).

    Examples
    --------
    >>> row = quality_rows(ImageQuality(turn_deg=30))[-1]
    >>> row.title, row.value, row.assessment
    ('Turn of the head', '30°', 'look')
    """
    doubts = image_doubts(image)
    return [_row(measure, getattr(image, measure.name), doubts) for measure in MEASURES]


def _row(measure: Measure, value: float, doubts: Container[str]) -> QualityRow:
    usual = usual_ranges()[measure.name]
    low, high = measure.text(usual.low), measure.text(usual.high)
    words = high if low == high else f"{low.removesuffix(measure.unit)} to {high}"
    row = QualityRow(measure.title, measure.meaning, "n/a", f"{words} ({usual.scans} scans)")
    if np.isnan(value):
        return row
    assessment = "look" if measure.name in doubts else _compare(measure, value, usual)
    return replace(row, value=measure.text(value), assessment=assessment)


def _compare(measure: Measure, value: float, usual: UsualRange) -> Assessment:
    """Whether a value is beyond the bad end; values that are shown alike count as equal."""
    beyond = value < usual.low if measure.worse == "low" else value > usual.high
    end = usual.low if measure.worse == "low" else usual.high
    return "unusual" if beyond and measure.text(value) != measure.text(end) else "good"
