"""Whether somebody should look at a result: a verdict from its numbers, without ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.quality.whole import of_structures
from hetseg_bids.segmentation.lesioned import GivenLesion
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.structures.label_sets import bare_name, hemisphere_of, partner_of

Level = Literal["pass", "look", "fail"]
_MM3_PER_ML = 1000.0
_SHOWN_SHARE, _SHOWN_MM3 = 0.01, 500.0  # of a structure in a lesion: less isn't named
_MOST_NAMED = 5
# with these the structures together are a brain, and have its volume
_MOST_OF_A_BRAIN = {"cerebral_cortex", "cerebral_white_matter", "cerebellum"}


@dataclass(frozen=True)
class QcLimits:
    """Limits of the verdict; not calibrated on rated scans yet.

    Attributes
    ----------
    fail_dice, look_dice : float
        Mean expected Dice below which a scan gets the verdict fail or look.
    structure_dice : float
        Expected Dice of a single structure below which the verdict is look.
    brain_ml : tuple of 2 float
        Range of the total volume of all structures outside which a scan fails: no living brain
        is smaller or larger. Only for the shipped models, whose structures are the whole brain.
    asymmetry : float
        |L - R| / mean of the two sides above which the verdict is look.
    misplaced_ml, missing_ml : float
        `Finding` of a structure from which on the verdict is look.
    noise, ripple, cut_cm2, turn_deg : float
        `ImageQuality` above which the verdict is look: Dice falls with noise, with motion, when
        the brain is cut off and when the head is turned. None of 17 good scans had ripples above
        the limit, 33 of 34 copies with simulated motion of 3 mm had (benchmarks/ripples.py).
    contrast : float
        `ImageQuality.contrast` of this or less gets a look, because the image isn't T1w. Weak
        contrast has no limit, because ordinary scans may have as little (docs/decisions.md, 16).
    """

    fail_dice: float = 0.5
    look_dice: float = 0.75
    structure_dice: float = 0.5
    brain_ml: tuple[float, float] = (500.0, 2200.0)
    asymmetry: float = 0.5
    misplaced_ml: float = 1.0
    missing_ml: float = 1.0
    noise: float = 0.35
    ripple: float = 0.047
    cut_cm2: float = 20.0
    turn_deg: float = 20.0
    contrast: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The verdict on one scan.

    Attributes
    ----------
    level : {"pass", "look", "fail"}
    reasons : tuple of str
        Why it isn't a pass, the most serious first.
    """

    level: Level
    reasons: tuple[str, ...]


def asymmetry(table: pd.DataFrame) -> pd.Series:
    """(L - R) / mean of both sides, by structure name; NaN for midline structures.

    Parameters
    ----------
    table : DataFrame
        As `morphometry.measure` makes it: ``name`` and ``volume_mm3``.

    Returns
    -------
    asymmetry : Series
        By structure name; both sides have the same value.

    Examples
    --------
    >>> names, volumes = ["left_putamen", "right_putamen", "brainstem"], [5500, 4500, 20000]
    >>> asymmetry(pd.DataFrame({"name": names, "volume_mm3": volumes})).to_dict()
    {'left_putamen': 0.2, 'right_putamen': 0.2, 'brainstem': nan}
    """
    volumes = table.set_index("name")["volume_mm3"].astype(float)
    values = {}
    for name in volumes.index:
        here, there = volumes[name], volumes[partner_of(name)]
        side = hemisphere_of(name)
        if side is None or here + there <= 0:
            values[name] = float("nan")
        else:
            values[name] = (2 if side == "L" else -2) * (here - there) / (here + there)
    return pd.Series(values, name="asymmetry")


def judge(
    table: pd.DataFrame,
    warnings: Sequence[str] = (),
    image: ImageQuality | None = None,
    plausibility: Plausibility | None = None,
    limits: QcLimits | None = None,
    lesion: GivenLesion | None = None,
) -> Verdict:
    """The verdict on one scan.

    Parameters
    ----------
    table : DataFrame
        As `morphometry.measure` makes it.
    warnings : sequence of str
        `PreparedImage.warnings`: with any, the verdict is at least look.
    image : ImageQuality, optional
    plausibility : Plausibility, optional
    limits : QcLimits, optional
    lesion : GivenLesion, optional
        With one, the verdict is at least look.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"name": ["brainstem"], "volume_mm3": [20000.0], "expected_dice": [0.92]}
    ... )
    >>> judge(table)
    Verdict(level='pass', reasons=())
    >>> judge(table, image=ImageQuality(turn_deg=30)).reasons
    ('the head is turned by 30 degrees',)
    """
    limits = limits or QcLimits()
    table = of_structures(table)
    failing = _failures(table, limits)
    looking = [] if lesion is None else [_lesion(table, lesion.ml)]
    looking += [*_doubts(table, limits), *image_doubts(image or ImageQuality(), limits).values()]
    looking += _implausible(plausibility or Plausibility(), limits)
    looking += [f"warning: {text}" for text in warnings]
    level: Level = "fail" if failing else "look" if looking else "pass"
    return Verdict(level, (*failing, *looking))


