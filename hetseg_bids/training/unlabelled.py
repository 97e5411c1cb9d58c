"""Real scans without labels, which a trained model labels: its maps are what is learned.

Source: paper section 1 (weak labels); "self-training" elsewhere (Yarowsky 1995).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hetseg_bids.errors import DatasetError
from hetseg_bids.files import atomic_path
from hetseg_bids.network.models import Model, file_sha256
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.segmentation.labels import label_values
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.training.paired import find_scans, framed
from hetseg_bids.training.teaching import taught_maps
from hetseg_bids.training.volumes import FRAME, LabelledVolume

log = logging.getLogger(__name__)
_HALF = 127  # the highest level of a probability below 0.5


@dataclass(frozen=True)
class SparseMaps:
    """uint8 maps that are mostly zero: a tenth of the memory.

    Attributes
    ----------
    shape : tuple of int
    places : (N,) int32 tensor
        Where the values lie in the flattened maps.
    values : (N,) uint8 tensor

    Examples
    --------
    >>> maps = torch.zeros(2, 3, dtype=torch.uint8)
    >>> maps[1, 2] = 7
    >>> SparseMaps.of(maps).places, torch.equal(SparseMaps.of(maps).dense(), maps)
    (tensor([5], dtype=torch.int32), True)
    """

    shape: tuple[int, ...]
    places: Tensor
    values: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> SparseMaps:
        """Keep what isn't zero."""
        flat = maps.flatten()
        places = flat.nonzero()[:, 0]
        return cls(tuple(maps.shape), places.to(torch.int32), flat[places])

    def dense(self) -> Tensor:
        """The maps themselves."""
        maps = torch.zeros(self.shape, dtype=torch.uint8)
        maps.view(-1)[self.places] = self.values
        return maps


class UnlabelledSource:
    """Draws real scans with the maps and the labels of a teacher.

    Parameters
    ----------
    folder : Path
        T1w images, skull-stripped or not, in any subfolder; a dseg beside them isn't read.
    teacher : Model
        A label-flip model.
    cache : Path
        Folder where the teacher's maps are kept, because making them takes a minute a scan.
    brain_extraction : str
        See `preprocessing.pipeline.prepare_image`.
    """

    def __init__(
        self, folder: Path, teacher: Model, cache: Path, brain_extraction: str = "auto"
    ) -> None:
        self.folder = folder
        self.scans = find_scans(folder)
        if not self.scans:
            raise DatasetError("no *_T1w.nii.gz or *_T1w.nii there", path=folder)
        self.teacher = teacher
        self.cache = cache
        self.brain_extraction = brain_extraction
        self._checksums = {scan: file_sha256(scan) for scan in self.scans}
        self._known: dict[Path, tuple[LabelledVolume, SparseMaps]] = {}

    def fingerprint(self) -> dict[str, object]:
        """Kind and checksums of all scans and of the teacher, for plan.json."""
        files = {str(s.relative_to(self.folder)): self._checksums[s] for s in self.scans}
        return {
            "kind": "unlabelled scans",
            "files": files,
            "brain_extraction": self.brain_extraction,
            "teacher": self.teacher.plan.weights_sha256,
        }

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """One of the scans; see `volume`."""
        return self.volume(int(rng.integers(len(self.scans))))

    def volume(self, number: int) -> LabelledVolume:
        """A scan by its number in `scans`, with `LabelledVolume.taught`."""
        scan = self.scans[number]
        if scan not in self._known:
            self._known[scan] = self._read(scan)
        volume, maps = self._known[scan]
        return replace(volume, taught=maps.dense())

    def _read(self, scan: Path) -> tuple[LabelledVolume, SparseMaps]:
        """A scan with its labels, and the teacher's maps, which are made where they are missing."""
        facts = [self._checksums[scan], self.teacher.plan.weights_sha256, self.brain_extraction]
        key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
        path = self.cache / f"{key[:32]}.safetensors"
        if not path.exists():
            log.info("the teacher labels %s", scan)
            image, _ = framed(prepare_image(scan, self.brain_extraction))
            maps = SparseMaps.of(taught_maps(self.teacher, image))
            tensors = {"image": image.half(), "places": maps.places, "values": maps.values}
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                save_file(tensors, temporary)
        found = load_file(path)
        label_set = self.teacher.plan.label_set
        shape = (*FRAME, 2 * len(label_set.structures))
        maps = SparseMaps(shape, found["places"], found["values"])
        labels = labels_of(maps.dense(), label_set)
        return LabelledVolume(found["image"].float(), labels), maps


def labels_of(maps: Tensor, label_set: LabelSet) -> Tensor:
    """The most probable structure of each voxel, background where none has a half.

    Parameters
    ----------
    maps : (X, Y, Z, 2 S) uint8 tensor
        See `taught_maps`.
    label_set : LabelSet
        The S structures.

    Returns
    -------
    labels : (X, Y, Z) uint8 tensor
    """
    best = maps[..., : len(label_set.structures)].max(dim=-1)
    return label_values(label_set)[torch.where(best.values > _HALF, best.indices + 1, 0)]
