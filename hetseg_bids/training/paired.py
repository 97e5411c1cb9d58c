"""Real scans as training volumes: the T1w + dseg pairs of a BIDS-derivatives dataset."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hetseg_bids.errors import DatasetError, ImageError
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.network.models import file_sha256
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.preprocessing.pipeline import PreparedImage, prepare_image
from hetseg_bids.structures.label_sets import MAX_ASEG_ID
from hetseg_bids.training.volumes import FRAME, LabelledVolume, centre_in_frame, frame_corner

_EXTENSIONS = (".nii.gz", ".nii")
_FIRST_PARCEL = 1000
# what a dseg may be named besides the entities of its T1w: another run is another image
_OF_LABELS = re.compile(r"(|T1w|(desc|seg|atlas)-[^_]+|space-(T1w|orig|individual))")


@dataclass(frozen=True)
class Pair:
    """A T1w image and its labels (aseg ids)."""

    t1w: Path
    dseg: Path


def find_scans(folder: Path) -> list[Path]:
    """T1w images of a folder and its subfolders, sorted by path."""
    return sorted(p for e in _EXTENSIONS for p in folder.rglob(f"*_T1w{e}"))


def find_pairs(folder: Path) -> list[Pair]:
    """T1w images with a dseg of the same entities beside them, sorted by path.

    The dseg may have ``desc``, ``seg``, ``atlas`` or ``space-T1w`` besides.

    Raises
    ------
    DatasetError
        If there is no pair, or a T1w has more than one dseg.
    """
    pairs = []
    for t1w in find_scans(folder):
        extension = ".nii.gz" if t1w.name.endswith(".nii.gz") else ".nii"
        stem = t1w.name.removesuffix(extension).removesuffix("_T1w").removesuffix("_desc-preproc")
        labels = _labels_beside(t1w, stem)
        if len(labels) > 1:
            names = ", ".join(p.name for p in labels)
            raise DatasetError(f"more than one dseg beside it ({names})", "leave one", path=t1w)
        if labels:
            pairs.append(Pair(t1w, labels[0]))
    if not pairs:
        raise DatasetError(
            "no *_T1w.nii.gz with a *_dseg.nii.gz of the same name beside", path=folder
        )
    return pairs


def _labels_beside(t1w: Path, stem: str) -> list[Path]:
    """Every dseg of the T1w image with these entities."""
    found = []
    for path in sorted(t1w.parent.glob(f"{glob.escape(stem)}_*")):
        middle = path.name.removeprefix(f"{stem}_").split("dseg.nii")[0].split("_")
        is_dseg = path.name.endswith(tuple(f"_dseg{e}" for e in _EXTENSIONS))
        if is_dseg and all(_OF_LABELS.fullmatch(word) for word in middle):
            found.append(path)
    return found


class PairedSource:
    """Draws real labelled scans, each read once.

    Parameters
    ----------
    folder : Path
        BIDS-derivatives dataset; the T1w may be skull-stripped or not.
    brain_extraction : str
        See `preprocessing.pipeline.prepare_image`.
    """

    def __init__(self, folder: Path, brain_extraction: str = "auto") -> None:
        self.pairs = find_pairs(folder)
        self.folder = folder
        self.brain_extraction = brain_extraction
        self._cache: dict[Pair, LabelledVolume] = {}

    def fingerprint(self) -> dict[str, object]:
        """Kind and checksums of all files, for plan.json."""
        files = [p for pair in self.pairs for p in (pair.t1w, pair.dseg)]
        return {
            "kind": "scans",
            "files": {str(p.relative_to(self.folder)): file_sha256(p) for p in files},
            "brain_extraction": self.brain_extraction,
        }

    def volumes(self) -> list[LabelledVolume]:
        """All scans, in a fixed order."""
        return [self._volume(i) for i in range(len(self.pairs))]

    def reject(self, masks: list[Tensor]) -> None:
        """Leave labels out of the loss from now on; one mask per scan, see `LabelledVolume`."""
        for i, mask in enumerate(masks):
            self._cache[self.pairs[i]] = replace(self._volume(i), rejected=mask)

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """One of the scans."""
        return self._volume(int(rng.integers(len(self.pairs))))

    def _volume(self, number: int) -> LabelledVolume:
        pair = self.pairs[number]
        if pair not in self._cache:
            self._cache[pair] = read_pair(pair, self.brain_extraction)
        return self._cache[pair]


def read_pair(pair: Pair, brain_extraction: str) -> LabelledVolume:
    """Prepare a pair on the training frame.

    Raises
    ------
    ImageError
        If the labels aren't on the grid of the T1w, or either can't be used.
    MaskError
        If no brain is found.
    """
    prepared = prepare_image(pair.t1w, brain_extraction)
    labels = conform_labels(pair.dseg, prepared.native, prepared.working)
    image, centre = framed(prepared)
    inside = torch.from_numpy(centre_in_frame(labels.numpy(), centre, FRAME))
    corner = np.eye(4)
    corner[:3, 3] = frame_corner(centre, FRAME)
    return LabelledVolume(image, inside, affine=prepared.working.affine @ corner)


def framed(prepared: PreparedImage) -> tuple[Tensor, npt.NDArray[np.float64]]:
    """The image of a scan on `FRAME`, and the voxel of its working grid that became the middle."""
    places = np.argwhere(prepared.mask.numpy())
    centre = (places.min(axis=0) + places.max(axis=0)) / 2
    image = centre_in_frame(prepared.image.numpy(), centre, FRAME, fill=BACKGROUND)
    return torch.from_numpy(image), centre


def conform_labels(path: Path, native: Grid, working: Grid) -> Tensor:
    """Labels of a scan on its working grid, nearest neighbour.

    Raises
    ------
    ImageError
        If they can't be read, lie on another grid than the T1w, or divide cortex into parcels.
    """
    labels, grid = read_labels(path)
    if not grid.matches(native):
        raise ImageError("not on the grid of its T1w", "resample it first", path=path)
    if labels.max(initial=0) >= _FIRST_PARCEL:
        parcel = labels[labels >= _FIRST_PARCEL].min()
        problem = f"label {parcel} is a parcel (aparc, wmparc), which would count as background"
        raise ImageError(problem, "give the aseg", path=path)
    # beyond 255 lies what is outside the brain
    ids = np.where((labels >= 0) & (labels <= MAX_ASEG_ID), labels, 0).astype(np.uint8)
    return torch.from_numpy(nearest(ids, native, working))
