"""Group level: every finished scan in one table of volumes, one of quality, one page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hetseg_bids.config import Selection
from hetseg_bids.dataset.discovery import is_named
from hetseg_bids.dataset.files import is_folder
from hetseg_bids.errors import OutputError
from hetseg_bids.files import write_json, write_tsv
from hetseg_bids.outputs.finished import (
    KEYS,
    FinishedScan,
    Results,
    processed_alike,
    read_results,
    shortened,
)
from hetseg_bids.outputs.intracranial import volume_of
from hetseg_bids.quality.flip_map import CohortMap, cohort_map, load_template
from hetseg_bids.quality.outliers import LEAST_PEOPLE, Measure, Outlier, find_outliers
from hetseg_bids.quality.verdict import asymmetry, judge
from hetseg_bids.quality.whole import of_structures
from hetseg_bids.reports.change import PersonChange, cohort_change
from hetseg_bids.reports.group import Cohort, write_group_page
from hetseg_bids.runs import missing as absence
from hetseg_bids.runs import wide
from hetseg_bids.runs.change import write_changes
from hetseg_bids.runs.head_size import head_sizes, in_words, whole_values, without_intracranial
from hetseg_bids.segmentation.morphometry import COLUMNS
from hetseg_bids.segmentation.wholes import INTRACRANIAL, sums_of, title_of, with_wholes
from hetseg_bids.structures.aseg import ASEG, is_whole
from hetseg_bids.structures.label_sets import Structure

log = logging.getLogger(__name__)
_EVERYTHING = Selection()
MAP_SCANS = 500  # more change the mean map invisibly, and each takes about a second
_MM3_PER_ML = 1000.0
_QC_COLUMNS = KEYS | {
    "verdict": "pass, look or fail: see `reasons`",
    "reasons": "Why the verdict isn't a pass",
    "outlier_score": "Largest robust |z| over volumes (see volumes_relative_to), asymmetries, "
    "expected Dice, noise, edge, ripple and contrast, as a share of the cohort's limit: about 5 % "
    f"of good scans are above 1; n/a with fewer than {LEAST_PEOPLE} people of the same processing",
    "outlier_of": "The measures with |z| above the limit, worst first, three at most",
    "volumes_relative_to": "What volumes were divided by for the score: intracranial_ml where it "
    "is known for all scans of the same model and processing, measured by one head model; "
    "otherwise brain_mask_ml",
    "mean_expected_dice": "Mean over the structures; of all labels of an aseg, over the 28",
    "brain_mask_ml": "Volume of the brain mask, ml",
    "intracranial_ml": "Volume inside the skull, ml; n/a where it isn't known",
    "structures_ml": "Volume of all structures together, ml",
    "lesion_ml": "Volume of the lesion mask that was given, ml; n/a without one",
    "noise": "Noise in white matter, contrast of white matter to cortex = 1",
    "edge": "Step from white matter to cortex between neighbouring voxels, of the same contrast",
    "ripple": "Ripples of 1 to 3 mm in white matter, of the same contrast",
    "cut_cm2": "Largest area in which the brain mask meets a face of the image, cm2",
    "contrast": "White matter minus cortex, white matter minus lateral ventricles = 1",
    "turn_deg": "Angle of the line from the left to the right structures to the image's, degrees",
    "model": "Model and the start of its weights' SHA-256",
    "processing": "Version and settings; scans of another model or processing aren't compared",
}


def run_group(
    bids_dir: Path | None,
    out_dir: Path,
    selection: Selection = _EVERYTHING,
    *,
    covariates: Sequence[str] = (),
    normalise: str = "none",
) -> Path:
    """Write tables and page (returned) of the cohort, and of people with several sessions.

    Parameters
    ----------
    bids_dir : Path or None
    out_dir : Path
        The output folder of the participant level.
    selection : Selection
        Participants, sessions and runs of the tables; which scans of a session are in the wide
        ones; without a dataset, the files and folders that the participant level got.
    covariates : sequence of str
        Columns of participants.tsv that the wide tables get, too, or ``all``.
    normalise : {"none", "icv"}
        With ``icv`` the wide tables are written divided by the intracranial volume, too.

    Raises
    ------
    OutputError, OptionError
        If there are no finished scans, no such covariates, or no intracranial volumes to divide by.
    """
    results = read_results(out_dir)
    scans = _selected(results.scans, selection, out_dir)
    folder = _folder_of_people(bids_dir, out_dir, selection.images)
    participants = absence.read_participants(folder)
    label_set = scans[0].label_set
    described = wide.read_covariates(folder, participants, covariates, label_set)
    quality = _quality(scans)
    chosen = wide.chosen_scans(scans, quality, selection.choose)
    wide.check_normalise(normalise, chosen, out_dir)
    _write_morph(scans, out_dir)
    _write(quality.round(4), out_dir / "group_qc.tsv", _QC_COLUMNS)
    people = participants.reindex([scan.person for scan in scans])
    wide.write_wide_tables(out_dir, scans, quality, people, described, chosen, normalise)
    missing = _missing(bids_dir, out_dir, results, participants, selection)
    several = [] if bids_dir is None else _changes(bids_dir, out_dir, results.scans, scans)
    crashes = absence.crashes_since(out_dir, results).items()
    cohort = Cohort(
        **_distributions(scans),
        quality=quality,
        pages=[scan.page.relative_to(out_dir).as_posix() for scan in scans],
        participants=people.fillna("n/a"),
        missing=missing,
        crashes=[name for stem, names in crashes if is_named(stem, selection) for name in names],
        without_intracranial=without_intracranial(scans),
        relative_to=in_words(list(quality["volumes_relative_to"])),
        change=cohort_change(several, label_set.structures) if several else None,
    )
    return write_group_page(out_dir, cohort, _map(scans))


def _changes(
    bids_dir: Path, out_dir: Path, every: Sequence[FinishedScan], named: Sequence[FinishedScan]
) -> list[PersonChange]:
    """Write the changes of everybody, and return those whose sessions are all named.

    Of everybody, because pages of people without sessions to compare are removed.
    """
    sessions = {(scan.person, scan.keys["session_id"]) for scan in named}
    return [
        one
        for one in write_changes(bids_dir, out_dir, every)
        if {(one.person, session.name) for session in one.sessions} <= sessions
    ]


def _selected(
    scans: Sequence[FinishedScan], selection: Selection, out_dir: Path
) -> list[FinishedScan]:
    """The scans that the tables are of."""
    named = [scan for scan in scans if is_named(scan.keys["scan"], selection)]
    if not scans:
        raise OutputError("no finished scans", "run the participant level first", path=out_dir)
    if not named:
        raise OutputError(
            f"the options name none of {len(scans)} finished scans",
            "check --participant-label, --session-label and --run-label",
            path=out_dir,
        )
    there = {scan.person for scan in named}
    lacking = [f"sub-{x}" for x in selection.participants if f"sub-{x}" not in there]
    if lacking:
        log.warning("no finished scan of %s", shortened(lacking))
    if len(named) < len(scans):
        log.warning("%d of %d finished scans, as the options name them", len(named), len(scans))
    return named


def _missing(
    bids_dir: Path | None,
    out_dir: Path,
    results: Results,
    participants: pd.DataFrame,
    selection: Selection,
) -> pd.DataFrame | None:
    """Write who is missing, in the dataset or of the images."""
    known = (out_dir, results, participants.index)
    if bids_dir is None:
        missing = absence.missing_images(selection.images, *known)
    else:
        missing = absence.missing_scans(bids_dir, *known, selection.choose)
    if missing is not None:
        missing = absence.of_selection(missing, selection)
    _write_missing(missing, out_dir)
    return missing


def _quality(scans: Sequence[FinishedScan]) -> pd.DataFrame:
    heads, relative_to = head_sizes(scans)
    label_set = scans[0].label_set
    compared = ASEG.structures if is_whole(label_set.names) else label_set.structures
    volumes, *others = _matrices([of_structures(scan.table) for scan in scans])
    measures = cohort_measures(compared, volumes, heads, *others)
    outliers = compare([*measures, *image_measures(scans)], scans)
    return quality_table(scans, outliers, relative_to)


def _folder_of_people(bids_dir: Path | None, out_dir: Path, images: Sequence[Path]) -> Path:
    """Where participants.tsv lies: in the dataset, in the one folder of images, or in OUT."""
    folders = [path for path in images if is_folder(path)]
    return bids_dir or (folders[0] if len(folders) == 1 else out_dir)


def _write_morph(scans: Sequence[FinishedScan], out_dir: Path) -> None:
    rows = [with_wholes(scan.table, scan.wholes).assign(**scan.keys) for scan in scans]
    morph = pd.concat(rows)
    _write(morph[[*KEYS, *COLUMNS]].round(5), out_dir / "group_morph.tsv", KEYS | COLUMNS)


def cohort_measures(
    structures: Sequence[Structure],
    volumes: np.ndarray,
    heads: np.ndarray,
    dice: np.ndarray,
    uneven: np.ndarray,
) -> list[Measure]:
    """Measures of the structures by which scans are compared.

    Expected Dice, asymmetries, and the log of volumes relative to the head: its size is
    the largest and least interesting difference between people.

    Parameters
    ----------
    structures : sequence of Structure
    volumes, dice, uneven : (scans, S) float array
        Volume (mm3), expected Dice and asymmetry of each structure.
    heads : (scans,) float array
        What volumes are divided by, mm3, see `head_sizes`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.log(volumes / heads[:, None])
    measures = [Measure("Mean expected Dice", dice.mean(axis=1), "mean Dice", "low")]
    for i, structure in enumerate(structures):
        title = structure.title
        measures.append(Measure(f"{title} volume", relative[:, i], "volume"))
        measures.append(Measure(f"{title} expected Dice", dice[:, i], "Dice", "low"))
        if structure.hemisphere == "L":
            sides = structure.both_sides
            measures.append(Measure(f"{sides} asymmetry", uneven[:, i], "asymmetry"))
    return measures


