"""Score a folder of segmentations against references."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd

from hetseg_bids.dataset.names import keys_of
from hetseg_bids.errors import DatasetError, ImageError
from hetseg_bids.evaluation.metrics import compare
from hetseg_bids.files import write_tsv
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.structures.aseg import ASEG, WHOLE_ASEG, is_whole
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import read_label_table

log = logging.getLogger(__name__)
_DIGITS = 5
_MARK = "_seg-hetseg"
_DSEG = re.compile(r"^[^.].*_dseg\.nii(\.gz)?$")
_TABLE = "give the table of its structures with --labels"


@dataclass(frozen=True)
class System:
    """Results to score under one name.

    Attributes
    ----------
    name : str
    runs : tuple of Path
        A folder of derivatives for each run (seed) of the system.
    """

    name: str
    runs: tuple[Path, ...]


@dataclass(frozen=True)
class Match:
    """A segmentation and its reference.

    Attributes
    ----------
    name : str
        ``sub-X[_ses-Y]``.
    segmentation, reference : Path
    """

    name: str
    segmentation: Path
    reference: Path


def score_systems(
    references: Path,
    systems: Sequence[System],
    progress: Callable[[list], Iterable] = iter,
    label_set: LabelSet = ASEG,
) -> pd.DataFrame:
    """Score every run of every system: one row per system, run, scan and structure.

    Parameters
    ----------
    references : Path
    systems : sequence of System
    progress : callable
        Wraps the list of scans to score, e.g. ``tqdm``.
    label_set : LabelSet
        The structures to score.

    Returns
    -------
    scores : DataFrame
        ``system``, ``run`` and the columns of `evaluate`.

    Raises
    ------
    DatasetError
        See `find_matches`; also if no reference has a structure that is scored.
    ImageError
        See `evaluate`.
    """
    work = [
        (system.name, run, match)
        for system in systems
        for run, folder in enumerate(system.runs)
        for match in find_matches(references, folder)
    ]
    tables = []
    for name, run, match in progress(work):
        table = evaluate(match, label_set)
        table.insert(0, "system", name)
        table.insert(1, "run", run)
        tables.append(table)
    scores = pd.concat(tables, ignore_index=True)
    if scores.empty:
        raise DatasetError("no reference has a structure to score", _TABLE, path=references)
    return scores


def find_matches(references: Path, derivatives: Path) -> list[Match]:
    """Pair every reference ``*_dseg.nii.gz`` with the hetseg dseg of the same scan.

    Both folders are searched, also through links.  Results of hetseg are references only if the
    folder holds no others; then two runs are compared with each other.

    Raises
    ------
    DatasetError
        If nothing matches, or a scan hasn't one reference and one segmentation.
    """
    found = _dseg_images(references)
    if not found:
        raise DatasetError("no *_dseg.nii.gz in it or below to compare with", path=references)
    others = [path for path in found if _MARK not in path.name]
    if not others and references.resolve() == derivatives.resolve():
        raise DatasetError(
            "these are the results themselves", "give references first", path=references
        )
    results = _by_scan(path for path in _dseg_images(derivatives) if _MARK in path.name)
    matches, missing = [], []
    for name, same in _by_scan(others or found).items():
        reference = _only(same, name, references)
        fitting = [name] if name in results else [n for n in results if n.startswith(f"{name}_")]
        if len(fitting) > 1:
            raise DatasetError(
                f"{', '.join(fitting)} could be meant",
                "name it after one of them",
                path=reference,
            )
        if fitting:
            segmentation = _only(results[fitting[0]], name, derivatives)
            matches.append(Match(name, segmentation, reference))
        else:
            missing.append(name)
    if missing:
        raise DatasetError(f"no segmentation of {', '.join(missing)}", path=derivatives)
    return matches


def _by_scan(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by the name of their scan, in the order given; links to the same file count once."""
    found: dict[str, dict[str, Path]] = {}
    for path in paths:
        same = found.setdefault(_scan_name(path), {})
        # of the results in one folder, a native grid comes before res-1mm
        is_other_grid = _MARK in path.name and any(p.parent == path.parent for p in same.values())
        if not is_other_grid:
            same.setdefault(os.path.realpath(path), path)
    return {name: list(same.values()) for name, same in found.items()}


def _only(paths: Sequence[Path], name: str, folder: Path) -> Path:
    if len(paths) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in paths)
        problem = f"{len(paths)} segmentations of {name} ({names})"
        raise DatasetError(problem, "give a folder with one of them", path=folder)
    return paths[0]


def _scan_name(dseg: Path) -> str:
    return dseg.name.split("_dseg.")[0].split(_MARK)[0]


