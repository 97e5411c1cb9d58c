"""Pictures of a scan: slices with structure outlines, the flip map or the brain mask."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hetseg_bids.planes import AXIAL, CORONAL, PLANES, SAGITTAL, Plane, display_slice
from hetseg_bids.reports.window import display_window
from hetseg_bids.segmentation.labels import MAX_FLIP_PROBABILITY
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet

_LEAST_FLIP = 0.03
_FLIP_OPACITY = 217
# colours of the flip map at equal distances, as those of matplotlib's "inferno"
_FLIP_COLORS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
_FLIP_TICKS = 6
_SCALE_PIXELS = (250, 10)
_COLUMNS = 7
_ZOOM_REACH = 28  # mm around the middle of a structure
_PANEL = 176  # pixels across
_LARGE_PANEL = 288
_GREY = 128
_WHITE = 255
_CONTOUR = np.array((255, 176, 0, 255), np.uint8)
_LETTER_AT, _LETTER_PIXELS = (3, 1), 15
_LESION = np.array((255, 255, 255, 255), np.uint8)

Pixels = npt.NDArray[np.uint8]


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
    lesion : (X, Y, Z) bool array or None
        The lesion that was given.
    """

    image: npt.NDArray[np.float32]
    dseg: npt.NDArray[np.uint8]
    flip_probability: npt.NDArray[np.float32] | None
    mask: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    label_set: LabelSet = ASEG
    lesion: npt.NDArray[np.bool_] | None = None

    @cached_property
    def window(self) -> tuple[float, float]:
        """Intensities drawn black and white."""
        return display_window(self.image, self.mask, self.dseg, self.label_set)

    def cropped(self, box: tuple[slice, ...]) -> View:
        """The part inside a box."""
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, :3] @ [part.start for part in box]
        q = None if self.flip_probability is None else self.flip_probability[box]
        lesion = None if self.lesion is None else self.lesion[box]
        cut = (self.image[box], self.dseg[box], q, self.mask[box], affine, self.label_set, lesion)
        return View(*cut)


Layer = Callable[[Plane, int], Pixels]
"""Makes the (rows, columns, 4) RGBA picture that is laid over a slice."""


def draw_glance(view: View) -> Picture:
    """The axial and the coronal slice that show the most structures, with their outlines."""
    layer = _outlines(view)
    panels = [
        _panel(view, plane, _fullest(view.dseg, plane), view.window, layer).in_square(_PANEL)
        for plane in (AXIAL, CORONAL)
    ]
    return Picture("Axial and coronal slice with outlines of the structures", _strip(panels))


def draw_outlines(view: View) -> list[Picture]:
    """The structures' outlines in three planes."""
    return [
        Picture(
            f"{plane.name.capitalize()}: outlines of the structures",
            _mosaic(view, plane, _outlines(view), view.window),
        )
        for plane in PLANES.values()
    ]


def draw_flip(view: View) -> list[Picture]:
    """The flip map in three planes, each titled by its plane."""
    return [
        Picture(plane.name.capitalize(), _mosaic(view, plane, _flip(view), view.window))
        for plane in PLANES.values()
    ]


@cache
def flip_scale() -> FlipScale:
    """The flip map's colours, as they look over mid-grey."""
    width, height = _SCALE_PIXELS
    q = np.broadcast_to(np.linspace(0, MAX_FLIP_PROBABILITY, width), (height, width))
    colors = _laid_over(np.full((height, width), _GREY, np.uint8), _flip_colors(q))
    ticks = tuple(f"{tick:.1f}" for tick in np.linspace(0, MAX_FLIP_PROBABILITY, _FLIP_TICKS))
    return FlipScale(_encode(colors), ticks, f"{_LEAST_FLIP:g}")


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


def draw_mask(view: View, window: tuple[float, float]) -> list[Picture]:
    """The contour of the brain mask on the whole image, in three planes.

    `window` is that of the brain, which costs less to find in its box.
    """
    layer = _mask(view)
    return [
        Picture(f"{plane.name.capitalize()}: brain mask", _mosaic(view, plane, layer, window))
        for plane in PLANES.values()
    ]


def draw_side_by_side(views: Sequence[View], place: Sequence[int]) -> list[Picture]:
    """Slices through one voxel of aligned scans, left to right, without and with outlines.

    Parameters
    ----------
    views : sequence of View
        On one grid.
    place : sequence of 3 int
        The voxel.
    """
    layers = {"T1w": _nothing, "outlines of the structures": _outlines}
    return [
        Picture(
            f"{plane.name.capitalize()}: {title}",
            _strip(
                _panel(view, plane, place[plane.axes[0]], view.window, layer(view)).in_square(
                    _LARGE_PANEL
                )
                for view in views
            ),
        )
        for plane, (title, layer) in product(PLANES.values(), layers.items())
    ]


