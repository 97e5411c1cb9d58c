"""The scans of a dataset that have no finished result, and the reason where it is known."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from hetseg_bids.config import Selection
from hetseg_bids.dataset.discovery import expected_scans, is_named
from hetseg_bids.dataset.files import find_images
from hetseg_bids.dataset.names import (
    SUFFIXES,
    T1W,
    by_name,
    keys_of,
    one_of_each_session,
    suffix_of,
)
from hetseg_bids.errors import DatasetError
from hetseg_bids.files import read_tsv
from hetseg_bids.outputs.finished import Results, shortened

log = logging.getLogger(__name__)
COLUMNS = {
    "participant_id": "Participant",
    "session_id": "Session",
    "scan": "Entities of the image; n/a where the participant has none",
    "reason": "What is known: what the newest crash file says last, or why a result can't be used",
    "crash_file": "Newest crash file of the scan, in logs/",
}
_CRASH = re.compile(r"crash-(?P<stem>.+?)(-(?P<time>\d{8}T\d{12}))?\.txt")
_ONLY_LISTED = "only in participants.tsv"
_OF_NO_SCAN = "hetseg"  # the crash of a run as a whole
_LONGEST = 300  # characters of a reason
_EXCEPTION = re.compile(r"^hetseg_bids\.[\w.]+: ")  # in front of hetseg's own words


def read_participants(bids_dir: Path) -> pd.DataFrame:
    """participants.tsv by participant_id; an empty table where it can't be read.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "participants.tsv"
    >>> table = pd.DataFrame({"participant_id": ["sub-01"], "age": [31]})
    >>> table.to_csv(path, sep=chr(9), index=False)  # a tab
    >>> read_participants(path.parent).loc["sub-01", "age"]
    '31'
    """
    path = bids_dir / "participants.tsv"
    try:
        table = read_tsv(path)
        twice = table["participant_id"][table["participant_id"].duplicated()].unique()
        if len(twice):
            log.warning(
                "%s: several rows, of which the first counts: %s", path, shortened([*twice])
            )
        return table.drop_duplicates("participant_id").set_index("participant_id")
    except FileNotFoundError:  # BIDS doesn't ask for it
        pass
    except (OSError, ValueError, KeyError) as error:
        log.warning("%s: can't be used, so the page has no filters (%s)", path, error)
    return pd.DataFrame(index=pd.Index([], name="participant_id"))


def missing_scans(
    bids_dir: Path,
    out_dir: Path,
    results: Results,
    participants: Iterable[str],
    choose: str = "all",
) -> pd.DataFrame | None:
    """One row per scan without a finished result, and per participant without a scan.

    UNIT1 images are expected where OUT holds results of some, and T1w images where it holds results
    of theirs.

    Parameters
    ----------
    bids_dir, out_dir : Path
    results : Results
    participants : iterable of str
        participant_id of those in participants.tsv.
    choose : {"best", "first", "all"}
        With ``first``, only the first image of each session is expected.

    Returns
    -------
    missing : DataFrame or None
        Columns as in `COLUMNS`, sorted; None if the dataset isn't there.
    """
    folders = _folders(bids_dir)
    if not folders:
        log.warning(
            "%s: no BIDS dataset there (no sub-* folder), so it can't be told which scans are "
            "missing, participants.tsv isn't read, and times of sessions are those of earlier "
            "tables",
            bids_dir,
        )
        return None
    try:
        wanted = {scan.stem for suffix in SUFFIXES for scan in expected_scans(bids_dir, suffix)}
    except OSError as error:
        log.warning("%s: can't be read, so nobody is named as missing (%s)", bids_dir, error)
        return None
    finished = {scan.keys["scan"] for scan in results.scans}
    suffixes = sorted({suffix_of(stem) for stem in finished}) or [T1W]
    expected = {stem for stem in wanted if suffix_of(stem) in suffixes}
    if choose == "first":
        # of a session of which another image is finished none is missing
        expected = {
            *one_of_each_session(expected, lambda stem: (stem not in finished, by_name(stem)))
        }
    lacking = dict.fromkeys(participants, _ONLY_LISTED)
    there = (folder.name for folder in folders)
    lacking |= dict.fromkeys(there, f"no {' or '.join(suffixes)} image in the dataset")
    if extra := finished - wanted:
        log.warning(
            "%s: %d finished scans are not of this dataset: %s", bids_dir, len(extra), _named(extra)
        )
    return _table(expected, lacking, out_dir, results)


def missing_images(
    images: Sequence[Path], out_dir: Path, results: Results, participants: Iterable[str]
) -> pd.DataFrame | None:
    """One row per image without a finished result, where there is no dataset.

    Parameters
    ----------
    images : sequence of Path
        Files and folders, as `find_images` takes them.
    out_dir, results, participants
        As for `missing_scans`.

    Returns
    -------
    missing : DataFrame or None
        Columns as in `COLUMNS`, sorted; None if no image is there.
    """
    try:
        found = find_images(images, out_dir)
    except DatasetError as error:
        log.warning("%s; so it can't be told which images are missing", error)
        return None
    expected = {scan.stem for scan in [*found.scans, *(scan for scan, _ in found.refused)]}
    if extra := {scan.keys["scan"] for scan in results.scans} - expected:
        log.warning(
            "%d finished scans are not among the images given, but in the tables: %s",
            len(extra),
            _named(extra),
        )
    return _table(expected, dict.fromkeys(participants, _ONLY_LISTED), out_dir, results)


def of_selection(missing: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    """The rows of the scans that a selection names, and of its participants without a scan."""
    people = replace(selection, sessions=(), runs=())
    named = [
        is_named(person, people) if scan == "n/a" else is_named(scan, selection)
        for person, scan in zip(missing["participant_id"], missing["scan"], strict=True)
    ]
    return missing[np.array(named, bool)].reset_index(drop=True)


def _named(scans: Iterable[str]) -> str:
    return shortened(sorted(scans))


def _table(
    expected: set[str], lacking: Mapping[str, str], out_dir: Path, results: Results
) -> pd.DataFrame:
    """Rows of the expected scans that aren't finished, and of people (`lacking`) without one."""
    crashes = crashes_since(out_dir, results)
    known, finished = {*expected, *crashes}, {scan.keys["scan"] for scan in results.scans}
    rows = [_row(stem, results.unusable, crashes, out_dir) for stem in sorted(known - finished)]
    with_scan = {keys_of(stem)["participant_id"] for stem in known | finished}
    for person, lack in lacking.items():
        if person not in with_scan:
            rows.append(dict.fromkeys(COLUMNS, "n/a") | {"participant_id": person, "reason": lack})
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.sort_values(["participant_id", "session_id", "scan"], ignore_index=True)


