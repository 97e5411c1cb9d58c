"""Where the T1w and UNIT1 images of a dataset lie; also by a pybids index that is kept on disk."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hetseg_bids.dataset.names import SUFFIXES
from hetseg_bids.errors import DatasetError

log = logging.getLogger(__name__)
EXTENSIONS = (".nii.gz", ".nii")
_NO_INPUT = ("code", "derivatives", "sourcedata", "stimuli", "work")  # folders of the dataset
_STORE = ".zarr"  # a folder that is one image, of thousands of files
_DATABASE = "layout_index.sqlite"  # as pybids calls it
_REMEDY = "give each dataset a folder of its own, or remove this one"


def image_paths(
    root: Path, suffix: str, participants: Sequence[str], database: Path | None
) -> list[Path]:
    """Files that end in ``_T1w.nii[.gz]`` or another suffix, wherever they lie in the dataset.

    Parameters
    ----------
    root : Path
        The dataset, resolved.
    suffix : {"T1w", "UNIT1"}
    participants : sequence of str
        Labels; only their folders are read, and those whose names differ from theirs in upper
        and lower case only.  Empty means the whole dataset.
    database : Path or None
        Folder of a pybids index.  It is used for the whole dataset if it lists the images that
        the dataset holds now, and is made (again) otherwise.

    Returns
    -------
    paths : list of Path
        Sorted.

    Raises
    ------
    DatasetError
        If the index is another dataset's or can't be read.
    """
    layout = _kept_layout(root, database) if database is not None else None
    if participants:
        # each folder by itself: the time doesn't depend on how many others there are, and no
        # index can be out of date
        wanted = {f"sub-{label}".casefold() for label in participants}
        folders = [folder for folder in _folders(root, "sub-") if folder.name.casefold() in wanted]
        return sorted(path for folder in folders for path in _searched(folder, suffix))
    if layout is not None and database is not None:
        with _readable(database):
            kept = _paths_of(layout, suffix)
        # the index may have been made through a link to the dataset
        kept = [root / path.relative_to(layout.root) for path in kept]
        added, removed = _difference(root, suffix, kept)
        if not added and not removed:
            return kept
        log.warning(
            "--bids-database-dir %s: %d %s images were added and %d removed since the index was "
            "made; it is made again",
            *(database, added, suffix, removed),
        )
    return _searched(root, suffix) if database is None else _index_and_keep(root, suffix, database)


def _searched(folder: Path, suffix: str) -> list[Path]:
    """The images that `_indexed` finds, without pybids, which is slow to import; sorted."""
    name = re.compile(rf"[^.]*_{suffix}({'|'.join(map(re.escape, EXTENSIONS))})")
    return sorted(path for path in _files_below(folder, _NO_INPUT) if name.fullmatch(path.name))


def _files_below(
    folder: Path, skipped: Sequence[str], way: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    """Files in a folder and those below; hidden ones and some folders at the top are left out.

    Links are followed, but not to a folder that they are in (`way`).
    """
    try:
        about = folder.stat()
        entries = _entries(folder)
    except OSError as error:
        log.warning("%r: can't be read (%s); left out", str(folder), error.strerror)
        return
    here = (about.st_dev, about.st_ino)
    if here in way:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in skipped:
            continue
        path = Path(entry.path)
        if not _is_folder(entry):
            yield path
        elif path.suffix != _STORE:
            yield from _files_below(path, (), way | {here})


def _indexed(folder: Path, suffix: str, database: Path) -> list[Path]:
    from bids import BIDSLayout  # slow to import

    layout = BIDSLayout(folder, validate=False, database_path=database, indexer=_indexer())
    return _paths_of(layout, suffix)


def _indexer() -> Any:
    """Index T1w and UNIT1 images only."""
    from bids.layout import BIDSLayoutIndexer

    skip = rf"^/({'|'.join(_NO_INPUT)})(/|$)"
    others = "".join(rf"(?<!_{suffix})(?<!_{suffix}\.nii)" for suffix in SUFFIXES)
    patterns = (skip, r"/\.", r"\.json$", rf"{others}\.[^/.]+$")
    return BIDSLayoutIndexer(
        validate=False, index_metadata=False, ignore=[re.compile(p) for p in patterns]
    )


def _paths_of(layout: Any, suffix: str) -> list[Path]:
    """Images of a layout with this suffix, sorted; its database is closed."""
    files = layout.get(return_type="object", suffix=suffix, extension=list(EXTENSIONS))
    layout.session.close()
    return sorted(Path(file.path) for file in files)


def _kept_layout(root: Path, database: Path) -> Any | None:
    """The index on disk, or None if there is none."""
    from bids import BIDSLayout

    if not (database / _DATABASE).is_file():
        return None
    with _readable(database):
        # pybids takes the root from the database, whatever it is given here
        layout = BIDSLayout(root, validate=False, database_path=database)
    if Path(layout.root).resolve() != root:
        raise DatasetError(
            f"it is the index of {layout.root}, not of {root}",
            _REMEDY,
            option="--bids-database-dir",
            path=database,
        )
    return layout


@contextlib.contextmanager
def _readable(database: Path) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, ValueError, AttributeError) as error:
        line = " ".join(str(getattr(error, "orig", error)).split())
        raise DatasetError(
            f"not readable as a pybids index ({line})",
            _REMEDY,
            option="--bids-database-dir",
            path=database,
        ) from None


def _difference(root: Path, suffix: str, kept: list[Path]) -> tuple[int, int]:
    """How many scans were added and removed since an index was made.

    The path of a dataset doesn't identify it (in a container all are called /bids). An index that
    lists exactly the images that are there is right, whichever dataset it was made for.
    """
    there = set(in_place(root, suffix))
    listed = {path for path in kept if is_in_place(path.relative_to(root))}
    return len(there - listed), len(listed - there)


def in_place(root: Path, suffix: str) -> Iterator[Path]:
    """Images of a suffix in the folders that BIDS names; reads few directories per participant.

    Examples
    --------
    >>> anat = getfixture("tmp_path") / "sub-01" / "ses-1" / "anat"
    >>> anat.mkdir(parents=True)
    >>> (anat / "sub-01_ses-1_T1w.nii.gz").touch()
    >>> [path.name for path in in_place(getfixture("tmp_path"), "T1w")]
    ['sub-01_ses-1_T1w.nii.gz']
    """
    endings = tuple(f"_{suffix}{extension}" for extension in EXTENSIONS)
    for subject in _folders(root, "sub-"):
        for folder in (subject, *_folders(subject, "ses-")):
            for entry in _entries(folder / "anat"):
                visible = not entry.name.startswith(".")
                if visible and entry.name.endswith(endings) and not _is_folder(entry):
                    yield Path(entry.path)


def is_in_place(relative: Path) -> bool:
    """Whether a path in the dataset is ``sub-*/[ses-*/]anat/<file>``.

    Examples
    --------
    >>> is_in_place(Path("sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz"))
    True
    >>> is_in_place(Path("sub-01/sub-01_T1w.nii.gz"))
    False
    """
    subject, *session, anat = relative.parts[:-1] if len(relative.parts) > 2 else ("", "")
    return (
        subject.startswith("sub-")
        and anat == "anat"
        and len(session) <= 1
        and all(name.startswith("ses-") for name in session)
    )


def _folders(parent: Path, prefix: str) -> list[Path]:
    found = (e for e in _entries(parent) if e.name.startswith(prefix) and _is_folder(e))
    return sorted(Path(entry.path) for entry in found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle: a clear error follows when the file is opened
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _index_and_keep(root: Path, suffix: str, database: Path) -> list[Path]:
    """Index a dataset and move the index into place in one step.

    Jobs of an array don't wait for each other and never see half of an index: each uses the
    images that it found itself.
    """
    temporary = database / f".tmp-{secrets.token_hex(6)}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        log.warning("--bids-database-dir %s: the index isn't kept (%s)", database, error.strerror)
        return _searched(root, suffix)
    try:
        paths = _indexed(root, suffix, temporary)
        with contextlib.suppress(FileNotFoundError):  # the folder was removed meanwhile
            os.replace(temporary / _DATABASE, database / _DATABASE)
        return paths
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
