"""The files of ``hetseg-evaluate --report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from hetseg_bids.errors import DatasetError, ImageError
from hetseg_bids.evaluation.compare import Match, System, find_matches, read_scored, write_table
from hetseg_bids.evaluation.figures import (
    Overlay,
    flip_overlay,
    learning_curves,
    save_figure,
)
from hetseg_bids.evaluation.statistics import wilcoxon_table
from hetseg_bids.evaluation.tables import table1, table1_markdown
from hetseg_bids.files import write_text
from hetseg_bids.images import open_image, read_largest
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet

_SEGMENTATION = "_dseg.nii.gz"
_FLIP = "_desc-labelflip_probseg.nii.gz"


def write_report(scores: pd.DataFrame, folder: Path) -> None:
    """Write scores.tsv, table1.tsv and .md and, for two systems or more, wilcoxon.tsv."""
    write_table(scores, folder / "scores.tsv")
    table = table1(scores)
    write_table(table, folder / "table1.tsv")
    write_text(folder / "table1.md", table1_markdown(table))
    if scores["system"].nunique() > 1:
        tests = wilcoxon_table(scores)
        tests["p"] = tests["p"].map("{:.3g}".format)
        tests["p_holm"] = tests["p_holm"].map("{:.3g}".format)
        write_table(tests.replace("nan", np.nan), folder / "wilcoxon.tsv")
    else:  # of an earlier call
        (folder / "wilcoxon.tsv").unlink(missing_ok=True)


def write_curves(runs: Mapping[str, Sequence[Path]], folder: Path) -> None:
    """Draw learning_curves.png and .svg from validation logs, and gather them as curves.tsv.

    Parameters
    ----------
    runs : mapping of str to sequence of Path
        System to the output folders (or validation.tsv files) of its hetseg-train runs.
    folder : Path

    Raises
    ------
    DatasetError
        If a run has no validation log.
    """
    curves = {name: [_read_curve(path) for path in paths] for name, paths in runs.items()}
    save_figure(learning_curves(curves), folder / "learning_curves")
    gathered = [
        table.groupby(["samples", "name"], sort=False)["dice"]
        .mean()
        .reset_index()
        .assign(system=name, run=run)
        for name, tables in curves.items()
        for run, table in enumerate(tables)
    ]
    columns = ["system", "run", "samples", "name", "dice"]
    write_table(pd.concat(gathered)[columns], folder / "curves.tsv")


def _read_curve(path: Path) -> pd.DataFrame:
    log = path / "validation.tsv" if path.is_dir() else path
    try:
        table = pd.read_csv(log, sep="\t", na_values="n/a")
        return table[["samples", "name", "dice"]]
    except (OSError, KeyError, ValueError) as error:
        raise DatasetError(
            f"no validation log there ({error})",
            "train with --validate",
            option="--curves",
            path=path,
        ) from None


def write_overlays(
    references: Path, systems: Sequence[System], folder: Path, label_set: LabelSet = ASEG
) -> int:
    """Draw a label-flip overlay of each scan that has a flip map and a T1w image.

    The T1w image is looked for beside the reference.  Only the first run of a system is
    drawn.  Returns the number of pictures.
    """
    count = 0
    for system in systems:
        for match in find_matches(references, system.runs[0]):
            overlay = _overlay(match, f"{match.name}, {system.name}", label_set)
            if overlay is not None:
                save_figure(flip_overlay(overlay), folder / f"{match.name}_{system.name}", ("png",))
                count += 1
    return count


def _overlay(match: Match, title: str, label_set: LabelSet) -> Overlay | None:
    name = match.segmentation.name.removesuffix(_SEGMENTATION) + _FLIP
    flip = match.segmentation.with_name(name)
    t1w = match.reference.with_name(f"{match.name}_T1w.nii.gz")
    if not (flip.exists() and t1w.exists()):
        return None
    labels, grid = read_scored(match.segmentation, label_set)
    truth = read_scored(match.reference, label_set)[0]
    picture = open_image(t1w)
    if picture.shape[:3] != grid.shape:
        raise ImageError(f"not on the grid of {match.reference.name}", path=t1w)
    image = np.asarray(picture.dataobj, dtype=np.float32).reshape(grid.shape)
    box = ndimage.find_objects(((labels > 0) | (truth > 0)).astype(np.uint8))[0]

    def canonical(volume: npt.NDArray[Any]) -> npt.NDArray[Any]:
        turn = nib.io_orientation(grid.affine)
        return np.asarray(nib.orientations.apply_orientation(volume[box], turn))

    return Overlay(
        title,
        canonical(image),
        canonical(labels.astype(np.uint8)),
        canonical(truth),
        canonical(read_largest(flip)),
        label_set,
    )