def image_measures(scans: Sequence[FinishedScan]) -> list[Measure]:
    """Noise, blur, ripples and contrast, which scans of one protocol share."""
    images = [scan.image for scan in scans]
    noise, edge, ripple, contrast = (
        np.array([getattr(image, name) for image in images])
        for name in ("noise", "edge", "ripple", "contrast")
    )
    return [
        Measure("Image noise", noise, "noise", "high"),
        Measure("Edges of white matter", edge, "edge", "low"),
        Measure("Ripples in white matter", ripple, "ripple", "high"),
        Measure("Contrast of white matter to cortex", contrast, "contrast", "low"),
    ]


def compare(measures: Sequence[Measure], scans: Sequence[FinishedScan]) -> list[Outlier]:
    """Outliers among the scans of each model and processing.

    Differences in processing change the measures: they would hide true outliers and make false
    ones.

    Returns
    -------
    outliers : list of Outlier
        One per scan.
    """
    found = [Outlier(float("nan"), ())] * len(scans)
    groups = processed_alike(scans)
    for numbers in groups.values():
        ours = [replace(measure, values=measure.values[numbers]) for measure in measures]
        people = [scans[number].person for number in numbers]
        for number, outlier in zip(numbers, find_outliers(ours, people), strict=True):
            found[number] = outlier
    if len(groups) > 1:
        log.warning(
            "scans of %d models or ways of processing, which are compared only among themselves "
            "(columns model and processing of group_qc.tsv): %s; the participant level with one "
            "set of options makes them alike",
            len(groups),
            "; ".join(f"{len(ours)} with {', '.join(key)}" for key, ours in groups.items()),
        )
    return found


