"""The cohort's flip map in template space.

Scans are aligned by the affine that best moves the centroids of their own structures onto those
of MNI152. For a map of where labels are uncertain that is enough, and it needs no registration.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from hetseg_bids.errors import ImageError
from hetseg_bids.images import Grid, grid_of, open_image, read_labels, read_largest
from hetseg_bids.preprocessing.conform import resample
from hetseg_bids.structures.alignment import centroids, template_affine
from hetseg_bids.structures.aseg import ASEG, is_whole
from hetseg_bids.structures.label_sets import Structure

log = logging.getLogger(__name__)
_TEMPLATE_ZOOM = 2  # mm


@dataclass(frozen=True)
class Template:
    """The image on which the maps are drawn.

    Attributes
    ----------
    name : str
        TemplateFlow's name of the space.
    image : (X, Y, Z) float32 array
        Skull-stripped T1w, RAS, 2 mm.
    grid : Grid
    """

    name: str
    image: npt.NDArray[np.float32]
    grid: Grid


@dataclass(frozen=True)
class CohortMap:
    """Flip probability over scans, largest over the structures of each.

    Attributes
    ----------
    template : Template
    mean, sd : (X, Y, Z) float32 array
        On the grid of the template, 0-0.5.
    count : int
        Number of scans.
    """

    template: Template
    mean: npt.NDArray[np.float32]
    sd: npt.NDArray[np.float32]
    count: int


def load_template() -> Template:
    """MNI152NLin2009cAsym where TemplateFlow's cache has it, else nilearn's MNI152."""
    path = _cached_templateflow()
    try:
        if path is not None and path.is_file() and path.stat().st_size:  # it keeps empty stubs
            image = nib.as_closest_canonical(open_image(path))
            data = np.asarray(image.dataobj, np.float32)
            return Template("MNI152NLin2009cAsym", data, grid_of(image))
    except Exception as error:  # whatever is wrong with the cache, nilearn's template can be used
        log.warning("%s: can't be used, so the map is drawn on nilearn's (%s)", path, error)
    from nilearn.datasets import load_mni152_template

    image = nib.as_closest_canonical(load_mni152_template(resolution=_TEMPLATE_ZOOM))
    return Template("MNI152NLin2009aSym", np.asarray(image.dataobj, np.float32), grid_of(image))


def _cached_templateflow() -> Path | None:
    # TemplateFlow's API would download the image; nodes of a cluster often have no network
    try:
        from templateflow.conf import TF_HOME
    except Exception as error:  # importing it writes to its home folder, and may raise there
        log.info("TemplateFlow can't be used (%s)", error)
        return None
    name = "tpl-MNI152NLin2009cAsym_res-02_desc-brain_T1w.nii.gz"
    return Path(TF_HOME) / "tpl-MNI152NLin2009cAsym" / name


def cohort_map(
    scans: Iterable[tuple[Path, Path]], template: Template, structures: Sequence[Structure]
) -> CohortMap | None:
    """Mean and standard deviation of the flip maps on the template.

    Parameters
    ----------
    scans : iterable of (Path, Path)
        The dseg and the flip map of each scan.
    template : Template
    structures : sequence of Structure
        Labels of the dseg images.

    Returns
    -------
    cohort : CohortMap or None
        None if no scan has enough structures to be aligned.
    """
    mean = np.zeros(template.grid.shape, np.float64)
    squares = np.zeros(template.grid.shape, np.float64)
    count = 0
    for dseg, flip_probability in scans:
        try:
            aligned = _aligned_flip(dseg, flip_probability, template.grid, structures)
        except ImageError as error:
            log.warning("left out of the cohort's map: %s", error)
            continue
        if aligned is None:
            continue
        count += 1
        step = aligned - mean  # Welford's recurrence
        mean += step / count
        squares += step * (aligned - mean)
    if not count:
        return None
    sd = np.sqrt(squares / max(1, count - 1))
    return CohortMap(template, mean.astype(np.float32), sd.astype(np.float32), count)


def _aligned_flip(
    dseg: Path, flip_probability: Path, target: Grid, structures: Sequence[Structure]
) -> npt.NDArray[np.float32] | None:
    labels, grid = read_labels(dseg)
    if is_whole(s.name for s in structures):  # the template has whole structures
        labels, structures = ASEG.collapse(labels).astype(np.int32), ASEG.structures
    affine = template_affine(centroids(labels, grid, structures))
    if affine is None:
        return None
    moved = Grid(grid.shape, affine @ grid.affine)
    return resample(torch.from_numpy(read_largest(flip_probability))[None], moved, target)[
        0
    ].numpy()
