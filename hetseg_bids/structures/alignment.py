"""Where structures lie, and the affine that takes them to where they lie elsewhere, as in MNI152.

Enough to compare a scan with others, and free of registration: the centroids of a scan's own
structures are moved onto the template's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hetseg_bids.images import Grid
from hetseg_bids.structures.label_sets import Structure

CENTROIDS = Path(str(resources.files("hetseg_bids"))) / "data" / "mni152_centroids.tsv"
_LEAST_CENTROIDS = 8  # 12 numbers of an affine, with some to spare
_LEAST_RIGID = 4
MOST_MISFIT_MM = 10.0
"""`misfit` above which structures don't have the places of a brain's; of good scans: 1-3 mm."""
_USUAL_MM = 3.0  # how far a good scan's centroids lie from the template's after the fit
_ROUNDS = 20


def centroids(
    labels: npt.NDArray[np.integer], grid: Grid, structures: Sequence[Structure]
) -> dict[str, npt.NDArray[np.float64]]:
    """Centre of gravity of each structure that occurs in a label image.

    Parameters
    ----------
    labels : (X, Y, Z) int array
        `Structure.label` values.
    grid : Grid
        Where its voxels lie.
    structures : sequence of Structure

    Returns
    -------
    found : dict of str to (3,) float array
        By `Structure.name`, mm in the space of `grid`.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> labels = np.zeros((20, 20, 20), np.uint8)
    >>> labels[4:7, 5, 8] = 10
    >>> centroids(labels, Grid(labels.shape, np.eye(4)), ASEG.structures)
    {'left_thalamus': array([5., 5., 8.])}
    """
    boxes = ndimage.find_objects(labels, max_label=max((s.label for s in structures), default=0))
    places = {}
    for structure in structures:
        box = boxes[structure.label - 1]
        if box is not None:
            inside = np.argwhere(labels[box] == structure.label).mean(axis=0)
            place = inside + [part.start for part in box]
            places[structure.name] = nib.affines.apply_affine(grid.affine, place)
    return places


def template_affine(found: dict[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64] | None:
    """The affine that takes centroids to the template's.

    Least squares, repeated with weights 1 / (1 + (distance / 3 mm)^2), so that a structure
    whose centroid a lesion has moved counts little.

    Parameters
    ----------
    found : dict of str to (3,) float array
        See `centroids`.

    Returns
    -------
    affine : (4, 4) float array or None
        Scanner mm to template mm; None with too few structures.

    Examples
    --------
    >>> table = pd.read_table(CENTROIDS, index_col="name")
    >>> found = {name: row.to_numpy() + 10 for name, row in table.iterrows()}
    >>> affine = template_affine(found)
    >>> affine.shape, affine[:3, 3].round(6)
    ((4, 4), array([-10., -10., -10.]))
    """
    table = _template_centroids()
    names = [name for name in table if name in found]
    if len(names) < _LEAST_CENTROIDS:
        return None
    here = np.array([[*found[name], 1.0] for name in names])
    there = np.array([table[name] for name in names])
    weight = np.ones((len(names), 1))
    affine = np.eye(4)
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        solution, _, rank, _ = np.linalg.lstsq(root * here, root * there, rcond=None)
        if rank < here.shape[1]:
            return None
        affine[:3] = solution.T
        distance = np.linalg.norm(here @ solution - there, axis=1, keepdims=True)
        weight = 1 / (1 + (distance / _USUAL_MM) ** 2)
    return affine


def rigid_affine(
    found: Mapping[str, npt.NDArray[np.float64]],
    there: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> npt.NDArray[np.float64] | None:
    """The rotation and shift that take centroids to others, by least squares.

    Parameters
    ----------
    found : mapping of str to (3,) float array
        See `centroids`.
    there : mapping of str to (3,) float array, optional
        Those of another scan; the template's if it isn't given.

    Returns
    -------
    affine : (4, 4) float array or None
        mm to mm; None with fewer than four structures in common.

    Examples
    --------
    >>> here = {name: np.array(place, float) for name, place in zip("abcd", np.eye(4)[:, :3])}
    >>> there = {name: place[[1, 0, 2]] * (-1, 1, 1) for name, place in here.items()}
    >>> rigid_affine(here, there)[:2].round(6) + 0.0  # a quarter turn
    array([[ 0., -1.,  0.,  0.],
           [ 1.,  0.,  0.,  0.]])
    """
    there = _template_centroids() if there is None else there
    names = [name for name in there if name in found]
    if len(names) < _LEAST_RIGID:
        return None
    start, end = (np.array([places[name] for name in names]) for places in (found, there))
    rotation, _ = Rotation.align_vectors(end - end.mean(axis=0), start - start.mean(axis=0))
    affine = np.eye(4)
    affine[:3, :3] = rotation.as_matrix()
    affine[:3, 3] = end.mean(axis=0) - affine[:3, :3] @ start.mean(axis=0)
    return affine


def misfit(found: dict[str, npt.NDArray[np.float64]], affine: npt.NDArray[np.float64]) -> float:
    """Median distance of aligned centroids from the template's, mm.

    Parameters
    ----------
    found : dict of str to (3,) float array
        See `centroids`.
    affine : (4, 4) float array
        See `template_affine`.

    Examples
    --------
    >>> table = pd.read_table(CENTROIDS, index_col="name")
    >>> found = {name: row.to_numpy() + (0, 3, 4) for name, row in table.iterrows()}
    >>> misfit(found, np.eye(4))
    5.0
    """
    table = _template_centroids()
    moved = [nib.affines.apply_affine(affine, p) - table[n] for n, p in found.items() if n in table]
    return float(np.median(np.linalg.norm(moved, axis=1)))


def _template_centroids() -> dict[str, npt.NDArray[np.float64]]:
    table = pd.read_csv(CENTROIDS, sep="\t").set_index("name")
    return {str(name): row.to_numpy(np.float64) for name, row in table.iterrows()}