def _fullest(dseg: npt.NDArray[np.uint8], plane: Plane) -> int:
    """The slice with the most labels; of several, the middle one."""
    slices = np.moveaxis(dseg, plane.axes[0], 0)
    counts = np.array([np.count_nonzero(np.bincount(s.reshape(-1), minlength=256)) for s in slices])
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def _mosaic(view: View, plane: Plane, layer: Layer, window: tuple[float, float]) -> str:
    depth = view.image.shape[plane.axes[0]]
    places = np.linspace(0.15 * depth, 0.85 * depth, _COLUMNS).astype(int)
    rows, columns = display_slice(view.image, plane, 0).shape
    size = (_PANEL, max(1, round(_PANEL * rows / columns)))
    return _strip(_panel(view, plane, int(place), window, layer).resized(size) for place in places)


def _zoom(view: View, middle: npt.NDArray[np.int64], window: tuple[float, float]) -> str:
    layers = [_outlines(view)] if view.flip_probability is None else [_outlines(view), _flip(view)]
    return _strip(
        _panel(view, plane, int(middle[plane.axes[0]]), window, layer).in_square(_PANEL)
        for plane, layer in product(PLANES.values(), layers)
    )


@dataclass(frozen=True)
class _Panel:
    """A slice, (rows, columns), and the (rows, columns, 4) picture over it.

    `side` is the side of the head on the left of the picture, "" where both are one.
    """

    grey: Pixels
    overlay: Pixels
    side: str

    def resized(self, size: tuple[int, int]) -> Pixels:
        """(rows, columns, 3) pixels of a size in columns and rows."""
        grey = Image.fromarray(self.grey).resize(size, Image.Resampling.BICUBIC)
        overlay = Image.fromarray(self.overlay).resize(size, Image.Resampling.NEAREST)
        return _lettered(_laid_over(np.asarray(grey), np.asarray(overlay)), self.side)

    def in_square(self, edge: int) -> Pixels:
        """As large as fits into a black square."""
        rows, columns = self.grey.shape
        width, height = (max(1, round(edge * n / max(rows, columns))) for n in (columns, rows))
        square = np.zeros((edge, edge, 3), np.uint8)
        top, left = (edge - height) // 2, (edge - width) // 2
        square[top : top + height, left : left + width] = self.resized((width, height))
        return square


def _panel(
    view: View, plane: Plane, place: int, window: tuple[float, float], layer: Layer
) -> _Panel:
    low, high = window
    picture = np.asarray(display_slice(view.image, plane, place), np.float32)
    picture = (picture - low) * (_WHITE / (high - low))
    side = "" if plane == SAGITTAL else "R"
    return _Panel(picture.clip(0, _WHITE).astype(np.uint8), layer(plane, place), side)


def _lettered(pixels: Pixels, letter: str) -> Pixels:
    """The same with a letter in the upper left corner."""
    picture = Image.fromarray(pixels)
    # with a dark rim, so that it is seen on white matter, too
    ImageDraw.Draw(picture).text(
        _LETTER_AT, letter, "white", _font(), stroke_width=1, stroke_fill="black"
    )
    return np.asarray(picture)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_LETTER_PIXELS)


def _laid_over(grey: Pixels, overlay: Pixels) -> Pixels:
    """An RGBA picture over a grey one: (rows, columns, 3)."""
    opacity = overlay[..., 3:].astype(np.float32) / _WHITE
    mixed = grey[..., None] + opacity * (overlay[..., :3] - grey[..., None].astype(np.float32))
    return np.rint(mixed).astype(np.uint8)


def _nothing(view: View) -> Layer:
    def layer(plane: Plane, place: int) -> Pixels:
        return np.zeros((*display_slice(view.dseg, plane, place).shape, 4), np.uint8)

    return layer


def _outlines(view: View) -> Layer:
    colors = view.label_set.color_table()

    def layer(plane: Plane, place: int) -> Pixels:
        labels = display_slice(view.dseg, plane, place)
        outlines = colors[np.where(_edges(labels), labels, 0)]
        if view.lesion is not None:
            inside = display_slice(view.lesion, plane, place)
            outlines[_edges(inside) & inside.astype(bool)] = _LESION
        return outlines

    return layer


def _flip(view: View) -> Layer:
    def layer(plane: Plane, place: int) -> Pixels:
        if view.flip_probability is None:
            raise ValueError("the view has no flip map")
        q = display_slice(view.flip_probability, plane, place)
        return _flip_colors(np.asarray(q, np.float32))

    return layer


def _mask(view: View) -> Layer:
    def layer(plane: Plane, place: int) -> Pixels:
        inside = display_slice(view.mask, plane, place)
        return (_edges(inside) & inside.astype(bool))[..., None] * _CONTOUR

    return layer


def _edges(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        for shift in (1, -1):
            edge |= labels != np.roll(labels, shift, axis=axis)
    return edge


def _flip_colors(q: npt.NDArray[np.floating[Any]]) -> Pixels:
    """RGBA of flip probabilities, clear where they are small."""
    steps = np.linspace(0, MAX_FLIP_PROBABILITY, len(_FLIP_COLORS))
    channels = [np.interp(q, steps, channel) for channel in zip(*_FLIP_COLORS, strict=True)]
    opacity = np.where(q < _LEAST_FLIP, 0, _FLIP_OPACITY)
    return np.rint(np.stack([*channels, opacity], axis=-1)).astype(np.uint8)


def _strip(panels: Iterable[Pixels]) -> str:
    return _encode(np.concatenate(list(panels), axis=1))


def _encode(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    # outlines are one pixel wide
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
