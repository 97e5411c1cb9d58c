"""Labels that lie where no brain of the atlas has them: their flip probability rises.

A network labels the fluid of a cyst as ventricle with certainty, because both are equally dark.  An
atlas (`structures.atlas`) shows that no ventricle lies there; the scan is aligned with it by the
centroids of its own structures.  Labels don't change; q rises to 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.lesions import Lesion
from hetseg_bids.segmentation.coarse import STRIDE, CoarseLook
from hetseg_bids.segmentation.inference import Logits
from hetseg_bids.segmentation.islands import most_probable
from hetseg_bids.structures.alignment import (
    MOST_MISFIT_MM,
    misfit,
    rigid_affine,
    template_affine,
)
from hetseg_bids.structures.atlas import VENTRICLE, Atlas, load_atlas, to_cells
from hetseg_bids.structures.label_sets import bare_name, partner_of

# in no map do more than 2.6 ml of a structure lie 3 mm outside the place in the 19 others, or more
# than 0.8 ml 6 mm outside (benchmarks/atlas.py)
_FREE_MM, _SURE_MM = 3.0, 5.0
_SUREST = 0.98
_SMALLEST = 1.5  # times the smallest ventricle of the maps: so that some maps have one as small
_OVERSIZE = 1.5  # times the largest of the maps
_WHOLE = 0.9  # mean share of a cell: 0.94 where all of it is the structure in all maps
_LEAST_ML = 0.1
_FURTHER = 2 * STRIDE  # voxels around what the first look found
_MM3_PER_ML = 1000.0
_EVEN = 0.5

Values = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Finding:
    """How much of a structure is implausible.

    Attributes
    ----------
    structure : str
    misplaced_ml : float
        Labelled as the structure more than 4 mm beyond where any brain of the atlas has it.
    missing_ml : float
        Not labelled as the structure where every brain of the atlas has it.
    times_largest : float
        Volume of the rest relative to the atlas's largest, both as a share of all structures; 0
        where it is no more than 1.5 times as large.
    surplus_ml : float
        Expected volume of wrong labels beyond what q can express, which is 0.5 at most.
    """

    structure: str
    misplaced_ml: float = 0.0
    missing_ml: float = 0.0
    times_largest: float = 0.0
    surplus_ml: float = 0.0


@dataclass(frozen=True)
class Plausibility:
    """How a segmentation compares with the atlas.

    Attributes
    ----------
    atlas : str or None
        Version of the atlas; None where the model's structures have none or too few were found.
    misfit_mm : float
        Median distance of the structures' centroids from the template's; NaN without an atlas.
        Above 10 mm nothing else is compared.
    findings : tuple of Finding
        Structures of which at least 0.1 ml is implausible.
    """

    atlas: str | None = None
    misfit_mm: float = float("nan")
    findings: tuple[Finding, ...] = ()

    @property
    def surplus_mm3(self) -> dict[str, float]:
        """`Finding.surplus_ml` by structure, mm3."""
        return {f.structure: f.surplus_ml * _MM3_PER_ML for f in self.findings}

    @property
    def fits(self) -> bool:
        """Whether the structures have the places of a brain; True if nothing is known."""
        return not self.misfit_mm > MOST_MISFIT_MM

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Plausibility:
        """From a sidecar; empty where it has no such entry.

        Raises
        ------
        ValueError
            If its entry has another form.

        Examples
        --------
        >>> found = Plausibility("1", 2.0, (Finding("left_putamen", misplaced_ml=1.5),))
        >>> Plausibility.of_record({"HetsegPlausibility": found.for_record()}) == found
        True
        """
        found = record.get("HetsegPlausibility") or {}
        try:
            findings = tuple(
                Finding(str(f["structure"]), *(float(f[name]) for name in _NUMBERS))
                for f in found.get("findings", ())
            )
            spread = found.get("misfit_mm")
            return cls(
                found.get("atlas"), float("nan") if spread is None else float(spread), findings
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(f"HetsegPlausibility {found!r:.80}: not understood") from None

    def for_record(self) -> dict[str, Any]:
        """As JSON values for a sidecar.

        Examples
        --------
        >>> Plausibility("1", 2.345, (Finding("left_putamen", misplaced_ml=1.5),)).for_record()
        {'atlas': '1', 'misfit_mm': 2.35, 'findings': [{'structure': 'left_putamen',
         'misplaced_ml': 1.5, 'missing_ml': 0.0, 'times_largest': 0.0, 'surplus_ml': 0.0}]}
        """
        return {
            "atlas": self.atlas,
            "misfit_mm": None if np.isnan(self.misfit_mm) else round(self.misfit_mm, 2),
            "findings": [
                {k: round(v, 3) if isinstance(v, float) else v for k, v in asdict(f).items()}
                for f in self.findings
            ],
        }


_NUMBERS = ("misplaced_ml", "missing_ml", "times_largest", "surplus_ml")


@dataclass(frozen=True)
class _Scan:
    """Logits laid on the atlas; `cells` takes voxels of the logits' box to cells.

    `unknown` are voxels of the box in a lesion that was given: nothing is said of them.
    """

    logits: Logits
    atlas: Atlas
    cells: npt.NDArray[np.float64]
    coarse: npt.NDArray[np.uint8]
    voxel_ml: float
    unknown: npt.NDArray[np.bool_]

    def wrong(self, beyond: Values, places: npt.NDArray[np.integer]) -> Values:
        """Probability that a label is wrong, by its distance beyond the atlas's."""
        distance = self.at(beyond, places)
        share = (distance - _FREE_MM) / (_SURE_MM - _FREE_MM)
        return np.asarray(share.clip(0, _SUREST), np.float32)

    def at(self, field: Values, places: npt.NDArray[np.integer]) -> Values:
        """A field of the atlas at voxels of the box, (N, 3)."""
        cells = nib.affines.apply_affine(self.cells, places).T
        return ndimage.map_coordinates(field, cells, np.float32, order=1, mode="nearest")


