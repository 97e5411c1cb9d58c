"""Which T1w or UNIT1 images of a BIDS dataset to segment."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetseg_bids.config import Selection
from hetseg_bids.dataset.bids_index import EXTENSIONS, image_paths, in_place, is_in_place
from hetseg_bids.dataset.names import (
    SUFFIXES,
    T1W,
    derivative_stem,
    entities_of,
    one_of_each_session,
    suffix_of,
)
from hetseg_bids.errors import DatasetError, OptionError
from hetseg_bids.files import read_json

log = logging.getLogger(__name__)
_NAME = re.compile(r"sub-[a-zA-Z0-9+]+(_[a-zA-Z]+-[a-zA-Z0-9+]+)*_(T1w|UNIT1)\.nii(\.gz)?")
# pybids' names of the entities of a T1w file, which a filter file may use
_ENTITIES = {
    "subject": "sub",
    "session": "ses",
    "task": "task",
    "acquisition": "acq",
    "ceagent": "ce",
    "reconstruction": "rec",
    "run": "run",
    "echo": "echo",
    "part": "part",
    "chunk": "chunk",
}
_OF_EVERY_T1W = ("suffix", "datatype", "extension")
_NUMBERS = ("run", "echo", "chunk")  # run-01 is run 1, but sub-01 isn't sub-1
# values of a filter that stand for "without this entity", "with it" and "either"
_WITHOUT = (None, "Query.NONE")
_WITH = ("*", "Query.ANY", "Query.REQUIRED")
_EITHER = ("Query.OPTIONAL",)
_MOST_LINES = 20  # about files that are left out
_SHOWN = 3  # names in a message


@dataclass(frozen=True)
class Scan:
    """One T1w or UNIT1 image.

    Attributes
    ----------
    path : Path
    stem : str
        What its results' names begin with. In a dataset: the entities of the file name, see
        `derivative_stem`.
    folder : Path
        Folder of its results, relative to the output folder.
    """

    path: Path
    stem: str
    folder: Path

    @property
    def subject(self) -> str:
        """Label without ``sub-``; empty where the name has none."""
        return entities_of(self.stem).get("sub", "")

    @property
    def session(self) -> str | None:
        """Label without ``ses-``."""
        return entities_of(self.stem).get("ses")


def scan_of_dataset(path: Path, stem: str) -> Scan:
    """A T1w image of a BIDS dataset.

    Examples
    --------
    >>> scan = scan_of_dataset(Path("sub-01_ses-2_T1w.nii.gz"), "sub-01_ses-2")
    >>> scan.folder.as_posix(), scan.subject, scan.session
    ('sub-01/ses-2/anat', '01', '2')
    """
    labels = entities_of(stem)
    parents = [f"{key}-{labels[key]}" for key in ("sub", "ses") if key in labels]
    return Scan(path, stem, Path(*parents, "anat"))


@dataclass(frozen=True)
class Found:
    """The images of a selection.

    Attributes
    ----------
    scans : list of Scan
        Sorted by path; no two have an output name in common.
    refused : list of (Scan, str)
        Images whose name and place contradict each other or another image's, and why.
    """

    scans: list[Scan]
    refused: list[tuple[Scan, str]]


def find_scans(bids_dir: Path, selection: Selection) -> Found:
    """The images that a selection names.

    Raises
    ------
    DatasetError
        If the folder isn't a BIDS dataset, or holds no such image.
    OptionError
        If the filter file can't be used.
    """
    _check_dataset(bids_dir, described=selection.validate)
    filters = _filters(selection)
    root = bids_dir.resolve()
    suffix = selection.suffix
    log.info("%s: looking for %s images", bids_dir, suffix)
    paths = image_paths(root, suffix, selection.participants, selection.database)
    there, left_out = _in_their_places(root, paths, suffix)
    wanted = [scan for scan in there if _matches(entities_of(scan.stem), filters)]
    left_out |= {s.path: "not a magnitude image" for s in wanted if not _is_magnitude(s)}
    say_left_out(left_out)
    problems = _contradictions(root, there)
    scans = [scan for scan in wanted if _is_magnitude(scan)]
    usable = _without_duplicates(scan for scan in scans if scan.path not in problems)
    if selection.choose == "first":
        first = one_of_each_session(scan.stem for scan in usable)
        usable = [scan for scan in usable if scan.stem in first]
    refused = [(scan, problems[scan.path]) for scan in scans if scan.path in problems]
    missing = _missing(bids_dir, selection, there, scans)
    if not scans:
        problem, remedy = (
            ("; ".join(missing), "") if missing else _nothing_found(bids_dir, selection)
        )
        raise DatasetError(problem, remedy, path=bids_dir)
    for line in missing:
        log.warning("%s: %s; the others are processed", bids_dir, line)
    log.info("%s: %s images to segment: %d", bids_dir, suffix, len(usable))
    return Found(usable, refused)


def expected_scans(bids_dir: Path, suffix: str = T1W) -> list[Scan]:
    """The magnitude images with this suffix in the folders that BIDS names, found without pybids.

    Examples
    --------
    >>> anat = getfixture("tmp_path") / "sub-01" / "anat"
    >>> anat.mkdir(parents=True)
    >>> for part in ("mag", "phase"):
    ...     (anat / f"sub-01_part-{part}_T1w.nii.gz").touch()
    >>> [scan.stem for scan in expected_scans(getfixture("tmp_path"))]
    ['sub-01_part-mag']
    """
    there, _ = _in_their_places(bids_dir, sorted(in_place(bids_dir, suffix)), suffix)
    return [scan for scan in there if _is_magnitude(scan)]


def _check_dataset(bids_dir: Path, *, described: bool) -> None:
    if not bids_dir.is_dir():
        raise DatasetError(
            "no such folder", "the first argument is the BIDS dataset", path=bids_dir
        )
    if not described:
        return
    description = bids_dir / "dataset_description.json"
    if not description.is_file():
        raise DatasetError(
            "no dataset_description.json",
            "is this the top folder of a BIDS dataset? (--skip-bids-validation goes on without it)",
            path=bids_dir,
        )
    try:
        read_json(description)
    except (OSError, ValueError) as error:
        raise DatasetError(f"not readable as a JSON object ({error})", path=description) from None


def _filters(selection: Selection) -> dict[str, list[Any]]:
    """Wanted values by entity."""
    filters = _read_filter(selection.filter_file, selection.suffix) if selection.filter_file else {}
    if selection.participants:
        filters["sub"] = list(selection.participants)
    if selection.sessions:
        filters["ses"] = list(selection.sessions)
    if selection.runs:
        filters["run"] = list(selection.runs)
    return filters


def _read_filter(path: Path, suffix: str) -> dict[str, list[Any]]:
    option = "--bids-filter-file"
    try:
        queries = read_json(path)
    except (OSError, ValueError) as error:
        raise OptionError(f"not readable as JSON ({error})", option=option, path=path) from None
    if "t1w" not in queries:  # a file for fMRIPrep may filter other images only
        log.info('%s: no entry "t1w"; all %s images are taken', path, suffix)
        return {}
    content = queries["t1w"]
    if not isinstance(content, dict):
        raise OptionError('"t1w" isn\'t an object', option=option, path=path)
    unknown = sorted(set(content) - set(_ENTITIES) - set(_OF_EVERY_T1W))
    if unknown:
        raise OptionError(
            f"unknown entities {unknown}", f"use {', '.join(_ENTITIES)}", option=option, path=path
        )
    asked = content.get("suffix")
    if asked in SUFFIXES and asked != suffix:
        problem = f'"t1w" asks for the suffix {asked}'
        raise OptionError(problem, f"give --suffix {asked}", option=option, path=path)
    return {
        _ENTITIES[name]: wanted if isinstance(wanted, list) else [wanted]
        for name, wanted in content.items()
        if name in _ENTITIES
    }


def _matches(entities: Mapping[str, str], filters: Mapping[str, list[Any]]) -> bool:
    """Whether a name has one of the wanted values of every entity.

    Entities come from the file name and not from pybids, which reads them from the whole path: to
    it all images of a dataset below a folder ``ses-9`` belong to session 9.
    """
    return all(_has(entities, key, wanted) for key, wanted in filters.items())


def is_named(stem: str, selection: Selection) -> bool:
    """Whether participant, session and run of a name are those of a selection.

    Examples
    --------
    >>> names = ("sub-01_ses-a_run-01_T1w", "sub-01_T1w", "sub-02_ses-a_run-1_T1w")
    >>> [is_named(name, Selection(participants=("01",), runs=("1",))) for name in names]
    [True, False, False]
    """
    asked = (("sub", selection.participants), ("ses", selection.sessions), ("run", selection.runs))
    entities = entities_of(stem)
    return all(not labels or _has(entities, key, [*labels]) for key, labels in asked)


def _has(entities: Mapping[str, str], key: str, wanted: list[Any]) -> bool:
    return any(_fits(key, entities.get(key), one) for one in wanted)


def _fits(key: str, value: str | None, wanted: Any) -> bool:
    if wanted in _EITHER:
        return True
    if value is None:
        return wanted in _WITHOUT
    if wanted in _WITH:
        return True
    label = str(wanted).removeprefix(f"{key}-")
    if key in _NUMBERS:
        return value.lstrip("0") == label.lstrip("0")
    return value == label


def _in_their_places(
    root: Path, paths: Iterable[Path], suffix: str
) -> tuple[list[Scan], dict[Path, str]]:
    """Scans with the name and folder that BIDS asks for; and the others, with the reason.

    Sessions aren't compared here: `_contradictions` does.
    """
    scans, left_out = [], {}
    for path in paths:
        extension = next(e for e in EXTENSIONS if path.name.endswith(e))
        stem = path.name.removesuffix(extension).removesuffix(f"_{suffix}")
        entities = entities_of(stem)
        bids_name = _NAME.fullmatch(path.name) and len(entities) == len(stem.split("_"))
        if not bids_name or suffix_of(stem) != T1W:  # mod-UNIT1 is for the results of a UNIT1
            left_out[path] = f"not the BIDS name of a {suffix} image"
            continue
        subject = f"sub-{entities['sub']}"
        relative = path.relative_to(root)
        if is_in_place(relative) and relative.parts[0] == subject:
            scans.append(scan_of_dataset(path, derivative_stem(stem, suffix)))
        else:
            left_out[path] = f"not in {subject}/anat or {subject}/ses-*/anat of the dataset"
    return scans, left_out


def _is_magnitude(scan: Scan) -> bool:
    """Whether it isn't the phase, real or imaginary part of a complex image."""
    return entities_of(scan.stem).get("part", "mag") == "mag"


