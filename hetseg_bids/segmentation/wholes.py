"""Rows of the morph table for the whole head: intracranial volume, brain, grey and white matter.

All but the intracranial volume are sums over labels, as FreeSurfer's `ComputeBrainVolumeStats`
defines them, but of voxels: hetseg has no surfaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from hetseg_bids.segmentation.intracranial import Intracranial, repeat_sd, volume_sd
from hetseg_bids.segmentation.morphometry import COLUMNS
from hetseg_bids.segmentation.uncertainty import NORMAL_975
from hetseg_bids.structures.aseg import ASEG, is_whole
from hetseg_bids.structures.label_sets import bare_name

INTRACRANIAL = "intracranial"
SUMS = {
    "total_brain": "All labels without brainstem, ventricles, choroid plexus and CSF",
    "subcortical_grey": "Thalamus, caudate, putamen, pallidum, hippocampus, amygdala, accumbens "
    "and ventral diencephalon",
    "total_grey": "Subcortical grey matter, cerebral cortex and cerebellar cortex",
    "cerebral_white": "Cerebral white matter, corpus callosum and WM hypointensities",
}
BRAIN = "brain_with_ventricles"
"""Known to `labels_of` and to FreeSurfer's files, but not a row of the table."""

_SUBCORTICAL = (
    *("thalamus", "caudate", "putamen", "pallidum", "hippocampus", "amygdala"),
    *("accumbens", "ventral_dc"),
)
_FLUID = (
    *("lateral_ventricle", "inferior_lateral_ventricle", "third_ventricle", "fourth_ventricle"),
    *("choroid_plexus", "csf"),
)
_WHITE = ("cerebral_white_matter", "wm_hypointensities", "corpus_callosum")
_CALLOSUM = "cc_"  # its fifths, in all labels of an aseg
_NUMBERS = [
    "volume_mm3",
    "expected_volume_mm3",
    "volume_sd_mm3",
    "volume_ci95_high_mm3",
    "volume_repeat_sd_mm3",
]
_VOXEL_MM3 = 8.0  # in which the uncertainty of the head model is summed


def labels_of(whole: str, names: Sequence[str]) -> list[str]:
    """The labels whose volumes are summed.

    Parameters
    ----------
    whole : str
        One of `SUMS`, or `BRAIN`.
    names : sequence of str
        Labels of a table: the 28 structures, or all of an aseg.

    Returns
    -------
    summed : list of str
        Empty where the labels don't tell it: others than those two sets have no sums, and grey and
        white matter of the cerebellum are one of the 28 structures.

    Examples
    --------
    >>> labels_of("cerebral_white", ASEG.names)
    ['left_cerebral_white_matter', 'right_cerebral_white_matter', 'corpus_callosum']
    >>> labels_of("total_grey", ASEG.names)
    []
    """
    if not _is_brain(names):
        return []
    every = is_whole(names)
    bare = {name: bare_name(name) for name in names}
    if whole == BRAIN:
        return [name for name in names if name != "brainstem"]
    if whole == "total_brain":
        return [n for n in names if n != "brainstem" and bare[n] not in _FLUID]
    if whole == "subcortical_grey":
        return [n for n in names if bare[n] in _SUBCORTICAL]
    if whole == "cerebral_white":
        return [n for n in names if bare[n] in _WHITE or n.startswith(_CALLOSUM)]
    grey = (*_SUBCORTICAL, "cerebral_cortex", "cerebellum_cortex")
    return [n for n in names if bare[n] in grey] if every else []


def sums_of(names: Sequence[str]) -> tuple[str, ...]:
    """Rows of sums that follow these labels; structures of a user's own have none.

    Examples
    --------
    >>> sums_of(ASEG.names)
    ('total_brain', 'subcortical_grey', 'total_grey', 'cerebral_white')
    """
    return tuple(SUMS) if _is_brain(names) else ()


def rows_of(names: Sequence[str]) -> tuple[str, ...]:
    """All rows that follow these labels in the morph table."""
    return (INTRACRANIAL, *sums_of(names))