def doubt_implausible_(logits: Logits, grid: Grid, lesion: Lesion | None = None) -> Plausibility:
    """Raise the flip probability where labels lie as in no brain, and say where they do.

    Parameters
    ----------
    logits : Logits
        Its second output changes, and no label. Nothing does without a second output, or with
        structures that the atlas doesn't have.
    grid : Grid
        The grid of which they have a box.
    lesion : Lesion, optional
        Given by the user: what is labelled there, or missing, is no finding.

    Returns
    -------
    plausibility : Plausibility
    """
    atlas = load_atlas()
    logits = logits.of_structures()
    if logits.label_set != atlas.label_set:
        return Plausibility()
    box = grid.part(logits.box)
    unknown = np.zeros(box.shape, bool) if lesion is None else lesion.on(box)
    look = CoarseLook.of(logits, grid, unknown)
    found = look.centroids()
    affine = template_affine(found)
    if affine is None:
        return Plausibility()
    # a reflection: what is left and right in the image isn't in the brain
    rigid = rigid_affine(found) if np.linalg.det(affine[:3, :3]) < 0 else None
    spread = misfit(found, affine if rigid is None else rigid)
    if spread > MOST_MISFIT_MM:
        return Plausibility(atlas.version, spread)
    cells, voxel_ml = to_cells() @ affine @ box.affine, grid.voxel_volume / _MM3_PER_ML
    scan = _Scan(logits, atlas, cells, look.winner, voxel_ml, unknown)
    findings = _misplaced_(scan) + _missing_(scan, grid)
    return Plausibility(atlas.version, spread, _merged(findings))


def _misplaced_(scan: _Scan) -> list[Finding]:
    """Structures beyond their place, or too large for any; raises their flip probability."""
    names = scan.atlas.label_set.names
    counts = np.bincount(scan.coarse.reshape(-1), minlength=len(names) + 1)[1:].astype(float)
    sizes = dict(zip(names, counts / max(1.0, counts.sum()), strict=True))
    boxes = ndimage.find_objects(scan.coarse, max_label=len(names))
    findings = []
    for i, name in enumerate(names):
        if boxes[i] is None:
            continue
        beyond = _beyond(scan, i, sizes)
        start = np.array([part.start for part in boxes[i]])
        places = (np.argwhere(scan.coarse[boxes[i]] == i + 1) + start) * STRIDE
        far = scan.wrong(beyond, places) > _EVEN
        misplaced = float(np.count_nonzero(far) * STRIDE**3 * scan.voxel_ml)
        rest = sizes[name] * (1 - far.mean())
        times = float(rest / scan.atlas.size_range[i, 1])
        oversized = times > _OVERSIZE
        if oversized or misplaced > _LEAST_ML:
            within = _around(places if oversized else places[far], scan.logits)
            excess = 1 - 1 / times if oversized else 0.0
            surplus = _doubt_(scan, i, within, beyond, excess)
            findings.append(Finding(name, misplaced, 0.0, times if oversized else 0.0, surplus))
    return findings


def _beyond(scan: _Scan, number: int, sizes: Mapping[str, float]) -> Values:
    """Distance beyond a structure's place; a ventricle's depends on the ventricles' size.

    A lesion enlarges one of them, so the smaller one tells how far they may reach in this brain.
    """
    names, atlas = scan.atlas.label_set.names, scan.atlas
    if bare_name(names[number]) != VENTRICLE:
        return atlas.beyond_mm[number]
    partner = names.index(partner_of(names[number]))
    smaller = min(sizes[names[number]], sizes[names[partner]])
    size = max(smaller, _SMALLEST * atlas.size_range[number, 0])
    other = np.zeros(atlas.needs.shape, bool)
    places = STRIDE * np.argwhere(scan.coarse == partner + 1)
    cells = np.rint(nib.affines.apply_affine(scan.cells, places)).astype(int)
    other[tuple(cells[((cells >= 0) & (cells < other.shape)).all(axis=1)].T)] = True
    return atlas.ventricle_beyond_mm(names[number], size, other)


