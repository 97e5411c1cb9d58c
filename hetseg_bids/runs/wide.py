"""Wide tables of the group level: one row per scan, one column per structure."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from hetseg_bids.dataset.names import by_name, one_of_each_session
from hetseg_bids.errors import OptionError
from hetseg_bids.files import read_json, write_json, write_tsv
from hetseg_bids.outputs.finished import KEYS, FinishedScan, shortened
from hetseg_bids.outputs.intracranial import head_model_of, volume_of
from hetseg_bids.quality.verdict import Level
from hetseg_bids.runs.head_size import whole_values, without_intracranial
from hetseg_bids.segmentation.wholes import SUMS, sums_of
from hetseg_bids.structures.label_sets import LabelSet

log = logging.getLogger(__name__)
_ALL = "all"
_ICV = "intracranial_mm3"
_SHARE_DIGITS = 9  # of a share: 1e-9 is about 0.001 mm3
_TABLES = {
    "group_volumes": ("volume_mm3", "Volume of the voxels labelled as this structure"),
    "group_soft_volumes": (
        "expected_volume_mm3",
        "Soft volume: the probability of this structure, summed over all voxels of the image",
    ),
}
_FACTS = KEYS | {
    "model": "Model and the start of its weights' SHA-256",
    "processing": "Version and settings of hetseg",
    "best_of_session": "yes for the scan of a session that has the best verdict and, among equal "
    "ones, the largest mean expected Dice; otherwise no. T1w and UNIT1 are compared apart",
    "brain_mask_mm3": "Volume of the brain mask. It isn't the intracranial volume: it holds "
    "little of the fluid around the brain",
    _ICV: "Volume inside the skull; n/a where it isn't known (HetsegIntracranialReason in the "
    "JSON of the dseg says why)",
}


def read_covariates(
    bids_dir: Path, participants: pd.DataFrame, wanted: Sequence[str], label_set: LabelSet
) -> dict[str, Any]:
    """The columns of participants.tsv that are joined, each with its data dictionary.

    Parameters
    ----------
    bids_dir : Path
        Dataset; its participants.json, if it is there, describes the columns.
    participants : DataFrame
        participants.tsv, by participant_id.
    wanted : sequence of str
        Names of columns, or ``all``.
    label_set : LabelSet
        The structures, whose names are columns of the tables.

    Raises
    ------
    OptionError
        If there is no such column, or the tables have one of the same name.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> people = pd.DataFrame({"age": ["31"], "sex": ["F"]}, index=["sub-01"])
    >>> list(read_covariates(Path("no-dataset"), people, ["all"], ASEG))
    ['age', 'sex']
    """
    if not wanted:
        return {}
    option, path = "--covariates", bids_dir / "participants.tsv"
    there = [str(name) for name in participants.columns]
    if not there:
        raise OptionError("not there or without columns to join", option=option, path=path)
    names = there if list(wanted) == [_ALL] else list(dict.fromkeys(wanted))
    unknown = [name for name in names if name not in there]
    if unknown:
        problem, remedy = f"no column {', '.join(unknown)}", f"it has {', '.join(there)}"
        raise OptionError(problem, remedy, option=option, path=path)
    ours = {*_FACTS, *label_set.names, *sums_of(label_set.names)}
    taken = [name for name in names if name in ours]
    if taken:
        raise OptionError(
            f"the tables have a column {', '.join(taken)} of their own",
            "rename it, or name the columns that you want",
            option=option,
            path=path,
        )
    try:
        known = read_json(path.with_suffix(".json"))
    except (OSError, ValueError):  # BIDS only recommends it
        known = {}
    plain = {"Description": "From participants.tsv"}
    return {name: known[name] if _is_description(known.get(name)) else plain for name in names}


def _is_description(entry: object) -> bool:
    """Whether it can be written into a sidecar: NaN and the like are no JSON."""
    try:
        json.dumps(entry, allow_nan=False)
    except ValueError:
        return False
    return isinstance(entry, dict)


def check_normalise(normalise: str, scans: Sequence[FinishedScan], out_dir: Path) -> None:
    """Refuse to divide by what no scan of the tables has.

    Raises
    ------
    OptionError
        With ``icv``, if no scan has an intracranial volume.
    """
    if normalise != "icv":
        return
    measured = [scan.record for scan in scans if volume_of(scan.record) > 0]
    models = {head_model_of(record) for record in measured}
    if len(models) > 1:
        log.warning(
            "--normalise icv: intracranial volumes of %d head models, which may differ; the "
            "participant level makes them alike",
            len(models),
        )
    if not measured:
        _remove_shares(out_dir)  # of an earlier call
        raise OptionError(
            f"the intracranial volume isn't known for {without_intracranial(scans)}",
            "leave the option out",
            option="--normalise icv",
        )


def chosen_scans(
    scans: Sequence[FinishedScan], quality: pd.DataFrame, choose: str
) -> list[FinishedScan]:
    """The scans that have a row in the wide tables.

    Parameters
    ----------
    scans, quality
        As for `write_wide_tables`.
    choose : {"best", "first", "all"}
        Which scans of a session and suffix have one.
    """
    if choose == _ALL:
        return list(scans)
    if choose == "first":
        kept = one_of_each_session(scan.keys["scan"] for scan in scans)
    else:
        kept = best_of_sessions(quality)
    return [scan for scan in scans if scan.keys["scan"] in kept]


def write_wide_tables(
    out_dir: Path,
    scans: Sequence[FinishedScan],
    quality: pd.DataFrame,
    participants: pd.DataFrame,
    covariates: dict[str, Any],
    chosen: Sequence[FinishedScan],
    normalise: str,
) -> None:
    """Write OUT/group_volumes.tsv and group_soft_volumes.tsv, with data dictionaries.

    Parameters
    ----------
    out_dir : Path
    scans : sequence of FinishedScan
    quality : DataFrame
        group_qc.tsv, one row per scan, in their order.
    participants : DataFrame
        participants.tsv, one row per scan, in their order: NaN where it has no row.
    covariates : dict of str
        Columns of it that are joined, as `read_covariates` returns them.
    chosen : sequence of FinishedScan
        Those of them that have a row, see `chosen_scans`.
    normalise : {"none", "icv"}
        With ``icv`` both tables are written divided by the intracranial volume, too, as
        group_volumes_icv.tsv and group_soft_volumes_icv.tsv. Otherwise those of an earlier call
        are removed.
    """
    facts = _facts(scans, best_of_sessions(quality))
    rows = facts["scan"].isin([scan.keys["scan"] for scan in chosen])
    left = pd.concat([facts, _joined(participants, list(covariates))], axis=1)
    described = {name: {"Description": text} for name, text in _FACTS.items()} | covariates
    for name in ("brain_mask_mm3", _ICV):
        described[name]["Units"] = "mm^3"
    names = scans[0].label_set.names
    for name, (column, text) in _TABLES.items():
        volumes = _volumes(scans, column)
        texts = dict.fromkeys(names, text) | {s: f"Sum: {SUMS[s]}" for s in sums_of(names)}
        _write(out_dir / f"{name}.tsv", left, volumes.round(5), rows, described, texts, "mm^3")
        relative = out_dir / f"{name}_icv.tsv"
        if normalise == "icv":
            shares = volumes.div(facts[_ICV], axis=0).round(_SHARE_DIGITS)
            texts = {n: f"{name}.tsv / {_ICV}. {t}" for n, t in texts.items()}
            _write(relative, left, shares, rows, described, texts, "1")
    if normalise != "icv":
        _remove_shares(out_dir)
    lacking = without_intracranial(chosen)
    if normalise == "icv" and lacking:
        log.warning("--normalise icv: n/a for %s", lacking)


def _remove_shares(out_dir: Path) -> None:
    """Remove what an earlier call with ``icv`` wrote: it may not fit the present results."""
    for name in _TABLES:
        for ending in ("tsv", "json"):
            (out_dir / f"{name}_icv.{ending}").unlink(missing_ok=True)


def _facts(scans: Sequence[FinishedScan], best: frozenset[str]) -> pd.DataFrame:
    """The first columns of each scan."""
    rows = [
        scan.keys
        | {
            "model": scan.model,
            "processing": scan.processing,
            "best_of_session": "yes" if scan.keys["scan"] in best else "no",
            "brain_mask_mm3": scan.record.get("HetsegBrainMaskVolume"),
            _ICV: volume_of(scan.record),
        }
        for scan in scans
    ]
    return pd.DataFrame(rows, columns=list(_FACTS))


def _volumes(scans: Sequence[FinishedScan], column: str) -> pd.DataFrame:
    """Structures, then sums, of each scan."""
    names = scans[0].label_set.names
    sums = sums_of(names)
    structures = [scan.table[column].to_numpy(dtype=float) for scan in scans]
    values = np.hstack([structures, whole_values(scans, column, sums)])
    return pd.DataFrame(values, columns=[*names, *sums])


def _write(
    path: Path,
    left: pd.DataFrame,
    values: pd.DataFrame,
    chosen: pd.Series,
    described: dict[str, Any],
    texts: dict[str, str],
    units: str,
) -> None:
    """Write a table and its data dictionary."""
    write_tsv(path, pd.concat([left, values], axis=1)[chosen])
    columns = {name: {"Description": text, "Units": units} for name, text in texts.items()}
    write_json(path.with_suffix(".json"), described | columns)


def _joined(participants: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The covariates of each scan, ``n/a`` where a cell is empty or there is no row."""
    lost = sorted({*participants.index[participants.isna().all(axis=1)]})
    if names and lost:
        log.warning(
            "--covariates: n/a for %d participants without a row in participants.tsv: %s",
            len(lost),
            shortened(lost),
        )
    return participants[names].fillna("n/a").replace("", "n/a").reset_index(drop=True)


def best_of_sessions(quality: pd.DataFrame) -> frozenset[str]:
    """Names of the best scan of each session.

    The verdict comes first, because it sees motion in the image, which lowers expected Dice too
    little; then mean expected Dice; then the name.

    Parameters
    ----------
    quality : DataFrame
        group_qc.tsv: ``scan``, ``verdict`` and ``mean_expected_dice``.

    Examples
    --------
    >>> levels, dice = ["pass", "look", "pass"], [0.84, 0.86, 0.85]
    >>> table = pd.DataFrame({"verdict": levels, "mean_expected_dice": dice})
    >>> best_of_sessions(table.assign(scan=["sub-01_run-1", "sub-01_run-2", "sub-01_run-3"]))
    frozenset({'sub-01_run-3'})
    """
    table = quality.set_index("scan")
    levels = table["verdict"].map(get_args(Level).index)
    loss = -table["mean_expected_dice"].astype(float).fillna(0.0)  # none without flip map
    return one_of_each_session(table.index, lambda scan: (levels[scan], loss[scan], by_name(scan)))
