"""Reading the complete results of the participant level in OUT, one for each T1w image."""

from __future__ import annotations

import datetime
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hetseg_bids.dataset.names import T1W, entities_of, keys_of, suffix_of
from hetseg_bids.errors import HetsegError
from hetseg_bids.files import read_json
from hetseg_bids.outputs.intracranial import head_model_of
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.segmentation.lesioned import GivenLesion
from hetseg_bids.segmentation.morphometry import COLUMNS
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.segmentation.wholes import rows_of
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import read_label_table

log = logging.getLogger(__name__)
_MARK = "_seg-hetseg"
_RECORD = "_dseg.json"
_NEEDED = ("volume_mm3", "expected_dice")
_SHOWN = 20  # names in a line

KEYS = {
    "participant_id": "Participant",
    "session_id": "Session",
    "scan": "Entities of the image; `mod-UNIT1` is one of an MP2RAGE, all others are T1w",
}
"""Columns that name a scan."""


@dataclass(frozen=True)
class FinishedScan:
    """The result of one scan, as the group level reads it.

    Attributes
    ----------
    keys : dict of str to str
        As in `KEYS`; ``session_id`` is ``n/a`` without one.
    table : DataFrame
        As `morphometry.measure` makes it.
    wholes : DataFrame
        As `wholes.whole_rows` makes it; an older version may have written fewer rows or none.
    record : dict
        Sidecar of the dseg.
    label_set : LabelSet
    image : ImageQuality
    plausibility : Plausibility
    lesion : GivenLesion or None
    dseg, flip_probability, page : Path
        The images and the page; not opened here, and they may be absent.
    began : datetime
        When the run that finished it began, UTC.
    """

    keys: dict[str, str]
    table: pd.DataFrame
    wholes: pd.DataFrame
    record: dict[str, Any]
    label_set: LabelSet
    image: ImageQuality
    plausibility: Plausibility
    lesion: GivenLesion | None
    dseg: Path
    flip_probability: Path
    page: Path
    began: datetime.datetime

    @property
    def person(self) -> str:
        """The participant_id."""
        return self.keys["participant_id"]

    @property
    def suffix(self) -> str:
        """Suffix of the image, ``T1w`` or ``UNIT1``."""
        return suffix_of(self.keys["scan"])

    @property
    def resolution(self) -> str:
        """Grid of the result, ``native`` or ``1mm``."""
        return "1mm" if "_res-1mm" in self.dseg.name else "native"

    @property
    def model(self) -> str:
        """Name of the model and the start of its weights' SHA-256."""
        return f"{self.record.get('HetsegModel')} {str(self.record.get('HetsegModelSHA256'))[:12]}"

    @property
    def processing(self) -> str:
        """Version and settings that make measurements of two scans differ, in words."""
        settings = self.record.get("HetsegSettings")
        settings = settings if isinstance(settings, dict) else {}
        views = settings.get("views")
        return ", ".join(
            (
                f"hetseg {self.record.get('HetsegVersion')}",
                f"views {'+'.join(map(str, views)) if isinstance(views, list) else 'unknown'}",
                "with mirror image" if settings.get("mirror") else "without mirror image",
                f"brain extraction {self.record.get('HetsegBrainExtraction')}",
                f"grid {self.resolution}",
                *([] if self.suffix == T1W else [f"image {self.suffix}"]),
            )
        )


@dataclass(frozen=True)
class Results:
    """All of OUT.

    Attributes
    ----------
    scans : list of FinishedScan
        One for each image, sorted by path, all with the same structures.
    unusable : dict of str to str
        Why the result of a scan can't be used, by its name (``sub-X[_ses-Y]...``).
    """

    scans: list[FinishedScan]
    unusable: dict[str, str]


def read_results(out_dir: Path) -> Results:
    """Read all finished scans; for each result that can't be used there is one warning."""
    scans, unusable = [], {}
    for path in _records(out_dir):
        try:
            scans.append(_read(path, out_dir))
        except (OSError, ValueError, KeyError, HetsegError) as error:
            stem = path.name.rpartition(_MARK)[0]
            unusable[stem] = f"its result can't be read ({' '.join(str(error).split())})"
            log.warning("%s: left out (%s)", path, error)
    scans = _of_one_label_set_(scans, unusable)
    scans = _one_of_each(scans)
    names = {scan.keys["scan"] for scan in scans}
    return Results(scans, {stem: why for stem, why in unusable.items() if stem not in names})


def _records(out_dir: Path) -> list[Path]:
    """Sidecars of all dsegs: in ``sub-X/``, or without a dataset ``X/X_seg-hetseg_dseg.json``."""
    ending = f"{_MARK}*{_RECORD}"
    loose = {p for p in out_dir.glob(f"*/*{ending}") if p.name.startswith(p.parent.name + _MARK)}
    found = sorted({*out_dir.glob(f"sub-*/**/*{ending}"), *loose})
    strays = {p for p in found if p not in loose and not _in_place(p.relative_to(out_dir))}
    if strays:
        log.warning(
            "left out, as they lie in folders of other names than their own (copies?): %s",
            shortened(sorted(str(path) for path in strays)),
        )
    return [path for path in found if path not in strays]