def _failures(table: pd.DataFrame, limits: QcLimits) -> list[str]:
    reasons = []
    volume = table["volume_mm3"].astype(float)
    lesioned = _column(table, "lesion_share") > 0  # the lesion's line names it
    missing = table.loc[(volume == 0) & ~lesioned, "name"]
    if len(missing):
        reasons.append(f"not found: {_names(missing)}")
    brain = volume.sum() / _MM3_PER_ML
    low, high = limits.brain_ml
    whole = {bare_name(name) for name in table["name"]} >= _MOST_OF_A_BRAIN
    if whole and not low <= brain <= high:
        reasons.append(f"all structures together have {brain:.0f} ml, outside {low:.0f}-{high:.0f}")
    mean = table["expected_dice"].astype(float).mean()
    if mean < limits.fail_dice:
        reasons.append(f"mean expected Dice {mean:.2f} is below {limits.fail_dice}")
    return reasons


def _doubts(table: pd.DataFrame, limits: QcLimits) -> list[str]:
    reasons = []
    dice = table["expected_dice"].astype(float)
    if dice.isna().all():
        reasons.append("this model has no flip map, so nothing is known about its errors")
    elif limits.fail_dice <= dice.mean() < limits.look_dice:
        reasons.append(f"mean expected Dice {dice.mean():.2f} is below {limits.look_dice}")
    unsure = table.loc[dice < limits.structure_dice, "name"]
    if len(unsure):
        reasons.append(f"expected Dice below {limits.structure_dice}: {_names(unsure)}")
    uneven = asymmetry(table).abs()
    uneven = uneven[(uneven > limits.asymmetry) & (uneven < 2)]  # 2: one side is missing
    if len(uneven):
        pairs = dict.fromkeys(bare_name(name) for name in uneven.index)
        reasons.append(f"sides differ by more than {limits.asymmetry:.0%}: {_names(pairs)}")
    return reasons


def _lesion(table: pd.DataFrame, ml: float) -> str:
    """What a lesion mask covers, the structure with the largest share first."""
    named = table.assign(
        share=_column(table, "lesion_share"), mm3=_column(table, "lesion_mm3")
    ).sort_values("share", ascending=False, kind="stable")
    named = named[(named["share"] >= _SHOWN_SHARE) | (named["mm3"] >= _SHOWN_MM3)]
    columns = (named["share"], named["mm3"], named["name"])
    shown = [
        f"{'less than 1%' if share < _SHOWN_SHARE else f'{share:.0%}'} of the "
        f"{name.replace('_', ' ')} ({mm3 / _MM3_PER_ML:.1f} ml)"
        for share, mm3, name in zip(*columns, strict=True)
    ]
    more = f" and parts of {len(shown) - _MOST_NAMED} more" if len(shown) > _MOST_NAMED else ""
    covered = ", ".join(shown[:_MOST_NAMED]) or "no structure to speak of"
    return f"a lesion mask of {ml:.1f} ml covers {covered}{more}"


def _column(table: pd.DataFrame, name: str) -> pd.Series:
    """Numbers of a column; NaN where older tables, or those without a lesion, have none."""
    return table.reindex(columns=[name])[name].astype(float)


def _implausible(found: Plausibility, limits: QcLimits) -> list[str]:
    reasons = []
    if not found.fits:
        reasons.append(
            f"the structures don't lie to each other as in a brain ({found.misfit_mm:.0f} mm off)"
        )
    for finding in found.findings:
        name = finding.structure.replace("_", " ")
        if finding.misplaced_ml >= limits.misplaced_ml:
            reasons.append(f"{name}: {finding.misplaced_ml:.1f} ml lie where it was never seen")
        if finding.times_largest:
            reasons.append(f"{name}: {finding.times_largest:.1f} times the largest that was seen")
        if finding.missing_ml >= limits.missing_ml:
            reasons.append(
                f"{name}: {finding.missing_ml:.1f} ml of it are missing where it always is"
            )
    return reasons


def image_doubts(image: ImageQuality, limits: QcLimits | None = None) -> dict[str, str]:
    """Measures of the image that are beyond their limits.

    Parameters
    ----------
    image : ImageQuality
    limits : QcLimits, optional

    Returns
    -------
    reasons : dict of str to str
        By the field of `ImageQuality`.

    Examples
    --------
    >>> image_doubts(ImageQuality(noise=0.1, turn_deg=30))
    {'turn_deg': 'the head is turned by 30 degrees'}
    """
    limits = limits or QcLimits()
    reasons = {}
    if image.noise > limits.noise:
        reasons["noise"] = f"noise is {image.noise:.2f} of the contrast of white matter to cortex"
    if image.ripple > limits.ripple:
        reasons["ripple"] = (
            f"white matter has ripples of {image.ripple:.3f} of its contrast to cortex, as motion "
            "leaves them"
        )
    if image.contrast <= limits.contrast:
        reasons["contrast"] = "white matter isn't brighter than cortex, as it is in a T1w image"
    if image.cut_cm2 > limits.cut_cm2:
        reasons["cut_cm2"] = (
            f"the image ends in the brain ({image.cut_cm2:.0f} cm2 of it at one face)"
        )
    if image.turn_deg > limits.turn_deg:
        reasons["turn_deg"] = f"the head is turned by {image.turn_deg:.0f} degrees"
    return reasons


def _names(names: Iterable[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)
