"""T1w images that are named one by one, or lie in a folder that is no BIDS dataset.

Their results keep the names of the files; folders tell apart files of the same name.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hetseg_bids import file_formats
from hetseg_bids.dataset.discovery import Found, Scan, say_left_out
from hetseg_bids.errors import DatasetError, MaskError

log = logging.getLogger(__name__)
ENDINGS = (".nii.gz", ".nii", ".mgz", ".mgh")
# of a FreeSurfer subject one image is taken, the first that is there: FastSurfer makes no T1
_OF_SUBJECT = ("orig.mgz", "T1.mgz", "rawavg.mgz")
_AVERAGE = "fsaverage"  # and fsaverage5, ...: FreeSurfer's template beside the subjects
_LABELS = re.compile(
    r"(?:^|.*[_.+-])(?:dseg|probseg|[a-z]*mask|label-lesion_roi|lesion|seg|aseg|labels?)",
    re.IGNORECASE,
)
_OTHER_IMAGE = re.compile(
    r"(?:^|.*[_.-])(?:T2w?|T2starw?|MP2RAGE|MTw|MTR|T[12]map|FLAIR|PDw|PDT2|inplaneT2|bold|sbref|dwi|dti|epi|asl|"
    r"m0scan|pet|swi|angio|fieldmap|phasediff|(?:magnitude|phase)[12]?)",
    re.IGNORECASE,
)
_RESERVED = ("logs", "group", "hetseg")  # what OUT has, or logs begin with, beside names of scans
_LONGEST = 170  # bytes of a name: the endings of results need the rest of 255


def is_image_name(path: Path) -> bool:
    """Whether a name ends as those of images that can be segmented do.

    Examples
    --------
    >>> is_image_name(Path("sub-01/mri/T1.mgz")), is_image_name(Path("T1.json"))
    (True, False)
    """
    return path.name.lower().endswith(ENDINGS)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False for names that no file can have, where `Path` raises."""
    return os.path.isdir(path)  # noqa: PTH112


def find_images(given: Sequence[Path], out_dir: Path) -> Found:
    """The images that are given, and those in the folders that are given, with names for results.

    A name is the file's without its ending; images in ``mri/`` of a FreeSurfer subject have the
    subject's in front. Where several have the same, what differs in their folders is put in front.

    Parameters
    ----------
    given : sequence of Path
        Files and folders; folders are searched with all folders below.
    out_dir : Path
        Folder of the results, in which no images are looked for.

    Raises
    ------
    DatasetError
        If there is no image, or none that can be used.

    Examples
    --------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("a/T1.nii.gz", "b/T1.mgz", "b/old.nii", "b/T1_mask.nii.gz"):
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     (folder / name).touch()
    >>> [scan.stem for scan in find_images([folder], folder / "OUT").scans]
    ['a_T1', 'b_T1', 'old']
    """
    paths: dict[Path, None] = {}  # in order, each once
    left_out: dict[Path, str] = {}
    for word in given:
        place = Path(os.path.abspath(word))  # noqa: PTH100 (links keep the names that users know)
        images = _images_below(place, out_dir) if is_folder(place) else [place]
        for path in images:
            if why := _why_not(path):
                left_out[path] = why
            else:
                paths[path] = None
        if not images:
            raise DatasetError(f"no image ({', '.join(ENDINGS)}) in it", path=word)
    say_left_out(left_out)
    if not paths:
        path, why = next(iter(left_out.items()))
        others = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise DatasetError(f"nothing to segment: {str(path)!r}: {why}{others}")
    found = _named(list(paths))
    if not found.scans:
        scan, why = found.refused[0]
        others = f" (and {len(found.refused) - 1} more)" if len(found.refused) > 1 else ""
        raise DatasetError(f"{why}{others}", path=scan.path)
    log.info("T1w images to segment: %d", len(found.scans))
    return found


def _why_not(path: Path) -> str:
    """Why a file is no T1w image, by its name alone; empty if it may be one."""
    if not str(path).isprintable():
        return "a character in its path can't be printed; rename it"
    if not is_image_name(path):
        remedy = file_formats.remedy(path) if os.path.isfile(path) else ""  # noqa: PTH113
        return f"not named as an image ({', '.join(ENDINGS)})" + (f"; {remedy}" if remedy else "")
    name = _bare_name(path)
    if not name:
        return "no name before its ending"
    if _LABELS.fullmatch(name):
        return "named as a mask or label image"
    if _OTHER_IMAGE.fullmatch(name):
        return "named as another image than a T1w"
    return ""


def _bare_name(path: Path) -> str:
    """The name of a file without its ending.

    Examples
    --------
    >>> _bare_name(Path("T1.old.NII.GZ"))
    'T1.old'
    """
    ending = next(e for e in ENDINGS if path.name.lower().endswith(e))
    return path.name[: -len(ending)]


def images_below(folder: Path) -> list[Path]:
    """The images of a folder and those below that may be T1w, by their names; sorted.

    Raises
    ------
    DatasetError
        If there is none.
    """
    found = [path for path in _images_below(folder, None) if not _why_not(path)]
    if not found:
        raise DatasetError(f"no image ({', '.join(ENDINGS)}) in it", path=folder)
    return found


def _images_below(folder: Path, out_dir: Path | None) -> list[Path]:
    """Files with the names of images in a folder and those below, sorted; hidden ones left out."""
    found: list[Path] = []
    for place, names in _walk(folder, None if out_dir is None else out_dir.resolve()):
        paths = (place / name for name in names if not name.startswith("."))
        found += [path for path in paths if is_image_name(path)]
    return sorted(found)


