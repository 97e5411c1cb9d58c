"""Pictures of a scan: slices with structure outlines, the flip map or the brain mask."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hetseg_bids.planes import PLANES, Plane, display_slice
from hetseg_bids.reports.window import display_window
from hetseg_bids.segmentation.labels import MAX_FLIP_PROBABILITY
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_FLIP = 0.03
_FLIP_STYLE: dict[str, Any] = {
    "cmap": "inferno",
    "clim": (0, MAX_FLIP_PROBABILITY),
    "alpha": 0.85,
}
_PLAIN: dict[str, Any] = {"alpha": None}  # colours as they are
_FLIP_TICKS = 6
_SCALE_PIXELS = (250, 10)
_COLUMNS = 7
_ZOOM_REACH = 28  # mm around the middle of a structure
_INCH = 2.2  # of a panel
_DPI = 80
_CONTOUR = np.array((255, 176, 0, 255), np.uint8)


@dataclass(frozen=True)
class Picture:
    """One mosaic as a data URI with its description."""

    title: str
    uri: str


@dataclass(frozen=True)
class FlipScale:
    """The colour bar of the flip map.

    Attributes
    ----------
    uri : str
        A picture of the colours from the first tick to the last, left to right.
    ticks : tuple of str
        Probabilities at equal distances.
    clear_below : str
        Least probability that is drawn.
    """

    uri: str
    ticks: tuple[str, ...]
    clear_below: str


@dataclass(frozen=True)
class View:
    """The images to draw, on one RAS grid of 1 mm.

    Attributes
    ----------
    image : (X, Y, Z) float array
    dseg : (X, Y, Z) uint8 array
    flip_probability : (X, Y, Z) float array or None
        Largest q over the structures.
    mask : (X, Y, Z) bool array
        Brain.
    affine : (4, 4) float array
        Voxel to mm.
    label_set : LabelSet
        Structures of `dseg`.
    """

    image: npt.NDArray[np.float32]
    dseg: npt.NDArray[np.uint8]
    flip_probability: npt.NDArray[np.float32] | None
    mask: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    label_set: LabelSet = ASEG

    @cached_property
    def window(self) -> tuple[float, float]:
        """Intensities drawn black and white."""
        return display_window(self.image, self.mask, self.dseg, self.label_set)

    def cropped(self, box: tuple[slice, ...]) -> View:
        """The part inside a box."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ [part.start for part in box]
        q = None if self.flip_probability is None else self.flip_probability[box]
        return View(self.image[box], self.dseg[box], q, self.mask[box], affine, self.label_set)


Layer = Callable[[Plane, int], tuple[npt.NDArray[Any], dict[str, Any]]]


def draw_outlines(view: View) -> list[Picture]:
    """The structures' outlines in three planes."""
    return [
        Picture(
            f"{plane.name.capitalize()}: outlines of the structures",
            _mosaic(view, plane, _outlines(view)),
        )
        for plane in PLANES.values()
    ]


def draw_flip(view: View) -> list[Picture]:
    """The flip map in three planes, each titled by its plane."""
    return [
        Picture(plane.name.capitalize(), _mosaic(view, plane, _flip(view)))
        for plane in PLANES.values()
    ]