def _dseg_images(folder: Path) -> list[Path]:
    """Label images below a folder, sorted; links to folders are followed, once each."""
    found: list[Path] = []
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(here))
        folders[:] = [f for f in folders if os.path.realpath(Path(here, f)) not in seen]
        found += [Path(here, name) for name in files if _DSEG.search(name)]
    return sorted(found)


def evaluate(match: Match, label_set: LabelSet = ASEG) -> pd.DataFrame:
    """Agreement of one scan with its reference, one row per structure.

    Structures that the reference doesn't have at all are left out, because protocols differ.

    Returns
    -------
    scores : DataFrame
        ``participant``, ``scan``, ``name``, ``dice``, ``hd95_mm``, ``volume_mm3``,
        ``reference_mm3``, ``volume_error``.

    Raises
    ------
    DatasetError
        See `read_scored`.
    ImageError
        If one can't be read, or the two images aren't on one grid.
    """
    found, grid = read_scored(match.segmentation, label_set)
    truth, reference_grid = read_scored(match.reference, label_set)
    if not grid.matches(reference_grid):
        raise ImageError(f"not on the grid of {match.segmentation.name}", path=match.reference)
    zooms = nib.affines.voxel_sizes(grid.affine)
    rows = []
    for structure in label_set.structures:
        wanted = truth == structure.label
        if not wanted.any():
            continue
        agreement = compare(found == structure.label, wanted, zooms)
        rows.append(
            {
                "participant": keys_of(match.name)["participant_id"],
                "scan": match.name,
                "name": structure.name,
                "dice": agreement.dice,
                "hd95_mm": agreement.hd95_mm,
                "volume_mm3": agreement.volume_mm3,
                "reference_mm3": agreement.reference_mm3,
                "volume_error": agreement.volume_error,
            }
        )
    if not rows:
        log.warning("%s: none of the structures in it, left out", match.reference)
    return pd.DataFrame(rows)


def read_scored(path: Path, label_set: LabelSet) -> tuple[npt.NDArray[np.int32], Grid]:
    """A segmentation, labelled with the ``index`` of each structure of a label set.

    Parameters
    ----------
    path : Path
        A dseg. Results of hetseg hold these values already; in others each of a structure's
        members counts as it.
    label_set : LabelSet

    Raises
    ------
    DatasetError
        If it is a result that isn't labelled as it is to be scored, as its label table says.
    ImageError
        If it can't be read.
    """
    labels, grid = read_labels(path)
    if _MARK not in path.name:
        return label_set.collapse(labels).astype(np.int32), grid
    table = path.with_name(path.name.split(".nii")[0] + ".tsv")
    if not table.is_file():
        return labels, grid
    own = read_label_table(table)
    whole = is_whole(own.names)
    if label_set == WHOLE_ASEG and not whole:
        raise DatasetError("not made with --structures aseg", "leave that option out", path=path)
    if whole and label_set == ASEG:
        return ASEG.collapse(labels).astype(np.int32), grid
    _check_names(own, label_set, path)
    return labels, grid


def _check_names(own: LabelSet, label_set: LabelSet, path: Path) -> None:
    """Raise if a result's labels stand for other structures than those that are scored."""
    scored = {s.label: s.name for s in label_set.structures}
    shared = [s for s in own.structures if s.label in scored]
    others = [s for s in shared or own.structures if scored.get(s.label) != s.name]
    if others:
        first = others[0]
        problem = f"label {first.label} is {first.name} in it"
        instead = scored.get(first.label)
        problem += f", not {instead}" if instead else ", which isn't scored"
        raise DatasetError(problem, _TABLE, path=path)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as TSV."""
    write_tsv(path, table.round(_DIGITS))


def summary(scores: pd.DataFrame) -> str:
    """Mean Dice and HD95 of each scan, as text for the terminal.

    Examples
    --------
    >>> scores = pd.DataFrame({
    ...     "system": "label-flip", "run": 0, "scan": "sub-01",
    ...     "name": ["thalamus", "pallidum"], "dice": [0.9, 0.8], "hd95_mm": [1.0, 2.0],
    ... })
    >>> print(summary(scores))
    system      scan         structures  mean Dice  mean HD95 mm  lowest
    label-flip  sub-01                2     0.8500          1.50  pallidum 0.800
    """
    lines = [f"{'system':22} {'scan':28} structures  mean Dice  mean HD95 mm  lowest"]
    for (system, _, name), rows in scores.groupby(["system", "run", "scan"], sort=False):
        worst = rows.loc[rows["dice"].idxmin()]
        dice, hd95 = rows["dice"].mean(), rows["hd95_mm"].mean()
        lines.append(
            f"{system:22} {name:28} {len(rows):10d}  {dice:9.4f}  {hd95:12.2f}"
            f"  {worst['name']} {worst['dice']:.3f}"
        )
    return "\n".join(lines)
