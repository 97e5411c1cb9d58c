"""The table of the image's numbers: values, usual ranges and words that agree with the verdict."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.quality.verdict import QcLimits, image_doubts
from hetseg_bids.reports.quality import MEASURES, quality_rows, usual_ranges

USUAL = ImageQuality(0.02, 0.3, 0.035, 0.0, 2.0, 0.55)
BEYOND = {"noise": 0.4, "ripple": 0.06, "cut_cm2": 47.0, "turn_deg": 28.6, "contrast": -0.4}


def assessments(image: ImageQuality) -> dict[str, str]:
    rows = quality_rows(image)
    return {measure.name: row.assessment for measure, row in zip(MEASURES, rows, strict=True)}


def test_every_number_of_an_ordinary_scan_is_shown_and_good():
    assert {measure.name for measure in MEASURES} == {field.name for field in fields(ImageQuality)}
    assert set(assessments(USUAL).values()) == {"good"}


@pytest.mark.parametrize("name", BEYOND)
def test_look_stands_where_the_verdict_names_the_number_and_only_there(name):
    image = replace(USUAL, **{name: BEYOND[name]})
    assert list(image_doubts(image)) == [name]
    assert assessments(image) == {**assessments(USUAL), name: "look"}


def test_between_the_usual_range_and_the_limit_a_number_is_unusual():
    limit = QcLimits().noise
    assert assessments(replace(USUAL, noise=limit))["noise"] == "unusual"
    assert assessments(replace(USUAL, edge=0.05))["edge"] == "unusual"
    assert assessments(replace(USUAL, edge=0.9))["edge"] == "good"  # sharper is no fault
    assert set(assessments(ImageQuality()).values()) == {"not measured"}


def test_the_usual_ranges_are_shown_with_their_scans_and_are_no_reason_for_a_look():
    ranges = usual_ranges()
    for measure, row in zip(MEASURES, quality_rows(USUAL), strict=True):
        usual = ranges[measure.name]
        assert usual.scans >= 20
        assert f"({usual.scans} scans)" in row.usual
        for end in (usual.low, usual.high):
            assert measure.text(end).removesuffix(measure.unit) in row.usual
            image = replace(USUAL, **{measure.name: end})
            assert not image_doubts(image)
            assert assessments(image)[measure.name] == "good"