def say_left_out(left_out: Mapping[Path, str]) -> None:
    """Warn about files that aren't processed, with the reason for each."""
    for path, why in list(left_out.items())[:_MOST_LINES]:
        log.warning("%r: %s; left out", str(path), why)
    if len(left_out) > _MOST_LINES:
        log.warning("and %d other images are left out", len(left_out) - _MOST_LINES)


def _contradictions(root: Path, scans: Iterable[Scan]) -> dict[Path, str]:
    """Why some images can't be segmented: their results could be taken for another image's."""
    problems: dict[Path, str] = {}
    same: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        folder = scan.path.relative_to(root).parent
        if folder == scan.folder:
            # macOS, Windows and some network drives take sub-a and sub-A for the same
            same[f"{folder}/{scan.stem}".casefold()].append(scan)
        else:
            session = f"ses-{scan.session}" if scan.session else "no session"
            problems[scan.path] = (
                f"it lies in {folder} but its name says {session}; rename or move it"
            )
    for group in same.values():
        for scan in group:
            others = [
                s.path for s in group if (s.path.parent, s.stem) != (scan.path.parent, scan.stem)
            ]
            if others:
                problems[scan.path] = (
                    f"its name and that of {others[0]} differ in upper and lower case only, which "
                    "BIDS forbids and some drives can't tell apart; rename one"
                )
    return problems


