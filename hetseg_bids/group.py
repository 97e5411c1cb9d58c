"""Group level: every finished scan in one table of volumes, one of quality, one page."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hetseg_bids.cohort import CohortMap, cohort_map, load_template
from hetseg_bids.discovery import entities_of
from hetseg_bids.errors import InputError
from hetseg_bids.files import atomic_path, read_json, write_json
from hetseg_bids.image_quality import ImageQuality
from hetseg_bids.label_tables import read_label_table
from hetseg_bids.morphometry import COLUMNS
from hetseg_bids.outliers import Measure, find_outliers
from hetseg_bids.plausibility import Plausibility
from hetseg_bids.qc import asymmetry, judge
from hetseg_bids.reports.group import Cohort, write_group_page
from hetseg_bids.structures import LabelSet, Structure

log = logging.getLogger(__name__)
MAP_SCANS = 500  # more don't change the mean map to the eye, and each takes about a second
_MARK = "_seg-hetseg"
_RECORD = "_dseg.json"
_MM3_PER_ML = 1000.0
_KEYS = {
    "participant_id": "Participant",
    "session_id": "Session",
    "scan": "Entities of the T1w image",
}
_QC_COLUMNS = _KEYS | {
    "verdict": "pass, look or fail: see `reasons`",
    "reasons": "Why the verdict isn't a pass",
    "outlier_score": "Largest robust |z| over volumes (relative to the brain mask's), asymmetries, "
    "expected Dice, noise, edge, ripple and contrast; n/a with fewer than 8 scans",
    "outlier_of": "The measures with |z| above 3.5, worst first, three at most",
    "mean_expected_dice": "Mean over the structures",
    "brain_mask_ml": "Volume of the brain mask, ml",
    "structures_ml": "Volume of all structures together, ml",
    "noise": "Noise in white matter, contrast of white matter to cortex = 1",
    "edge": "Step from white matter to cortex between neighbouring voxels, of the same contrast",
    "ripple": "Ripples of 1 to 3 mm in white matter, of the same contrast",
    "cut_cm2": "Largest area in which the brain mask meets a face of the image, cm2",
    "contrast": "White matter minus cortex, white matter minus lateral ventricles = 1",
    "turn_deg": "Angle of the line from the left to the right structures to the image's, degrees",
    "model": "Model and the start of its weights' SHA-256",
}


@dataclass(frozen=True)
class FinishedScan:
    """What the group level reads of a scan.

    Attributes
    ----------
    keys : dict
        participant_id, session_id, scan.
    table : DataFrame
        As `morphometry.measure` makes it.
    record : dict
        Sidecar of the dseg.
    label_set : LabelSet
    image : ImageQuality
    plausibility : Plausibility
    dseg, flip, page : Path
    """

    keys: dict[str, str]
    table: pd.DataFrame
    record: dict[str, Any]
    label_set: LabelSet
    image: ImageQuality
    plausibility: Plausibility
    dseg: Path
    flip: Path
    page: Path


def run_group(bids_dir: Path, out_dir: Path) -> Path:
    """Write group_morph.tsv, group_qc.tsv (with data dictionaries) and group.html.

    Works on whatever is finished and may be run again at any time.  Returns the page's path.

    Raises
    ------
    InputError
        If there are no finished scans.
    """
    scans = list(finished_scans(out_dir))
    if not scans:
        raise InputError(f"{out_dir}: no finished scans; run the participant level first")
    morph = pd.concat([scan.table.assign(**scan.keys) for scan in scans])
    morph = morph[[*_KEYS, *COLUMNS]]
    _write(morph.round(5), out_dir / "group_morph.tsv", _KEYS | COLUMNS)
    volumes, dice = _wide(scans, "volume_mm3"), _wide(scans, "expected_dice")
    uneven = np.stack([asymmetry(scan.table).to_numpy() for scan in scans])
    masks = np.array([float(s.record.get("HetsegBrainMaskVolume", np.nan)) for s in scans])
    structures = scans[0].label_set.structures
    measures = cohort_measures(structures, volumes, masks, dice, uneven)
    quality = quality_table(scans, [*measures, *image_measures(scans)])
    _write(quality.round(4), out_dir / "group_qc.tsv", _QC_COLUMNS)
    cohort = Cohort(
        structures=[s.title for s in structures],
        quality=quality,
        pages=[scan.page.relative_to(out_dir).as_posix() for scan in scans],
        volume_ml=volumes / _MM3_PER_ML,
        expected_dice=dice,
        asymmetry=uneven,
        participants=_participants(bids_dir, quality["participant_id"]),
        missing=_missing(bids_dir, quality["participant_id"]),
        crashes=sorted(path.name for path in (out_dir / "logs").glob("crash-*.txt")),
    )
    return write_group_page(out_dir, cohort, _map(scans))


def finished_scans(out_dir: Path) -> Iterator[FinishedScan]:
    """Complete scans, sorted by path; what can't be read is left out with a warning."""
    first: tuple[str, ...] = ()
    for path in sorted(out_dir.glob(f"sub-*/**/*{_MARK}*{_RECORD}")):
        start = path.name.removesuffix(_RECORD)
        stem = start.replace(_MARK, "")
        entities = entities_of(stem)
        try:
            record = read_json(path)
            morph = path.with_name(f"{start}_morph.tsv")
            table = pd.read_csv(morph, sep="\t", na_values="n/a", keep_default_na=False)
            label_set = read_label_table(path.with_name(f"{start}_dseg.tsv"))
            first = first or label_set.names
            if label_set.names != first:
                raise ValueError("other structures than in the first scan")
            if tuple(table["name"]) != first:
                raise ValueError(f"{morph.name} isn't a table of its structures")
            table[list(COLUMNS)]
            image = ImageQuality.of_record(record)
            plausibility = Plausibility.of_record(record)
        except (OSError, ValueError, KeyError, InputError) as error:
            log.warning("%s: left out of the group level (%s)", path, error)
            continue
        yield FinishedScan(
            keys={
                "participant_id": f"sub-{entities.get('sub', '')}",
                "session_id": f"ses-{entities['ses']}" if "ses" in entities else "n/a",
                "scan": stem,
            },
            table=table,
            record=record,
            label_set=label_set,
            image=image,
            plausibility=plausibility,
            dseg=path.with_name(f"{start}_dseg.nii.gz"),
            flip=path.with_name(f"{start}_desc-labelflip_probseg.nii.gz"),
            page=out_dir / f"{stem}.html",
        )


