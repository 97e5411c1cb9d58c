"""The volumes and the code of the page's interactive viewer (NiiVue)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from zlib_ng import gzip_ng

from hetseg_bids.reports.mosaics import View
from hetseg_bids.segmentation.labels import MAX_FLIP_PROBABILITY
from hetseg_bids.structures.label_sets import MAX_ASEG_ID, Structure

_LEVELS = 255
_FLIP_STEPS = 32
_LIBRARY = "niivue.umd.js.gz"


@dataclass(frozen=True)
class ViewerData:
    """Files that are embedded in the page, all as base64.

    Attributes
    ----------
    library : str
        Gzipped JavaScript of NiiVue.
    t1w, dseg : str
        NIfTI images of uint8; dseg counts the structures from 1.
    flip_probability : str or None
        NIfTI image of uint8, 255 for 0.5.
    colors : dict
        NiiVue's label table.
    """

    library: str
    t1w: str
    dseg: str
    flip_probability: str | None
    colors: dict[str, list[Any]]


def viewer_data(view: View) -> ViewerData:
    """Pack a view for the page."""
    low, high = view.window
    t1w = (view.image - low) * (_LEVELS / (high - low))
    structures = view.label_set.structures
    counted = np.zeros(MAX_ASEG_ID + 1, np.uint8)
    for number, structure in enumerate(structures, start=1):
        counted[structure.label] = number
    q = view.flip_probability
    library = resources.files("hetseg_bids.reports").joinpath("vendor", _LIBRARY).read_bytes()
    return ViewerData(
        library=_text(library),
        t1w=_nifti(t1w, view.affine),
        dseg=_nifti(counted[view.dseg], view.affine),
        flip_probability=None if q is None else _nifti(_coarse(q), view.affine),
        colors=_label_table(structures),
    )


def _coarse(flip_probability: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """In 32 steps, 0-255 for 0-0.5: finer ones can't be seen and fill the page."""
    return np.rint(flip_probability * (_FLIP_STEPS / MAX_FLIP_PROBABILITY)) * np.float32(
        _LEVELS / _FLIP_STEPS
    )


def _label_table(structures: Sequence[Structure]) -> dict[str, list[Any]]:
    colors = [(0, 0, 0), *(s.color for s in structures)]
    red, green, blue = (list(channel) for channel in zip(*colors, strict=True))
    return {
        "R": red,
        "G": green,
        "B": blue,
        "A": [0] + [255] * len(structures),
        "I": list(range(len(colors))),
        "labels": ["", *(s.title for s in structures)],
    }


def _nifti(values: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> str:
    data = np.rint(values).clip(0, _LEVELS).astype(np.uint8)
    image = nib.Nifti1Image(data, affine)
    return _text(gzip_ng.compress(image.to_bytes(), 6, mtime=0))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
