"""Pictures of a scan: slices with structure outlines or with the flip map."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hetseg_bids.planes import PLANES, Plane, display_slice
from hetseg_bids.structures import color_table

_COLUMNS = 7


@dataclass(frozen=True)
class Picture:
    """One mosaic as a data URI with its description."""

    title: str
    uri: str


@dataclass(frozen=True)
class View:
    """What is drawn, on one RAS grid and cropped to the brain.

    Attributes
    ----------
    image : (X, Y, Z) float array
    dseg : (X, Y, Z) uint8 array
    flip : (X, Y, Z) float array or None
        Largest q over the structures.
    """

    image: npt.NDArray[np.float32]
    dseg: npt.NDArray[np.uint8]
    flip: npt.NDArray[np.float32] | None


def draw_mosaics(view: View) -> list[Picture]:
    """Outlines in three planes, then the flip map in three planes."""
    pictures = []
    for plane in PLANES.values():
        title = f"{plane.name.capitalize()}: outlines of the structures"
        pictures.append(Picture(title, _mosaic(view, plane, flip=False)))
    if view.flip is not None:
        for plane in PLANES.values():
            title = f"{plane.name.capitalize()}: probability that the label is wrong (0-0.5)"
            pictures.append(Picture(title, _mosaic(view, plane, flip=True)))
    return pictures


def _mosaic(view: View, plane: Plane, *, flip: bool) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    depth = view.image.shape[plane.axes[0]]
    places = np.linspace(0.15 * depth, 0.85 * depth, _COLUMNS).astype(int)
    rows, columns = display_slice(view.image, plane, 0).shape
    height = 2.2 * rows / columns
    figure = Figure(figsize=(2.2 * _COLUMNS, height), facecolor="black", dpi=80)
    FigureCanvasAgg(figure)
    low, high = np.percentile(view.image, (2, 99.5))
    for i, place in enumerate(places):
        axes = figure.add_axes((i / _COLUMNS, 0, 1 / _COLUMNS, 1))
        axes.axis("off")
        axes.imshow(display_slice(view.image, plane, place), cmap="gray", vmin=low, vmax=high)
        if flip and view.flip is not None:
            q = display_slice(view.flip, plane, place)
            axes.imshow(np.ma.masked_less(q, 0.03), cmap="inferno", vmin=0, vmax=0.5, alpha=0.85)
        else:
            axes.imshow(_outlines(display_slice(view.dseg, plane, place)))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="black", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _outlines(labels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for shift in (1, -1):
            edge |= labels != np.roll(labels, shift, axis=axis)
    return color_table()[np.where(edge, labels, 0)]
