"""Head size at the group level: what volumes are divided by, and which scans lack it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hetseg_bids.outputs.finished import FinishedScan, processed_alike, shortened
from hetseg_bids.outputs.intracranial import head_model_of, reason_of, volume_of

INTRACRANIAL, BRAIN_MASK = "intracranial_ml", "brain_mask_ml"
"""Columns of group_qc.tsv: what volumes are divided by before scans are compared."""

_WORDS = {INTRACRANIAL: "the intracranial volume", BRAIN_MASK: "the brain mask's"}
_REASONS = 5  # in a line; some hold a number that differs from scan to scan


def head_sizes(scans: Sequence[FinishedScan]) -> tuple[npt.NDArray[np.float64], list[str]]:
    """What the volumes of each scan are divided by before scans are compared.

    It is one measure for all scans of a model and processing. The brain mask holds less than the
    skull, so that a scan whose intracranial volume isn't known would stand out for that alone.

    Parameters
    ----------
    scans : sequence of FinishedScan

    Returns
    -------
    sizes : (scans,) float array
        mm3: the intracranial volume where all scans that are compared have one, measured by the
        same head model; otherwise the volume of the brain mask. NaN where that isn't known.
    columns : list of str
        `INTRACRANIAL` or `BRAIN_MASK` for each scan.
    """
    sizes = np.array([volume_of(scan.record) for scan in scans])
    columns = [INTRACRANIAL] * len(scans)
    for numbers in processed_alike(scans).values():
        models = {head_model_of(scans[number].record) for number in numbers}
        if np.isfinite(sizes[numbers]).all() and len(models) == 1:
            continue
        for number in numbers:
            mask = scans[number].record.get("HetsegBrainMaskVolume")
            sizes[number] = np.nan if mask is None else float(mask)
            columns[number] = BRAIN_MASK
    return sizes, columns


def in_words(columns: Sequence[str]) -> str:
    """What the columns of `head_sizes` say.

    Examples
    --------
    >>> in_words(["brain_mask_ml", "brain_mask_ml"])
    "the brain mask's"
    >>> in_words(["intracranial_ml", "brain_mask_ml"])
    "the intracranial volume, or the brain mask's (not all scans of a processing have the first)"
    """
    words = [_WORDS[name] for name in _WORDS if name in columns]
    if len(words) == 1:
        return words[0]
    return f"{', or '.join(words)} (not all scans of a processing have the first)"


def whole_values(
    scans: Sequence[FinishedScan], column: str, names: Sequence[str]
) -> npt.NDArray[np.float64]:
    """A column of the rows of the whole head.

    Returns
    -------
    values : (scans, names) float array
        NaN where an older version wrote no such row, or it isn't known.
    """
    rows = [dict(zip(s.wholes["name"], s.wholes[column], strict=True)) for s in scans]
    values = [[row.get(name, np.nan) for name in names] for row in rows]
    return np.array(values, dtype=float).reshape(len(scans), len(names))


def without_intracranial(scans: Sequence[FinishedScan]) -> str:
    """How many scans have no intracranial volume, why and which; empty where all have one.

    Parameters
    ----------
    scans : sequence of FinishedScan

    Returns
    -------
    line : str
        ``2 of 9 scans (REASON: sub-01, sub-02)``.
    """
    names: dict[str, list[str]] = {}
    for scan in scans:
        why = reason_of(scan.record)
        if why:
            names.setdefault(why, []).append(scan.keys["scan"])
    if not names:
        return ""
    number = sum(map(len, names.values()))
    most = sorted(names.items(), key=lambda item: -len(item[1]))
    reasons = [f"{why}: {shortened(ours)}" for why, ours in most[:_REASONS]]
    if len(most) > _REASONS:
        reasons.append(f"{len(most) - _REASONS} other reasons")
    return f"{number} of {len(scans)} scans ({'; '.join(reasons)})"
