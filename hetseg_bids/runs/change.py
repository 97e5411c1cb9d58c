"""Change over time: a table and a page of each person with several sessions."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hetseg_bids import __version__
from hetseg_bids.dataset.bids_index import EXTENSIONS
from hetseg_bids.dataset.names import T1W, by_name, entities_of, image_stem
from hetseg_bids.dataset.sessions import SessionTimes, scanner_of, session_times
from hetseg_bids.errors import HetsegError
from hetseg_bids.files import read_tsv, write_json, write_tsv
from hetseg_bids.images import grid_of, open_image
from hetseg_bids.outputs.finished import FinishedScan, shortened
from hetseg_bids.quality.change import COLUMNS, Session, change_table
from hetseg_bids.reports.aligned import draw_aligned
from hetseg_bids.reports.change import PersonChange, write_change_page
from hetseg_bids.reports.mosaics import Picture
from hetseg_bids.structures.label_sets import LabelSet

log = logging.getLogger(__name__)
_MOST_PICTURED = 8
_SAME_ZOOM = 0.05  # share by which voxel sizes of one protocol may differ
_OURS = re.compile(r"sub-[^_]+(_seg-hetseg_change\.(tsv|json)|_change\.html)")

_OTHER_KIND = "another model, processing or kind of T1w than the person's other sessions"
Visits = dict[str, list[FinishedScan]]
"""The scans of each session, ``ses-Y``."""


def write_changes(
    bids_dir: Path, out_dir: Path, scans: Sequence[FinishedScan]
) -> list[PersonChange]:
    """Write table and page of each person with several sessions; remove those of others.

    Parameters
    ----------
    bids_dir : Path
        The dataset, which says when sessions were; it may be absent.
    out_dir : Path
    scans : sequence of FinishedScan
        All with the same structures.

    Returns
    -------
    people : list of PersonChange
        Sorted by person.
    """
    people: list[PersonChange] = []
    problems: list[str] = []
    there = any(bids_dir.glob("sub-*"))  # otherwise the list of missing scans says so
    written: set[Path] = set()
    for person, visits in comparable_sessions(scans).items():
        names = {session: [s.keys["scan"] for s in ours] for session, ours in visits.items()}
        table = out_dir / person / f"{person}_seg-hetseg_change.tsv"
        times = session_times(bids_dir, person, names) if there else _earlier_times(table, names)
        problems += times.problems
        t1ws = {s.keys["scan"]: _t1w(bids_dir, s) for ours in visits.values() for s in ours}
        shown = _person_change(person, visits, times, t1ws)
        page = out_dir / f"{person}_change.html"
        write_tsv(table, shown.table.round(3))
        write_json(table.with_suffix(".json"), _dictionary(shown, times))
        _write_page(page, shown, visits, t1ws)
        written |= {table, table.with_suffix(".json"), page}
        people.append(shown)
    _remove_others(out_dir, written)
    if problems:
        log.warning(
            "dates or ages that can't be used, so that years between sessions are from elsewhere "
            "or n/a: %s",
            shortened(problems),
        )
    unequal = [shown.person for shown in people if shown.notes]
    if unequal:
        log.warning(
            "sessions with another scanner, voxel size or turned head, which changes volumes by "
            "more than repeat noise (how: sub-X_change.html): %s",
            shortened(unequal),
        )
    return people


def _earlier_times(table: Path, sessions: Iterable[str]) -> SessionTimes:
    """Times that an earlier call wrote, for when the dataset that knows them isn't there."""
    years: dict[str, float] = {}
    try:
        pairs = read_tsv(table)[["session_from", "session_to", "years"]].drop_duplicates()
        for first, second, between in pairs.itertuples(index=False):
            years.setdefault(second, years.setdefault(first, 0.0) + float(between))
    except (OSError, ValueError, KeyError):  # "n/a" is no number
        return SessionTimes()
    return SessionTimes(years, "an earlier table") if {*years} == {*sessions} else SessionTimes()


def comparable_sessions(scans: Iterable[FinishedScan]) -> dict[str, Visits]:
    """The scans of each person with several sessions that can be compared.

    They have one model and way of processing, and the same entities but for session and run
    (another acquisition or reconstruction is another protocol).  Where there are several such
    kinds, the one with the most sessions is taken, and T1w before UNIT1.  The other scans, and
    those with a lesion, are named in a warning.
    """
    people: dict[str, list[FinishedScan]] = {}
    for scan in scans:
        if scan.keys["session_id"] != "n/a":
            people.setdefault(scan.person, []).append(scan)
    found: dict[str, Visits] = {}
    left_out: dict[str, list[str]] = {}
    for person, ours in sorted(people.items()):
        if len({scan.keys["session_id"] for scan in ours}) < 2:
            continue
        kinds: dict[tuple[str, ...], Visits] = {}
        for scan in ours:
            if scan.lesion is not None:
                # what a mask covers is missing from its volumes, and no noise is as large
                left_out.setdefault("with a lesion mask", []).append(scan.keys["scan"])
            else:
                visits = kinds.setdefault(_kind(scan), {})
                visits.setdefault(scan.keys["session_id"], []).append(scan)
        best = max(kinds, key=lambda kind: (len(kinds[kind]), _is_t1w(kinds[kind])), default=None)
        if best is not None and len(kinds[best]) > 1:
            found[person] = kinds.pop(best)
        others = [s for visits in kinds.values() for some in visits.values() for s in some]
        if others:
            left_out.setdefault(_OTHER_KIND, []).extend(scan.keys["scan"] for scan in others)
    for why, names in left_out.items():
        log.warning("left out of change between sessions (%s): %s", why, shortened(names))
    return found


def _is_t1w(visits: Visits) -> bool:
    return all(scan.suffix == T1W for ours in visits.values() for scan in ours)