def quality_table(
    scans: Sequence[FinishedScan], outliers: Sequence[Outlier], relative_to: Sequence[str]
) -> pd.DataFrame:
    """One row per scan; columns as in the data dictionary of group_qc.tsv."""
    rows = []
    for scan, outlier, head in zip(scans, outliers, relative_to, strict=True):
        record = scan.record
        warnings, lesion = record.get("HetsegWarnings", ()), scan.lesion
        verdict = judge(scan.table, warnings, scan.image, scan.plausibility, lesion=lesion)
        mask = record.get("HetsegBrainMaskVolume")
        table = of_structures(scan.table)
        facts = {
            "verdict": verdict.level,
            "reasons": "; ".join(verdict.reasons) or "n/a",
            "outlier_score": outlier.score,
            "outlier_of": "; ".join(outlier.why) or "n/a",
            "volumes_relative_to": head,
            "mean_expected_dice": table["expected_dice"].astype(float).mean(),
            "brain_mask_ml": float("nan") if mask is None else mask / _MM3_PER_ML,
            "intracranial_ml": volume_of(record) / _MM3_PER_ML,
            "structures_ml": table["volume_mm3"].astype(float).sum() / _MM3_PER_ML,
            "lesion_ml": float("nan") if lesion is None else lesion.ml,
            **asdict(scan.image),
            "model": scan.model,
            "processing": scan.processing,
        }
        rows.append(scan.keys | facts)
    return pd.DataFrame(rows)[list(_QC_COLUMNS)]


