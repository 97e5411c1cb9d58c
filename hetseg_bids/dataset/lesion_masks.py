"""Which lesion mask of a dataset belongs to a T1w image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hetseg_bids.dataset.bids_index import EXTENSIONS
from hetseg_bids.dataset.discovery import Scan
from hetseg_bids.dataset.files import lesion_masks_beside
from hetseg_bids.dataset.names import T1W, entities_of, suffix_of
from hetseg_bids.errors import MaskError

NO_MASK = "no lesion mask named"  # how a doubt begins
_SUFFIXES = ("mask", "roi")  # of BIDS derivatives, and as fMRIPrep reads it beside the T1w
_OWN_SPACES = ("orig", "individual")
# entities that a mask has beside those of its T1w
_OF_A_MASK = ("label", "desc", "space", "mod")


@dataclass(frozen=True)
class FoundLesionMask:
    """What was found for one T1w image.

    Attributes
    ----------
    path : Path or None
        Its lesion mask.
    doubt : str
        A warning, where there is none but the folder holds a lesion mask of another name.
    """

    path: Path | None = None
    doubt: str = ""


def find_lesion_mask(scan: Scan, bids_dir: Path | None) -> FoundLesionMask:
    """The lesion mask of a scan: beside it, or in a dataset under derivatives/.

    Its name is that of the T1w with ``_label-lesion_mask`` or ``_label-lesion_roi`` in place of, or
    after, ``_T1w``; ``space-orig``, ``space-T1w``, ``mod-T1w`` and any ``desc`` are allowed.

    Parameters
    ----------
    scan : Scan
    bids_dir : Path or None
        Without a dataset: see `lesion_masks_beside`.

    Returns
    -------
    found : FoundLesionMask

    Raises
    ------
    MaskError
        If several files have such a name.

    Examples
    --------
    >>> from hetseg_bids.dataset.discovery import scan_of_dataset
    >>> bids = getfixture("tmp_path")
    >>> anat = bids / "sub-01" / "anat"
    >>> anat.mkdir(parents=True)
    >>> scan = scan_of_dataset(anat / "sub-01_T1w.nii.gz", "sub-01")
    >>> find_lesion_mask(scan, bids).path is None
    True
    >>> (anat / "sub-01_T1w_label-lesion_roi.nii.gz").touch()
    >>> find_lesion_mask(scan, bids).path.name
    'sub-01_T1w_label-lesion_roi.nii.gz'
    """
    if bids_dir is None:
        own, others = lesion_masks_beside(scan.path), []
    else:
        candidates = list(_candidates(scan, bids_dir))
        own = [path for path in candidates if _belongs(path, scan)]
        others = [path for path in candidates if path not in own]
    if len(own) > 1:
        names = ", ".join(str(path) for path in own)
        raise MaskError(
            f"{len(own)} lesion masks ({names})", "keep one, or merge them", path=scan.path
        )
    if own:
        return FoundLesionMask(own[0])
    if not others:
        return FoundLesionMask()
    wanted = f"{scan.stem}_label-lesion_mask.nii.gz"
    return FoundLesionMask(
        doubt=f"{NO_MASK} {wanted}, but there is {others[0].name}: the scan was "
        "processed as one without a lesion"
    )


def _candidates(scan: Scan, bids_dir: Path) -> Iterator[Path]:
    """Files of the scan's folder, and of the same under derivatives/, that may be lesion masks."""
    root = bids_dir.resolve()
    for folder in (scan.path.parent, *sorted(root.glob(f"derivatives/*/{scan.folder}"))):
        for path in sorted(folder.glob(f"sub-{scan.subject}_*")):
            stem = _stem(path)
            if stem and "lesion" in stem.lower() and stem.split("_")[-1] in _SUFFIXES:
                yield path


def _stem(path: Path) -> str:
    """The name without the ending of a NIfTI file; empty for other files."""
    return next((path.name.removesuffix(e) for e in EXTENSIONS if path.name.endswith(e)), "")


def _belongs(path: Path, scan: Scan) -> bool:
    """Whether a file has the name of this scan's lesion mask."""
    *words, _ = _stem(path).split("_")
    bare = [word for word in words if "-" not in word]
    entities, own = entities_of("_".join(words)), entities_of(scan.stem)
    suffix = suffix_of(scan.stem)
    named = [*bare, *([entities["mod"]] if "mod" in entities else [])]
    # without a suffix, a mask is the T1w's
    of_image = bool(named) and set(named) == {suffix} if suffix != T1W else set(named) <= {T1W}
    space = entities.get("space", suffix)
    in_place = space in (*_OWN_SPACES, suffix) or space == own.get("space")
    lesion = entities.get("label") == "lesion"
    return lesion and in_place and of_image and _rest(entities) == _rest(own)


def _rest(entities: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in entities.items() if name not in _OF_A_MASK}