def _doubt_(scan: _Scan, number: int, box: Box, beyond: Values, excess: float) -> float:
    """Raise q of a structure in a box, and of those that belong there; returns the surplus, ml."""
    label = scan.logits.label[(slice(None), *box)]
    places = np.argwhere((label[number] > 0).cpu().numpy() & ~scan.unknown[box])
    wrong = np.maximum(scan.wrong(beyond, places + [part.start for part in box]), excess)
    places, wrong = places[wrong > 0], wrong[wrong > 0]
    where = tuple(torch.from_numpy(axis) for axis in places.T)
    labelled = most_probable(label.permute(1, 2, 3, 0)[where].T).cpu().numpy() == number + 1
    surplus = float((wrong[labelled] - _EVEN).clip(min=0).sum()) * scan.voxel_ml
    _raise_(scan.logits, number, box, places, wrong)
    for other, share in enumerate(scan.atlas.share):
        if other != number:
            expected = wrong * scan.at(share, places + [part.start for part in box])
            no = (label[other][where] <= 0).cpu().numpy() & (expected > 0)
            _raise_(scan.logits, other, box, places[no], expected[no])
    return surplus


def _raise_(
    logits: Logits, number: int, box: Box, places: npt.NDArray[np.integer], wrong: Values
) -> None:
    """Make q of a structure at voxels of a box no smaller than a probability, or 0.5."""
    if logits.second_output is None or logits.system is None or not len(places):
        return
    where = tuple(torch.from_numpy(p + s.start) for p, s in zip(places.T, box, strict=True))
    label, second_output = logits.label[number], logits.second_output[number]
    least = torch.from_numpy(wrong).clamp_max(_EVEN).to(label.device)
    system = logits.system.of_rows(slice(number, number + 1))
    second_output[where] = system.raised(label[where], second_output[where], least)


def _missing_(scan: _Scan, grid: Grid) -> list[Finding]:
    """Structures that aren't where all brains of the atlas have them; expects them there."""
    findings = []
    to_voxels = np.linalg.inv(scan.cells)
    low = -np.array([part.start for part in scan.logits.box])
    unknown = scan.unknown[::STRIDE, ::STRIDE, ::STRIDE]
    cell_ml = scan.voxel_ml / abs(np.linalg.det(scan.cells[:3, :3]))
    for i, share in enumerate(scan.atlas.share):
        if bare_name(scan.atlas.label_set.names[i]) == VENTRICLE:
            continue  # may be as narrow as it likes
        core = np.argwhere(share >= _WHOLE)
        if not len(core):
            continue
        voxels = np.rint(nib.affines.apply_affine(to_voxels, core)).astype(int)
        seen = ((voxels >= low) & (voxels < low + grid.shape)).all(axis=1)
        coarse = voxels // STRIDE
        inside = ((coarse >= 0) & (coarse < scan.coarse.shape)).all(axis=1)
        there = np.zeros(len(core), bool)
        nearby = tuple(coarse[inside].T)
        there[inside] = (scan.coarse[nearby] == i + 1) | unknown[nearby]
        gone = _clustered(core, seen & ~there, share.shape)
        missing = float(np.count_nonzero(gone) * cell_ml)
        if missing > _LEAST_ML:
            _expect_(scan, i, core[gone], voxels[gone & inside])
            findings.append(Finding(scan.atlas.label_set.names[i], missing_ml=missing))
    return findings


def _clustered(
    cells: npt.NDArray[np.integer], chosen: npt.NDArray[np.bool_], shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Those of the chosen cells that lie in blocks of 2 x 2 x 2 of them, not along a border."""
    field = np.zeros(shape, bool)
    field[tuple(cells[chosen].T)] = True
    field = ndimage.binary_opening(field, np.ones((2, 2, 2), bool))
    return np.asarray(field[tuple(cells.T)])


def _expect_(
    scan: _Scan, number: int, cells: npt.NDArray[np.integer], voxels: npt.NDArray[np.integer]
) -> None:
    """Raise q of a structure that is missing in cells, the nearest voxels of which are given."""
    if not len(voxels):
        return
    field = np.zeros(scan.atlas.share.shape[1:], np.float32)
    field[tuple(cells.T)] = 1
    box = _around(voxels, scan.logits)
    absent = (scan.logits.label[(number, *box)] <= 0).cpu().numpy()
    places = np.argwhere(absent & ~scan.unknown[box])
    expected = scan.at(field, places + [part.start for part in box])
    _raise_(scan.logits, number, box, places[expected > 0], _EVEN * expected[expected > 0])


def _around(voxels: npt.NDArray[np.integer], logits: Logits) -> Box:
    """A box around voxels, with some to spare."""
    low = (voxels.min(axis=0) - _FURTHER).clip(min=0)
    high = np.minimum(voxels.max(axis=0) + _FURTHER + 1, logits.label.shape[1:])
    a, b, c = (slice(int(p), int(q)) for p, q in zip(low, high, strict=True))
    return a, b, c


def _merged(findings: list[Finding]) -> tuple[Finding, ...]:
    """One finding per structure, from those of both kinds."""
    merged: dict[str, Finding] = {}
    for new in findings:
        old = merged.get(new.structure, Finding(new.structure))
        numbers = (getattr(old, name) + getattr(new, name) for name in _NUMBERS)
        merged[new.structure] = Finding(new.structure, *numbers)
    return tuple(merged.values())
