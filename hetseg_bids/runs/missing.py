"""The scans of a dataset that have no finished result, and the reason where it is known."""

from __future__ import annotations

import csv
import datetime
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from hetseg_bids.dataset.discovery import expected_scans
from hetseg_bids.dataset.names import SUFFIXES, T1W, entities_of, one_of_each_session, suffix_of
from hetseg_bids.outputs.finished import Results, shortened

log = logging.getLogger(__name__)
COLUMNS = {
    "participant_id": "Participant",
    "session_id": "Session",
    "scan": "Entities of the image; n/a where the participant has none",
    "reason": "What is known: what the newest crash file says last, or why a result can't be used",
    "crash_file": "Newest crash file of the scan, in logs/",
}
_CRASH = re.compile(r"crash-(?P<stem>sub-.+?)(-(?P<time>\d{8}T\d{12}))?\.txt")
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
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            keep_default_na=False,
            quoting=csv.QUOTE_NONE,  # BIDS has no quotes in TSV files
        )
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
            "missing, and participants.tsv isn't read",
            bids_dir,
        )
        return None
    try:
        images = {scan.stem for suffix in SUFFIXES for scan in expected_scans(bids_dir, suffix)}
    except OSError as error:
        log.warning("%s: can't be read, so nobody is named as missing (%s)", bids_dir, error)
        return None
    finished = {scan.keys["scan"] for scan in results.scans}
    suffixes = sorted({suffix_of(stem) for stem in finished}) or [T1W]
    expected = {stem for stem in images if suffix_of(stem) in suffixes}
    expected = {*one_of_each_session(expected)} if choose == "first" else expected
    crashes = crashes_since(out_dir, results)
    rows = [
        _row(stem, results.unusable, crashes, out_dir)
        for stem in sorted({*expected, *crashes} - finished)
    ]
    there, kinds = {folder.name for folder in folders}, " or ".join(suffixes)
    with_scan = {f"sub-{entities_of(stem)['sub']}" for stem in {*expected, *crashes}}
    for person in {*there, *participants} - with_scan:
        lack = f"no {kinds} image in the dataset" if person in there else "only in participants.tsv"
        rows.append(dict.fromkeys(COLUMNS, "n/a") | {"participant_id": person, "reason": lack})
    extra = finished - images
    if extra:
        log.warning("%s: %d finished scans are not of this dataset", bids_dir, len(extra))
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
    entities = entities_of(stem)
    crash = crashes.get(stem, [])[-1:]
    reason = unusable.get(stem, "not run, or not to the end")
    if crash:
        reason = f"failed: {_last_line(out_dir / 'logs' / crash[0])}"
    return {
        "participant_id": f"sub-{entities.get('sub', '')}",
        "session_id": f"ses-{entities['ses']}" if "ses" in entities else "n/a",
        "scan": stem,
        "reason": reason,
        "crash_file": crash[0] if crash else "n/a",
    }


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
        Names of files in OUT/logs, by the scan's name (``sub-X[_ses-Y]...``).
    """
    began = {scan.keys["scan"]: scan.began for scan in results.scans}
    found: dict[str, list[str]] = {}
    for path in sorted((out_dir / "logs").glob("crash-sub-*.txt")):
        match = _CRASH.fullmatch(path.name)
        if match is None:
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