@cache
def flip_scale() -> FlipScale:
    """The flip map's colours, as they look over mid-grey."""
    figure = _figure(*(n / _DPI for n in _SCALE_PIXELS))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    extent = (0, MAX_FLIP_PROBABILITY, 0, 1)
    axes.imshow([[0.5]], cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")
    q = np.linspace(0, MAX_FLIP_PROBABILITY, _SCALE_PIXELS[0])[None]
    axes.imshow(np.ma.masked_less(q, _LEAST_FLIP), extent=extent, aspect="auto").set(**_FLIP_STYLE)
    ticks = tuple(f"{tick:.1f}" for tick in np.linspace(0, MAX_FLIP_PROBABILITY, _FLIP_TICKS))
    return FlipScale(_encode(figure), ticks, f"{_LEAST_FLIP:g}")


def draw_zooms(view: View, names: Sequence[str]) -> list[Picture]:
    """Outlines and flip map around the middle of some structures, in three planes."""
    titles = {s.name: (s.label, s.title) for s in view.label_set.structures}
    pictures = []
    for name in names:
        label, title = titles[name]
        places = np.argwhere(view.dseg == label)
        if not len(places):
            continue
        near = np.abs(places - places.mean(axis=0)).sum(axis=1)
        middle = places[near.argmin()]  # a voxel of the structure, also where it is curved
        low = np.maximum(middle - _ZOOM_REACH, 0)
        box = tuple(
            slice(int(a), int(b) + 1) for a, b in zip(low, middle + _ZOOM_REACH, strict=True)
        )
        pictures.append(Picture(title, _zoom(view.cropped(box), middle - low, view.window)))
    return pictures


def draw_mask(view: View) -> list[Picture]:
    """The contour of the brain mask on the whole image, in three planes."""
    return [
        Picture(f"{plane.name.capitalize()}: brain mask", _mosaic(view, plane, _mask(view)))
        for plane in PLANES.values()
    ]


def _mosaic(view: View, plane: Plane, layer: Layer) -> str:
    depth = view.image.shape[plane.axes[0]]
    places = np.linspace(0.15 * depth, 0.85 * depth, _COLUMNS).astype(int)
    rows, columns = display_slice(view.image, plane, 0).shape
    figure, panels = _strip(_COLUMNS)
    figure.set_size_inches(_INCH * _COLUMNS, _INCH * rows / columns)
    for axes, place in zip(panels, places, strict=True):
        _panel(axes, view, plane, int(place), view.window, layer)
    return _encode(figure)


def _zoom(view: View, middle: npt.NDArray[np.int64], window: tuple[float, float]) -> str:
    layers = [_outlines(view)] if view.flip_probability is None else [_outlines(view), _flip(view)]
    count = len(PLANES) * len(layers)
    figure, panels = _strip(count)
    for axes, (plane, layer) in zip(panels, product(PLANES.values(), layers), strict=True):
        _panel(axes, view, plane, int(middle[plane.axes[0]]), window, layer)
    return _encode(figure)


def _panel(
    axes: Axes, view: View, plane: Plane, place: int, window: tuple[float, float], layer: Layer
) -> None:
    picture = display_slice(view.image, plane, place)
    overlay, style = layer(plane, place)
    rows, columns = picture.shape
    edges = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    for drawn, data, how in zip(
        axes.images, (picture, overlay), ({"clim": window}, style), strict=True
    ):
        if tuple(drawn.get_extent()) != edges:
            drawn.set_extent(edges)
        drawn.set(data=data, **how)


def _outlines(view: View) -> Layer:
    colors = view.label_set.color_table()

    def layer(plane: Plane, place: int) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        labels = display_slice(view.dseg, plane, place)
        return colors[np.where(_edges(labels), labels, 0)], _PLAIN

    return layer


def _flip(view: View) -> Layer:
    def layer(plane: Plane, place: int) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        if view.flip_probability is None:
            raise ValueError("the view has no flip map")
        q = display_slice(view.flip_probability, plane, place)
        return np.ma.masked_less(q, _LEAST_FLIP), _FLIP_STYLE

    return layer


def _mask(view: View) -> Layer:
    def layer(plane: Plane, place: int) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        inside = display_slice(view.mask, plane, place)
        return (_edges(inside) & inside.astype(bool))[..., None] * _CONTOUR, _PLAIN

    return layer


def _edges(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for shift in (1, -1):
            edge |= labels != np.roll(labels, shift, axis=axis)
    return edge


@cache
def _strip(columns: int) -> tuple[Figure, tuple[Axes, ...]]:
    """A figure with panels side by side, each of a picture and its overlay.

    Kept, and given other pictures, because making the axes of a page takes longer than drawing.
    """
    figure = _figure(_INCH * columns, _INCH)
    panels = tuple(figure.add_axes((i / columns, 0, 1 / columns, 1)) for i in range(columns))
    for axes in panels:
        axes.axis("off")
        axes.imshow([[0.0]], cmap="gray")
        axes.imshow([[0.0]], interpolation="nearest")
    return figure, panels


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="black", dpi=_DPI)
    FigureCanvasAgg(figure)
    return figure


def _encode(figure: Figure) -> str:
    buffer = io.BytesIO()
    quality = {"quality": 88, "subsampling": 0}  # outlines are one pixel wide
    figure.savefig(buffer, format="jpeg", facecolor="black", pil_kwargs=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