def _missing(
    bids_dir: Path, selection: Selection, there: list[Scan], scans: list[Scan]
) -> list[str]:
    """Lines about labels of the selection that have no image."""
    found = {scan.subject for scan in scans}
    lacking = [label for label in selection.participants if label not in found]
    strangers = [p for p in lacking if not (bids_dir / f"sub-{p}").is_dir()]
    bare = [p for p in lacking if p not in strangers and p not in {s.subject for s in there}]
    lines = []
    if strangers:
        lines.append(f"no participant {_listed('sub', strangers)}; check --participant-label")
    if bare:
        lines.append(f"no {selection.suffix} image of {_listed('sub', bare)}")
    for label in lacking:
        own = [scan.path.name for scan in there if scan.subject == label]
        if own:
            lines.append(f"sub-{label} has no {_described(selection)} (there: {_few(own)})")
    if not lines:
        named = [entities_of(scan.stem) for scan in scans]
        for key, labels in (("ses", selection.sessions), ("run", selection.runs)):
            nowhere = [x for x in labels if not any(_has(n, key, [x]) for n in named)]
            if nowhere:
                lines.append(f"no {selection.suffix} image of {_listed(key, nowhere)}")
    return lines


def _described(selection: Selection) -> str:
    """The other parts of a selection, beside the participants, in words."""
    words = [_listed("ses", selection.sessions), _listed("run", selection.runs)]
    words += [f"what {selection.filter_file} names"] if selection.filter_file else []
    asked = " and ".join(word for word in words if word)
    return f"{selection.suffix} image " + (f"of {asked}" if asked else "that is a magnitude")


def _listed(prefix: str, labels: Sequence[str]) -> str:
    return ", ".join(f"{prefix}-{label}" for label in labels)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _nothing_found(bids_dir: Path, selection: Selection) -> tuple[str, str]:
    """The problem and the remedy."""
    suffix = selection.suffix
    if _filters(selection):
        return f"no {suffix} image matches the participant, session, run or filter options", ""
    subjects = sum(path.is_dir() for path in bids_dir.glob("sub-*"))
    if not subjects:
        return "no participants (sub-*) found", "check the path"
    problem = f"{subjects} participants but no sub-*/[ses-*/]anat/*_{suffix}.nii[.gz]"
    others = [other for other in SUFFIXES if other != suffix and expected_scans(bids_dir, other)]
    return problem, f"--suffix {others[0]} takes the {others[0]} images" if others else ""


def _without_duplicates(scans: Iterable[Scan]) -> list[Scan]:
    """Keep the .nii.gz where an image exists as .nii, too."""
    kept: dict[tuple[Path, str], Scan] = {}
    for scan in scans:
        key = (scan.path.parent, scan.stem)
        if key in kept:
            log.warning("%s: the same scan is there as .nii.gz; ignored", scan.path)
            if kept[key].path.name.endswith(".nii.gz"):
                continue
        kept[key] = scan
    return list(kept.values())