def _in_place(record: Path) -> bool:
    """Whether a path within OUT names the participant and the session that the file names."""
    entities = entities_of(record.name.rpartition(_MARK)[0])
    person, *between, _ = record.parent.parts if len(record.parts) > 2 else ("", "")
    session = [f"ses-{entities['ses']}"] if "ses" in entities else []
    return person == f"sub-{entities.get('sub')}" and between in ([], session)


def _read(record_path: Path, out_dir: Path) -> FinishedScan:
    start = record_path.name.removesuffix(_RECORD)
    record = read_json(record_path)
    morph = record_path.with_name(f"{start}_morph.tsv")
    rows = read_morph(morph)
    label_set = read_label_table(record_path.with_name(f"{start}_dseg.tsv"))
    table, wholes = split_wholes(rows, label_set)
    if tuple(table["name"]) != label_set.names:
        raise ValueError(f"{morph.name} isn't a table of its structures")
    if head_model_of(record) and tuple(wholes["name"]) != rows_of(label_set.names):
        raise ValueError(f"{morph.name} is cut off")
    absent = [column for column in _NEEDED if column not in table]
    if absent:
        raise ValueError(f"{morph.name} has no column {', '.join(absent)}")
    stem, _, resolution = start.rpartition(_MARK)
    page = stem + resolution
    return FinishedScan(
        keys=keys_of(stem),
        table=table.reindex(columns=list(COLUMNS)),  # an older version may have had fewer
        wholes=wholes.reindex(columns=list(COLUMNS)),
        record=record,
        label_set=label_set,
        image=ImageQuality.of_record(record),
        plausibility=Plausibility.of_record(record),
        lesion=GivenLesion.of_record(record),
        dseg=record_path.with_name(f"{start}_dseg.nii.gz"),
        flip_probability=record_path.with_name(f"{start}_desc-labelflip_probseg.nii.gz"),
        page=out_dir / f"{page}.html",
        began=_began(out_dir / "logs" / f"{page}_run.json", record_path),
    )


def read_morph(path: Path) -> pd.DataFrame:
    """Read a morph table; `split_wholes` divides its rows."""
    types = {"index": "Int64"}
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False, dtype=types)


def split_wholes(rows: pd.DataFrame, label_set: LabelSet) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The structures of a morph table, and the rows of the whole head that may follow them."""
    last = len(label_set.structures)
    return rows.iloc[:last], rows.iloc[last:]


def _began(run_log: Path, record_path: Path) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(str(read_json(run_log)["Started"]))
        return time.astimezone(datetime.UTC)
    except (OSError, ValueError, KeyError):  # users may have removed the logs
        return datetime.datetime.fromtimestamp(record_path.stat().st_mtime, tz=datetime.UTC)


def _of_one_label_set_(scans: list[FinishedScan], unusable: dict[str, str]) -> list[FinishedScan]:
    """The scans with the structures that most scans have; the first where two sets are as many."""
    counts = Counter(scan.label_set.names for scan in scans)
    if len(counts) < 2:
        return scans
    ((names, number),) = counts.most_common(1)
    others = [scan for scan in scans if scan.label_set.names != names]
    for scan in others:
        unusable[scan.keys["scan"]] = f"its structures aren't those of the other {number} scans"
    log.warning(
        "%s: left out (other structures than the other %d scans)",
        shortened([scan.dseg.name for scan in others]),
        number,
    )
    return [scan for scan in scans if scan.label_set.names == names]


def _one_of_each(scans: list[FinishedScan]) -> list[FinishedScan]:
    """One result of each T1w image, on the native grid where there are two."""
    kept: dict[tuple[Path, str], FinishedScan] = {}
    for scan in sorted(scans, key=lambda scan: scan.resolution != "native"):
        kept.setdefault((scan.dseg.parent, scan.keys["scan"]), scan)
    if len(kept) < len(scans):
        counts = Counter(scan.keys["scan"] for scan in scans)
        log.warning(
            "results on the native grid and at 1 mm, of which the native one is used: %s",
            shortened([name for name, number in counts.items() if number > 1]),
        )
    return [scan for scan in scans if kept[scan.dseg.parent, scan.keys["scan"]] is scan]


def shortened(names: Sequence[str]) -> str:
    """A list of names on one line; those after the 20th are only counted.

    Examples
    --------
    >>> shortened([f"sub-{i}" for i in range(22)])
    'sub-0, sub-1, ..., sub-19 and 2 more'
    """
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def processed_alike(scans: Iterable[FinishedScan]) -> dict[tuple[str, str], list[int]]:
    """Groups of scans that may be compared: the same model and the same processing.

    Returns
    -------
    groups : dict of (str, str) to list of int
        Indices of the scans by `FinishedScan.model` and `processing`, the largest group first.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for number, scan in enumerate(scans):
        groups.setdefault((scan.model, scan.processing), []).append(number)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))