def _walk(folder: Path, out: Path | None) -> Iterator[tuple[Path, list[str]]]:
    """Folders with their files; of a FreeSurfer subject only the image to segment."""
    seen: set[str] = set()  # folders are read once, also where links lead in circles

    def complain(error: OSError) -> None:
        log.warning("%r: can't be read (%s); left out", error.filename, error.strerror)

    for place, folders, names in os.walk(folder, onerror=complain, followlinks=True):
        real = os.path.realpath(place)
        if real in seen or Path(real) == out:
            folders.clear()
            continue
        seen.add(real)
        mri = Path(place) if Path(place).name == "mri" else Path(place, "mri")
        image = next((name for name in _OF_SUBJECT if os.path.isfile(mri / name)), None)  # noqa: PTH113
        if image is not None:
            folders.clear()
            if not mri.parent.name.startswith(_AVERAGE):
                yield mri, [image]
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), names


def _named(paths: Sequence[Path]) -> Found:
    """Scans with names that are all different; files for which there is none are refused."""
    names = _names(paths)
    same: dict[str, list[Path]] = defaultdict(list)
    for path, name in names.items():
        same[name.casefold()].append(path)  # some drives take a and A for the same
    found = Found([], [])
    for path, name in names.items():
        scan = Scan(path, name, Path(name))
        others = [other for other in same[name.casefold()] if other != path]
        why = ""
        if not os.path.lexists(path):
            why = "no such file"
        elif others:
            why = (
                f"its results and those of {others[0]} would both be called {name}; "
                "rename one of the files"
            )
        elif len(os.fsencode(name)) > _LONGEST:
            why = f"its name is longer than {_LONGEST} bytes; rename it"
        if why:
            found.refused.append((scan, why))
        else:
            found.scans.append(scan)
    return found


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Names of results, different where folders are."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[_own_name(path).casefold()].append(path)
    names = {}
    for own, group in groups.items():
        folders = _differences([path.parent.parts for path in group])
        for path, parts in zip(group, folders, strict=True):
            reserved = own in _RESERVED and not parts
            names[path] = "_".join(
                (*(path.parent.parts[-1:] if reserved else parts), _own_name(path))
            )
    return {path: names[path] for path in paths}


def _own_name(path: Path) -> str:
    """The file's name, behind that of the subject whose ``mri`` folder it lies in.

    Hundreds of FreeSurfer subjects have an ``orig.mgz``, and jobs are often given one each.

    Examples
    --------
    >>> _own_name(Path("subjects/bert/mri/orig/001.mgz")), _own_name(Path("scans/bert.nii.gz"))
    ('bert_001', 'bert')
    """
    inside = path.parent.parent if path.parent.name == "orig" else path.parent
    subject = inside.parent.name if inside.name == "mri" else ""
    return f"{subject}_{_bare_name(path)}" if subject else _bare_name(path)


def _differences(folders: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Paths without what all have in common at their beginnings and ends.

    Examples
    --------
    >>> _differences([("s", "a", "mri"), ("s", "b", "mri")])
    [('a',), ('b',)]
    >>> _differences([("s", "a", "mri")])
    [()]
    """
    start = _common(folders)
    rest = [parts[start:] for parts in folders]
    end = _common([parts[::-1] for parts in rest])
    return [parts[: len(parts) - end] for parts in rest]


def _common(folders: Iterable[tuple[str, ...]]) -> int:
    """How many parts are the same at the beginning of all."""
    count = 0
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        count += 1
    return count


def path_from(out_dir: Path, path: Path) -> str:
    """A path from the folder of the results, which stays right if both are moved together.

    Examples
    --------
    >>> path_from(Path("study/OUT"), Path("study/scans/T1.nii.gz"))
    '../scans/T1.nii.gz'
    """
    place = path.parent.resolve() / path.name
    try:
        return Path(os.path.relpath(place, out_dir.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return place.as_posix()


def mask_beside(path: Path) -> Path:
    """The brain mask beside an image: ``X_desc-brain_mask``, ``X_brain_mask`` or ``X_mask``.

    Beside ``X_T1w`` it may lack the ``_T1w``, and in ``mri/`` it may be FastSurfer's ``mask.mgz``.

    Raises
    ------
    MaskError
        If there is none.
    """
    name = _bare_name(path)
    more = ("mask",) if path.parent.name == "mri" else ()
    found = _beside(path, ("_desc-brain_mask", "_brain_mask", "_mask"), more)
    if not found:
        raise MaskError(
            f"--brain-extraction mask needs {name}_desc-brain_mask.nii.gz or {name}_mask.nii.gz "
            "beside it",
            path=path,
        )
    return found[0]


def lesion_masks_beside(path: Path) -> list[Path]:
    """Lesion masks beside an image: ``X_label-lesion_mask``, ``_roi`` or ``X_lesion_mask``.

    Beside ``X_T1w`` they may lack the ``_T1w``.
    """
    return _beside(path, ("_label-lesion_mask", "_label-lesion_roi", "_lesion_mask"))


def _beside(path: Path, ends: Sequence[str], more: Sequence[str] = ()) -> list[Path]:
    """The files beside an image whose names are the image's with one of the ends."""
    name = _bare_name(path)
    beginnings = dict.fromkeys((name, name.removesuffix("_T1w")))
    stems = [*(start + end for start in beginnings for end in ends), *more]
    paths = (path.parent / f"{stem}{ending}" for stem in stems for ending in ENDINGS)
    return [found for found in paths if is_there(found)]


def is_there(path: Path) -> bool:
    """Whether a file lies there, or a link: a broken one is refused when it is read."""
    return path.is_file() or path.is_symlink()
