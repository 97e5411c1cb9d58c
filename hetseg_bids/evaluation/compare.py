"""Score a folder of segmentations against references."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd

from hetseg_bids.errors import DatasetError, ImageError
from hetseg_bids.evaluation.metrics import compare
from hetseg_bids.files import write_tsv
from hetseg_bids.images import read_labels
from hetseg_bids.structures.aseg import ASEG, WHOLE_ASEG, is_whole
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import read_label_table

_DIGITS = 5
_MARK = "_seg-hetseg"
_DSEG = re.compile(r"^[^.].*_dseg\.nii(\.gz)?$")


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
        See `find_matches`.
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
    return pd.concat(tables, ignore_index=True)


def find_matches(references: Path, derivatives: Path) -> list[Match]:
    """Pair every reference ``*_dseg.nii.gz`` with the hetseg dseg of the same scan.

    Both folders are searched, also through links.  Results of hetseg are references only if the
    folder holds no others; then two runs are compared with each other.

    Raises
    ------
    DatasetError
        If nothing matches, or a reference has no segmentation or several.
    """
    found = _dseg_images(references)
    if not found:
        raise DatasetError("no *_dseg.nii.gz in it or below to compare with", path=references)
    others = [path for path in found if _MARK not in path.name]
    if not others and references.resolve() == derivatives.resolve():
        raise DatasetError(
            "these are the results themselves", "give references first", path=references
        )
    results: dict[str, Path] = {}
    for path in _dseg_images(derivatives):
        if _MARK in path.name:
            results.setdefault(_scan_name(path), path)  # a native grid comes before res-1mm
    matches, missing = [], []
    for reference in others or found:
        name = _scan_name(reference)
        fitting = [name] if name in results else [n for n in results if n.startswith(f"{name}_")]
        if len(fitting) > 1:
            raise DatasetError(
                f"{', '.join(fitting)} could be meant",
                "name it after one of them",
                path=reference,
            )
        if fitting:
            matches.append(Match(name, results[fitting[0]], reference))
        else:
            missing.append(name)
    if missing:
        raise DatasetError(f"no segmentation of {', '.join(missing)}", path=derivatives)
    return matches


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
        ``participant``, ``name``, ``dice``, ``hd95_mm``, ``volume_mm3``, ``reference_mm3``,
        ``volume_error``.

    Raises
    ------
    ImageError
        If one can't be read, or the two images aren't on one grid.
    """
    labels, grid = read_labels(match.segmentation)
    reference, reference_grid = read_labels(match.reference)
    if not grid.matches(reference_grid):
        raise ImageError(f"not on the grid of {match.segmentation.name}", path=match.reference)
    truth = label_set.collapse(to_score(reference, match.reference, label_set))
    found = to_score(labels, match.segmentation, label_set)
    zooms = nib.affines.voxel_sizes(grid.affine)
    rows = []
    for structure in label_set.structures:
        wanted = truth == structure.label
        if not wanted.any():
            continue
        agreement = compare(found == structure.label, wanted, zooms)
        rows.append(
            {
                "participant": match.name,
                "name": structure.name,
                "dice": agreement.dice,
                "hd95_mm": agreement.hd95_mm,
                "volume_mm3": agreement.volume_mm3,
                "reference_mm3": agreement.reference_mm3,
                "volume_error": agreement.volume_error,
            }
        )
    return pd.DataFrame(rows)


def to_score(
    labels: npt.NDArray[np.int32], path: Path, label_set: LabelSet
) -> npt.NDArray[np.int32]:
    """A segmentation's labels as those of a label set.

    All labels of an aseg become the 28 structures where these are scored; the other way round
    there is no way.

    Parameters
    ----------
    labels : integer array
    path : Path
        The dseg; beside it lies its label table, or nothing is checked.

    Raises
    ------
    DatasetError
        If it isn't labelled as it is to be scored.
    """
    table = path.with_name(path.name.split(".nii")[0] + ".tsv")
    if not table.is_file() or label_set not in (ASEG, WHOLE_ASEG):
        return labels
    whole = is_whole(read_label_table(table).names)
    if label_set == WHOLE_ASEG and not whole:
        raise DatasetError("not made with --structures aseg", "leave that option out", path=path)
    return ASEG.collapse(labels).astype(np.int32) if whole and label_set == ASEG else labels


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as TSV."""
    write_tsv(path, table.round(_DIGITS))


def summary(scores: pd.DataFrame) -> str:
    """Mean Dice and HD95 of each participant, as text for the terminal.

    Examples
    --------
    >>> scores = pd.DataFrame({
    ...     "system": "label-flip", "run": 0, "participant": "sub-01",
    ...     "name": ["thalamus", "pallidum"], "dice": [0.9, 0.8], "hd95_mm": [1.0, 2.0],
    ... })
    >>> print(summary(scores))
    system      participant  structures  mean Dice  mean HD95 mm  lowest
    label-flip  sub-01                2     0.8500          1.50  pallidum 0.800
    """
    lines = [f"{'system':22} {'participant':28} structures  mean Dice  mean HD95 mm  lowest"]
    for (system, _, name), rows in scores.groupby(["system", "run", "participant"], sort=False):
        worst = rows.loc[rows["dice"].idxmin()]
        dice, hd95 = rows["dice"].mean(), rows["hd95_mm"].mean()
        lines.append(
            f"{system:22} {name:28} {len(rows):10d}  {dice:9.4f}  {hd95:12.2f}"
            f"  {worst['name']} {worst['dice']:.3f}"
        )
    return "\n".join(lines)
