"""The verdict and the asymmetry, from tables made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.quality.verdict import Verdict, asymmetry, judge
from hetseg_bids.segmentation.lesioned import GivenLesion
from hetseg_bids.segmentation.plausibility import Finding, Plausibility
from hetseg_bids.structures.aseg import N_STRUCTURES, STRUCTURES

USUAL_MM3 = 1_100_000.0 / N_STRUCTURES


def table(**volumes: float) -> pd.DataFrame:
    """A good scan of 1.1 l, some volumes replaced."""
    names = [s.name for s in STRUCTURES]
    return pd.DataFrame(
        {
            "name": names,
            "volume_mm3": [volumes.get(n, USUAL_MM3) for n in names],
            "expected_dice": 0.9,
        }
    )


def test_a_good_scan_passes_without_a_reason():
    verdict = judge(table())
    assert (verdict.level, verdict.reasons) == ("pass", ())


def test_a_lesion_is_named_with_what_it_covers_most_of_first():
    covered = {"left_putamen": (600.0, 0.12), "left_cerebral_cortex": (900.0, 0.004)}
    covered |= {"left_caudate": (30.0, 1.0), "left_thalamus": (1.0, 0.0001)}
    scan = table(left_caudate=0.0)
    for column, place in (("lesion_mm3", 0), ("lesion_share", 1)):
        scan[column] = [covered.get(name, (0.0, 0.0))[place] for name in scan["name"]]
    lesion = GivenLesion("bids:raw:x", 31.24, tuple(covered))
    assert judge(scan, lesion=lesion) == Verdict(
        "look",
        (
            "a lesion mask of 31.2 ml covers 100% of the left caudate (0.0 ml), 12% of the left "
            "putamen (0.6 ml), less than 1% of the left cerebral cortex (0.9 ml)",
        ),
    )
    assert judge(table(), lesion=lesion).reasons == (
        "a lesion mask of 31.2 ml covers no structure to speak of",
    )
    scan[["lesion_mm3", "lesion_share"]] = 5000.0, 0.1
    assert "and parts of 23 more" in judge(scan, lesion=lesion).reasons[0]


def test_asymmetry_is_signed_and_relative_to_the_mean():
    uneven = asymmetry(table(left_putamen=1.5 * USUAL_MM3))
    assert uneven["left_putamen"] == uneven["right_putamen"] == pytest.approx(0.4)
    assert uneven["left_thalamus"] == 0
    assert np.isnan(uneven["brainstem"])


@pytest.mark.parametrize(
    ("volumes", "dice", "level", "reason"),
    [
        ({"left_amygdala": 0.0}, {}, "fail", "not found: left amygdala"),
        ({"left_cerebral_cortex": 4e6}, {}, "fail", "ml, outside"),
        ({}, dict.fromkeys(range(N_STRUCTURES), 0.4), "fail", "mean expected Dice 0.40"),
        ({}, dict.fromkeys(range(N_STRUCTURES), 0.7), "look", "mean expected Dice 0.70"),
        ({}, {0: 0.3}, "look", "expected Dice below 0.5: left cerebral white matter"),
        ({"left_putamen": 90_000.0}, {}, "look", "sides differ by more than 50%: putamen"),
        ({}, dict.fromkeys(range(N_STRUCTURES), np.nan), "look", "no flip map"),
    ],
)
def test_each_limit_is_named(volumes, dice, level, reason):
    scan = table(**volumes)
    for row, value in dice.items():
        scan.loc[row, "expected_dice"] = value
    verdict = judge(scan)
    assert verdict.level == level
    assert any(reason in text for text in verdict.reasons), verdict.reasons


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (ImageQuality(noise=0.4), "noise is 0.40 of the contrast"),
        (ImageQuality(ripple=0.06), "ripples of 0.060"),
        (ImageQuality(cut_cm2=47.3), "the image ends in the brain (47 cm2"),
        (ImageQuality(turn_deg=28.6), "the head is turned by 29 degrees"),
        (ImageQuality(contrast=-0.4), "white matter isn't brighter than cortex"),
    ],
)
def test_a_bad_image_wants_a_look_whatever_the_flip_map_says(image, reason):
    verdict = judge(table(), image=image)
    assert verdict.level == "look"
    assert reason in verdict.reasons[0]
    assert judge(table(), image=ImageQuality(0.1, 0.2, 0.03, 3.0, 12.0, 0.3)).level == "pass"


@pytest.mark.parametrize(
    ("finding", "reason"),
    [
        (
            Finding("left_lateral_ventricle", misplaced_ml=25.04),
            "left lateral ventricle: 25.0 ml lie",
        ),
        (Finding("third_ventricle", times_largest=3.21), "third ventricle: 3.2 times the largest"),
        (Finding("brainstem", missing_ml=2.2), "brainstem: 2.2 ml of it are missing"),
    ],
)
def test_what_lies_as_in_no_brain_wants_a_look_by_name(finding, reason):
    verdict = judge(table(), plausibility=Plausibility("abc", 2.0, (finding,)))
    assert verdict.level == "look"
    assert verdict.reasons[0].startswith(reason)
    little = Finding("left_thalamus", 0.3, 0.3)
    assert judge(table(), plausibility=Plausibility("abc", 2.0, (little,))).level == "pass"


def test_structures_that_do_not_lie_as_in_a_brain_want_a_look():
    verdict = judge(table(), plausibility=Plausibility("abc", 23.4))
    assert verdict.level == "look"
    assert "(23 mm off)" in verdict.reasons[0]


def test_a_failure_comes_before_a_doubt_and_a_warning_wants_a_look():
    verdict = judge(table(left_amygdala=0.0), ["no qform"])
    assert verdict.level == "fail"
    assert verdict.reasons[-1] == "warning: no qform"
    assert judge(table(), ["no qform"]).level == "look"
