"""Which T1w images of a BIDS dataset to segment."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetseg_bids.config import Selection
from hetseg_bids.errors import InputError
from hetseg_bids.files import read_json

log = logging.getLogger(__name__)
_NAME = re.compile(r"sub-(?P<sub>[a-zA-Z0-9]+)(_[a-zA-Z]+-[a-zA-Z0-9+]+)*_T1w\.nii(\.gz)?")
_SUFFIXES = (".nii.gz", ".nii")
# what a filter file may name: the entities of a T1w file
_ENTITIES = frozenset(
    (
        "subject",
        "session",
        "acquisition",
        "ceagent",
        "reconstruction",
        "run",
        "echo",
        "part",
        "chunk",
    )
)


@dataclass(frozen=True)
class Scan:
    """One T1w image.

    Attributes
    ----------
    path : Path
    subject : str
        Label without ``sub-``.
    session : str or None
    stem : str
        File name without ``_T1w.nii.gz``: the entities its derivatives keep.
    """

    path: Path
    subject: str
    session: str | None
    stem: str

    @property
    def anat_folder(self) -> Path:
        """Folder of its derivatives, relative to the output folder."""
        parts = [f"sub-{self.subject}"]
        if self.session:
            parts.append(f"ses-{self.session}")
        return Path(*parts, "anat")


def find_scans(bids_dir: Path, selection: Selection) -> list[Scan]:
    """The T1w images that a selection names, sorted by path.

    Raises
    ------
    InputError
        If the folder isn't a BIDS dataset, or holds no such image.
    """
    _check_dataset(bids_dir, described=selection.validate)
    wanted = {"suffix": "T1w", "extension": list(_SUFFIXES), **_filters(selection)}
    paths = sorted(
        Path(file.path)
        for layout in _open_layouts(bids_dir, selection)
        for file in layout.get(return_type="object", **wanted)
    )
    scans = [_scan_of(path) for path in paths if _has_bids_name(path)]
    if not scans:
        raise InputError(_nothing_found(bids_dir, selection))
    _check_participants(selection, {scan.subject for scan in scans}, bids_dir)
    return _without_duplicates(scans)


def _check_dataset(bids_dir: Path, *, described: bool) -> None:
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir}: no such folder; the first argument is the BIDS dataset")
    if not described:
        return
    description = bids_dir / "dataset_description.json"
    if not description.is_file():
        raise InputError(
            f"{bids_dir}: no dataset_description.json; is this the top folder of a BIDS dataset? "
            "(--skip-bids-validation goes on without it)"
        )
    try:
        read_json(description)
    except (OSError, ValueError) as error:
        raise InputError(f"{description}: not readable as a JSON object ({error})") from None


def _open_layouts(bids_dir: Path, selection: Selection) -> list[Any]:
    """Pybids' index of the T1w images, from the database where there is one.

    A database that isn't there yet is made under another name and renamed, so that jobs of an
    array neither wait for each other nor see half of it.  A call for some participants reads a
    database but never makes one: it would lack the others.
    """
    from bids import BIDSLayout  # slow to import

    root, database = bids_dir.resolve(), selection.database
    if database is not None and database.is_dir() and any(database.iterdir()):
        return [BIDSLayout(root, validate=False, database_path=database)]
    if selection.participants:
        # each folder by itself: the time doesn't depend on how many others there are
        folders = [root / f"sub-{label}" for label in selection.participants]
        return [
            BIDSLayout(folder, validate=False, indexer=_indexer())
            for folder in folders
            if folder.is_dir()
        ]
    if database is None:
        return [BIDSLayout(root, validate=False, indexer=_indexer())]
    temporary = database.with_name(f".tmp-{secrets.token_hex(6)}-{database.name}")
    try:
        BIDSLayout(root, validate=False, database_path=temporary, indexer=_indexer())
        with contextlib.suppress(OSError):  # another job was faster: its database is as good
            temporary.rename(database)
        return [BIDSLayout(root, validate=False, database_path=database)]
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _indexer() -> Any:
    """Index T1w images only."""
    from bids.layout import BIDSLayoutIndexer

    skip = r"^/(code|derivatives|sourcedata|stimuli|work)(/|$)"
    patterns = (skip, r"/\.", r"\.json$", r"(?<!_T1w)(?<!_T1w\.nii)\.[^/.]+$")
    return BIDSLayoutIndexer(
        validate=False, index_metadata=False, ignore=[re.compile(p) for p in patterns]
    )


def _filters(selection: Selection) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    if selection.filter_file is not None:
        filters.update(_read_filter(selection.filter_file))
    if selection.participants:
        filters["subject"] = list(selection.participants)
    if selection.sessions:
        filters["session"] = list(selection.sessions)
    if selection.runs:
        filters["run"] = [int(run) if run.isdigit() else run for run in selection.runs]
    return filters


def _read_filter(path: Path) -> dict[str, Any]:
    try:
        filters = dict(read_json(path)["t1w"])
    except (OSError, ValueError) as error:
        raise InputError(f"--bids-filter-file {path}: not readable as JSON ({error})") from None
    except (KeyError, TypeError):
        raise InputError(f'--bids-filter-file {path}: needs an entry "t1w"') from None
    for key in ("suffix", "datatype", "extension"):
        filters.pop(key, None)
    unknown = set(filters) - _ENTITIES
    if unknown:
        raise InputError(f"--bids-filter-file {path}: unknown entities {sorted(unknown)}")
    return filters


def _has_bids_name(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if match and f"sub-{match['sub']}" in path.parts:
        return True
    log.warning("%r: not the BIDS name of a T1w image; ignored", str(path))
    return False


def _scan_of(path: Path) -> Scan:
    extension = next(s for s in _SUFFIXES if path.name.endswith(s))
    stem = path.name.removesuffix(extension).removesuffix("_T1w")
    # from the name: pybids' get_entities() takes a database query a file
    entities = entities_of(stem)
    return Scan(path, entities["sub"], entities.get("ses"), stem)


def entities_of(stem: str) -> dict[str, str]:
    """BIDS entities in a file name: ``sub-01_ses-2`` gives ``{"sub": "01", "ses": "2"}``."""
    return dict(part.split("-", 1) for part in stem.split("_") if "-" in part)


def _nothing_found(bids_dir: Path, selection: Selection) -> str:
    if selection.participants or selection.sessions or selection.runs or selection.filter_file:
        return f"{bids_dir}: no T1w image matches the participant, session, run or filter options"
    subjects = sum(path.is_dir() for path in bids_dir.glob("sub-*"))
    if subjects:
        return f"{bids_dir}: {subjects} participants but no sub-*/[ses-*/]anat/*_T1w.nii[.gz]"
    return f"{bids_dir}: no participants (sub-*) found; check the path"


def _check_participants(selection: Selection, found: set[str], bids_dir: Path) -> None:
    missing = [p for p in selection.participants if p not in found]
    if missing:
        names = ", ".join(f"sub-{p}" for p in missing)
        raise InputError(f"{bids_dir}: no T1w image of {names}; check --participant-label")


def _without_duplicates(scans: list[Scan]) -> list[Scan]:
    """Keep the .nii.gz where a name is there in both forms."""
    kept: dict[tuple[Path, str], Scan] = {}
    for scan in scans:
        key = (scan.path.parent, scan.stem)
        if key in kept:
            log.warning("%s: the same scan is there as .nii.gz; ignored", scan.path)
            if kept[key].path.name.endswith(".nii.gz"):
                continue
        kept[key] = scan
    return list(kept.values())