def _kind(scan: FinishedScan) -> tuple[str, ...]:
    entities = entities_of(scan.keys["scan"])
    others = (f"{key}-{value}" for key, value in entities.items() if key not in ("ses", "run"))
    return scan.model, scan.processing, *others


def _person_change(
    person: str, visits: Visits, times: SessionTimes, t1ws: dict[str, Path | None]
) -> PersonChange:
    dated = len(times.years) == len(visits)
    order = _in_order(visits, times)
    sessions = [
        Session.of(name, times.years.get(name, np.nan), [scan.table for scan in visits[name]])
        for name in order
    ]
    places = np.unique(np.linspace(0, len(order) - 1, _MOST_PICTURED).astype(int))
    pictured = [order[place] for place in places]
    return PersonChange(
        person=person,
        sessions=sessions,
        order=_order(times, dated),
        pages=[[scan.page.name for scan in visits[name]] for name in order],
        notes=_notes(order, visits, t1ws),
        pictured=pictured,
        table=change_table(sessions),
    )


def _in_order(visits: Visits, times: SessionTimes) -> list[str]:
    """Sessions by time; those without one keep their place among the labels.

    Examples
    --------
    >>> times = SessionTimes({"ses-a": 5.0, "ses-c": 0.0})
    >>> _in_order({"ses-a": [], "ses-b": [], "ses-c": []}, times)
    ['ses-c', 'ses-b', 'ses-a']
    """
    labels = sorted(visits, key=by_name)
    dated = iter(sorted((x for x in labels if x in times.years), key=lambda x: times.years[x]))
    return [next(dated) if label in times.years else label for label in labels]


def _order(times: SessionTimes, dated: bool) -> str:
    if dated:
        return f"Sessions are in the order of time ({times.source})."
    some = f" ({times.source} has only some); those with a time are in the order of time"
    return (
        "Sessions are in the order of their labels, because no times of all of them are known"
        f"{some if times.source else ''}."
    )


def _notes(order: list[str], visits: Visits, t1ws: dict[str, Path | None]) -> list[str]:
    """What differs between the sessions beside the person: scanner and voxel size."""
    first = [visits[name][0] for name in order]
    facts: dict[str, dict[str, list[str]]] = {}
    for name in order:
        for scan in visits[name]:  # all of them enter the session's mean
            path = t1ws[scan.keys["scan"]]
            for key, value in (scanner_of(path) if path else {}).items():
                seen = facts.setdefault(key, {}).setdefault(name, [])
                if value not in seen:
                    seen.append(value)
    texts = []
    for key, values in facts.items():
        if len({*map(tuple, values.values())}) > 1:
            said = [f"{name} {' and '.join(seen)}" for name, seen in values.items()]
            texts.append(f"{key}: {', '.join(said)}")
    turned = {name: bool(visits[name][0].record.get("HetsegTurnedDegrees")) for name in order}
    if len(set(turned.values())) > 1:
        which = ", ".join(name for name in order if turned[name])
        texts.append(f"Head turned upright for the network in {which} only")
    try:
        zooms = np.stack([np.sort(grid_of(open_image(scan.dseg)).zooms) for scan in first])
    except (OSError, ValueError, HetsegError):  # the pictures' warning says so
        return texts
    if np.ptp(np.log(zooms), axis=0).max() > _SAME_ZOOM:
        sizes = [
            f"{name} {' x '.join(f'{z:.2f}' for z in row)} mm"
            for name, row in zip(order, zooms, strict=True)
        ]
        texts.append(f"Voxel size: {', '.join(sizes)}")
    return texts


def _dictionary(shown: PersonChange, times: SessionTimes) -> dict[str, dict[str, str]]:
    columns = {name: {"Description": text} for name, text in COLUMNS.items()}
    columns["session_from"]["Description"] += f". {shown.order}"
    if times.source:
        columns["years"]["Description"] += f". From {times.source}"
    return columns


def _write_page(
    page: Path, shown: PersonChange, visits: Visits, t1ws: dict[str, Path | None]
) -> None:
    scans = [visits[name][0] for name in shown.pictured]
    pairs = [(t1ws[scan.keys["scan"]], scan.dseg) for scan in scans]
    there = [(t1w, dseg) for t1w, dseg in pairs if t1w is not None and dseg.exists()]
    complete = len(there) == len(scans)
    made_of = json.dumps([scan.record for scan in scans], sort_keys=True)
    label_set = scans[0].label_set
    write_change_page(
        page,
        shown,
        label_set.structures,
        f"{__version__} {made_of} {complete}",
        partial(_pictures, shown.person, there if complete else [], label_set),
    )


def _pictures(
    person: str, images: Sequence[tuple[Path, Path]], label_set: LabelSet
) -> list[Picture] | None:
    """The sessions side by side; none without images, None where they can't be used."""
    try:
        return draw_aligned(images, label_set) if images else []
    except (OSError, ValueError, HetsegError) as error:  # the numbers don't need them
        log.warning("%s: no pictures of its sessions on its page (%s)", person, error)
        return None


def _t1w(bids_dir: Path, scan: FinishedScan) -> Path | None:
    folder = bids_dir / scan.person / scan.keys["session_id"] / "anat"
    stem = image_stem(scan.keys["scan"])
    names = (folder / f"{stem}_{scan.suffix}{extension}" for extension in EXTENSIONS)
    return next((path for path in names if path.is_file()), None)


def _remove_others(out_dir: Path, written: set[Path]) -> None:
    """Remove what an earlier call wrote for people who have no several sessions any more."""
    for pattern in ("sub-*_change.html", "sub-*/sub-*_seg-hetseg_change.*"):
        for path in out_dir.glob(pattern):
            if path not in written and _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