def _matrices(tables: Sequence[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Volumes, expected Dice and asymmetries of all scans: (scans, structures) each."""
    columns = ("volume_mm3", "expected_dice")
    volumes, dice = (np.stack([t[c].astype(float).to_numpy() for t in tables]) for c in columns)
    return volumes, dice, np.stack([asymmetry(table).to_numpy() for table in tables])


def _distributions(scans: Sequence[FinishedScan]) -> dict[str, Any]:
    """What the page plots: structures, then what is known of the whole head."""
    label_set = scans[0].label_set
    volumes, dice, uneven = _matrices([scan.table for scan in scans])
    wholes = [INTRACRANIAL, *sums_of(label_set.names)]
    whole, whole_dice, low, high = (
        whole_values(scans, column, wholes)
        for column in ("volume_mm3", "expected_dice", "volume_ci95_low_mm3", "volume_ci95_high_mm3")
    )
    known = np.asarray(np.isfinite(whole).any(axis=0))
    heads = np.array([volume_of(scan.record) for scan in scans])
    titles = [title_of(name) for name, found in zip(wholes, known, strict=True) if found]
    return {
        "structures": [*(s.title for s in label_set.structures), *titles],
        "volume_ml": np.hstack([volumes, whole[:, known]]) / _MM3_PER_ML,
        "expected_dice": np.hstack([dice, whole_dice[:, known]]),
        "asymmetry": np.hstack([uneven, np.full((len(scans), len(titles)), np.nan)]),
        "intracranial_ml": np.stack([heads, low[:, 0], high[:, 0]], axis=1) / _MM3_PER_ML,
    }


def _map(scans: Sequence[FinishedScan]) -> CohortMap | None:
    """The mean flip map of one scan of each person, evenly spaced where there are very many."""
    first = {scan.person: scan for scan in reversed(scans)}
    usable = [
        (s.dseg, s.flip_probability)
        for _, s in sorted(first.items())
        if s.dseg.exists() and s.flip_probability.exists()
    ]
    if not usable:
        return None
    step = -(-len(usable) // MAP_SCANS)
    try:
        return cohort_map(usable[::step], load_template(), scans[0].label_set.structures)
    except Exception as error:  # without a map the page is still useful
        log.warning("no mean flip map on the page (%s: %s)", type(error).__name__, error)
        return None


def _write_missing(missing: pd.DataFrame | None, out_dir: Path) -> None:
    """Warn about missing scans, and write their list; the list of an earlier call is removed."""
    path = out_dir / "group_missing.tsv"
    if missing is None:
        for old in (path, path.with_suffix(".json")):
            old.unlink(missing_ok=True)
        return
    _write(missing, path, absence.COLUMNS)
    if len(missing):
        names = missing["scan"].where(missing["scan"] != "n/a", missing["participant_id"])
        log.warning(
            "%d scans or participants of the dataset without a finished result: %s (why: %s)",
            len(missing),
            shortened(list(names)),
            path,
        )


def _write(table: pd.DataFrame, path: Path, columns: dict[str, str]) -> None:
    write_tsv(path, table)
    dictionary = {name: {"Description": text} for name, text in columns.items()}
    write_json(path.with_suffix(".json"), dictionary)