def _folders(bids_dir: Path) -> list[Path]:
    try:
        return sorted(path for path in bids_dir.glob("sub-*") if path.is_dir())
    except OSError as error:
        log.warning("%s: can't be read (%s)", bids_dir, error.strerror)
        return []


def _row(
    stem: str, unusable: Mapping[str, str], crashes: Mapping[str, list[str]], out_dir: Path
) -> dict[str, str]:
    crash = crashes.get(stem, [])[-1:]
    reason = unusable.get(stem, "not run, or not to the end")
    if crash:
        reason = f"failed: {_last_line(out_dir / 'logs' / crash[0])}"
    return keys_of(stem) | {"reason": reason, "crash_file": crash[0] if crash else "n/a"}


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        return f"its crash file can't be read ({error.strerror})"
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return _EXCEPTION.sub("", said[-1])[:_LONGEST] if said else "its crash file is empty"


def crashes_since(out_dir: Path, results: Results) -> dict[str, list[str]]:
    """Crash files of each scan, oldest first, without those that a later run made obsolete.

    Returns
    -------
    crashes : dict of str to list of str
        Names of files in OUT/logs, by the scan's name.
    """
    began = {scan.keys["scan"]: scan.began for scan in results.scans}
    found: dict[str, list[str]] = {}
    for path in sorted((out_dir / "logs").glob("crash-*.txt")):
        match = _CRASH.fullmatch(path.name)
        if match is None or match["stem"] == _OF_NO_SCAN:
            continue
        stem, time = match["stem"], match["time"]
        success = began.get(stem)
        if success is None or time is None or _utc(time) > success:
            found.setdefault(stem, []).append(path.name)
    return found


def _utc(text: str) -> datetime.datetime:
    try:
        time = datetime.datetime.strptime(text, "%Y%m%dT%H%M%S%f")
    except ValueError:  # digits, but no date
        return datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return time.replace(tzinfo=datetime.UTC)