def is_whole_table(path: Path, names: Sequence[str]) -> bool:
    """Whether a morph table has today's columns and every row of these labels.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "morph.tsv"
    >>> rows = pd.DataFrame({"name": ["lesion", INTRACRANIAL]}).reindex(columns=list(COLUMNS))
    >>> rows.to_csv(path, sep=chr(9), index=False, na_rep="n/a")
    >>> is_whole_table(path, ["lesion"]), is_whole_table(path, ["lesion", "other"])
    (True, False)
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    header, *rows = [line.split("\t") for line in text.splitlines()] or [[]]
    if header != list(COLUMNS) or not text.endswith("\n"):
        return False
    place = header.index("name")
    found = tuple(row[place] if len(row) == len(header) else "" for row in rows)
    return found == (*names, *rows_of(names))


def title_of(whole: str) -> str:
    """A row as pages show it.

    Examples
    --------
    >>> title_of("total_grey"), title_of("intracranial")
    ('Total grey', 'Intracranial')
    """
    return whole.replace("_", " ").capitalize()


def whole_rows(table: pd.DataFrame, found: Intracranial | None = None) -> pd.DataFrame:
    """The rows that follow the structures in the morph table.

    Parameters
    ----------
    table : DataFrame
        As `morphometry.measure` makes it.
    found : Intracranial, optional

    Returns
    -------
    rows : DataFrame
        Columns as in `COLUMNS`; NaN where something isn't known. No sums of structures that are
        a user's own.

    Examples
    --------
    >>> table = pd.DataFrame({"name": ASEG.names, "volume_mm3": 100.0})
    >>> rows = whole_rows(table).set_index("name")
    >>> float(rows.loc["cerebral_white", "volume_mm3"])  # both sides and the corpus callosum
    300.0
    >>> float(rows.loc["total_grey", "volume_mm3"])
    nan
    """
    rows = [_intracranial(found)]
    names = list(table["name"])
    values = table.set_index("name")
    for whole in sums_of(names):
        summed = labels_of(whole, names)
        known = _sum(values.loc[summed]) if summed else {}
        rows.append({"name": whole, **known})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _is_brain(names: Sequence[str]) -> bool:
    """Whether these are all labels of a brain, and not structures of a user's own."""
    return is_whole(names) or tuple(names) == ASEG.names


def with_wholes(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Structures, then the whole head, as they are written."""
    both = pd.concat([table, rows.astype({"index": "Int64"})], ignore_index=True)
    return both.astype({"index": "Int64"})


def _intracranial(found: Intracranial | None) -> dict[str, object]:
    row: dict[str, object] = {"name": INTRACRANIAL}
    if found is None or found.uncertainty is None:
        return row
    u = found.uncertainty
    sd = volume_sd(found.volume_mm3, u.flip_variance * _VOXEL_MM3)
    return row | {
        "volume_mm3": found.volume_mm3,
        "expected_volume_mm3": u.expected_size * _VOXEL_MM3,
        "volume_sd_mm3": sd,
        "volume_ci95_low_mm3": found.volume_mm3 - NORMAL_975 * sd,
        "volume_ci95_high_mm3": found.volume_mm3 + NORMAL_975 * sd,
        "volume_repeat_sd_mm3": repeat_sd(found.volume_mm3),
        "mean_flip_probability": u.mean_flip_probability,
        "expected_dice": u.expected_dice,
    }


def _sum(rows: pd.DataFrame) -> dict[str, float]:
    """Sum of labels; the errors of both sides are the same, those of structures independent."""
    numbers = rows.reindex(columns=_NUMBERS).astype(float)
    volume = float(numbers["volume_mm3"].sum())
    if numbers["volume_sd_mm3"].isna().any():
        return {"volume_mm3": volume}
    sides = [bare_name(name) for name in rows.index]
    sd, repeat = (
        float(np.sqrt((numbers[column].groupby(sides).sum() ** 2).sum()))
        for column in ("volume_sd_mm3", "volume_repeat_sd_mm3")
    )
    middle = numbers["volume_ci95_high_mm3"] - NORMAL_975 * numbers["volume_sd_mm3"]
    return {
        "volume_mm3": volume,
        "expected_volume_mm3": float(numbers["expected_volume_mm3"].sum()),
        "volume_sd_mm3": sd,
        "volume_ci95_low_mm3": max(0.0, float(middle.sum()) - NORMAL_975 * sd),
        "volume_ci95_high_mm3": float(middle.sum()) + NORMAL_975 * sd,
        "volume_repeat_sd_mm3": repeat,
    }