def cohort_measures(
    structures: Sequence[Structure],
    volumes: np.ndarray,
    masks: np.ndarray,
    dice: np.ndarray,
    uneven: np.ndarray,
) -> list[Measure]:
    """What scans are compared by: adjusted volumes, asymmetries and expected Dice.

    Volumes are taken relative to the brain mask's, on a log scale: head size is the largest
    and least interesting difference between people.

    Parameters
    ----------
    structures : sequence of Structure
    volumes, dice, uneven : (scans, S) float array
        Volume (mm3), expected Dice and asymmetry of each structure.
    masks : (scans,) float array
        Volume of the brain mask, mm3.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.log(volumes / masks[:, None])
    measures = []
    for i, structure in enumerate(structures):
        measures.append(Measure(f"{structure.title} volume", relative[:, i]))
        measures.append(Measure(f"{structure.title} expected Dice", dice[:, i], "low"))
        if structure.hemisphere == "L":
            measures.append(Measure(f"{structure.both_sides} asymmetry", uneven[:, i]))
    return measures


def image_measures(scans: Sequence[FinishedScan]) -> list[Measure]:
    """Noise, blur, ripples and contrast, which scans of one protocol share."""
    images = [scan.image for scan in scans]
    return [
        Measure("Image noise", np.array([i.noise for i in images]), "high"),
        Measure("Edges of white matter", np.array([i.edge for i in images]), "low"),
        Measure("Ripples in white matter", np.array([i.ripple for i in images]), "high"),
        Measure(
            "Contrast of white matter to cortex", np.array([i.contrast for i in images]), "low"
        ),
    ]


def quality_table(scans: list[FinishedScan], measures: list[Measure]) -> pd.DataFrame:
    """A row a scan; columns as in the data dictionary of group_qc.tsv."""
    rows = []
    for scan, outlier in zip(scans, find_outliers(measures), strict=True):
        record = scan.record
        verdict = judge(scan.table, record.get("HetsegWarnings", ()), scan.image, scan.plausibility)
        mask = record.get("HetsegBrainMaskVolume")
        model = f"{record.get('HetsegModel')} {str(record.get('HetsegModelSHA256'))[:12]}"
        facts = {
            "verdict": verdict.level,
            "reasons": "; ".join(verdict.reasons) or "n/a",
            "outlier_score": outlier.score,
            "outlier_of": "; ".join(outlier.why) or "n/a",
            "mean_expected_dice": scan.table["expected_dice"].astype(float).mean(),
            "brain_mask_ml": float("nan") if mask is None else mask / _MM3_PER_ML,
            "structures_ml": scan.table["volume_mm3"].astype(float).sum() / _MM3_PER_ML,
            **asdict(scan.image),
            "model": model,
        }
        rows.append(scan.keys | facts)
    return pd.DataFrame(rows)[list(_QC_COLUMNS)]


def _wide(scans: list[FinishedScan], column: str) -> np.ndarray:
    return np.stack([scan.table[column].astype(float).to_numpy() for scan in scans])


def _map(scans: list[FinishedScan]) -> CohortMap | None:
    """The mean flip map, of evenly spaced scans where there are very many."""
    usable = [(s.dseg, s.flip) for s in scans if s.dseg.exists() and s.flip.exists()]
    structures = scans[0].label_set.structures
    step = -(-len(usable) // MAP_SCANS) if usable else 1
    return cohort_map(usable[::step], load_template(), structures) if usable else None


def _participants(bids_dir: Path, order: pd.Series) -> pd.DataFrame:
    """participants.tsv in the order of the scans; empty if there is none."""
    try:
        table = pd.read_csv(
            bids_dir / "participants.tsv",
            sep="\t",
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,  # BIDS has no quotes in TSV files
        )
        table = table.drop_duplicates("participant_id").set_index("participant_id")
    except (OSError, ValueError, KeyError):
        return pd.DataFrame(index=order)
    return table.reindex(order).fillna("n/a")


def _missing(bids_dir: Path, finished: pd.Series) -> list[str]:
    if not bids_dir.is_dir():
        return []
    there = {path.name for path in bids_dir.glob("sub-*") if path.is_dir()}
    return sorted(there - set(finished))


def _write(table: pd.DataFrame, path: Path, columns: dict[str, str]) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a")
    dictionary = {name: {"Description": text} for name, text in columns.items()}
    write_json(path.with_suffix(".json"), dictionary)
