"""Learning curves (the paper's Fig. 3) and label-flip overlays (its Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hetseg_bids.files import atomic_path
from hetseg_bids.planes import PLANES, display_slice
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.label_sets import LabelSet, both_sides

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# readable without colour alone: Okabe & Ito's palette and a line style each
_STYLES = (
    ("#0072B2", "-"),
    ("#D55E00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#E69F00", (0, (5, 1))),
    ("#56B4E9", (0, (1, 1))),
)
ALL = "All structures"
SHOWN = (ALL, "Cerebral cortex", "Putamen", "Hippocampus", "Accumbens", "Third ventricle")
_LEAST_FLIP = 0.03


def learning_curves(
    curves: Mapping[str, Sequence[pd.DataFrame]], shown: Sequence[str] = SHOWN
) -> Figure:
    """Validation Dice against samples seen, one line per system.

    Parameters
    ----------
    curves : mapping of str to sequence of DataFrame
        System to the ``validation.tsv`` of each of its runs.  The line is the mean of the
        runs, the band their range.
    shown : sequence of str
        A panel each: structures, both sides together, or `ALL`.
    """
    columns = -(-len(shown) // 2)
    figure = _figure((11 / 3 * columns, 6.5))
    for place, title in enumerate(shown, start=1):
        axes = figure.add_subplot(2, columns, place)
        for (system, runs), (colour, line) in zip(curves.items(), _endless(), strict=False):
            lines = pd.concat([_curve(run, title) for run in runs], axis=1)
            means = lines.mean(axis=1)
            axes.plot(means.index, means, color=colour, linestyle=line, label=system)
            if lines.shape[1] > 1:
                axes.fill_between(
                    means.index, lines.min(axis=1), lines.max(axis=1), color=colour, alpha=0.15
                )
        axes.set(title=title, xlabel="samples seen", ylabel="Dice, validation scans")
        axes.grid(alpha=0.3)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="lower center", ncols=len(curves)
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    return figure


def _endless() -> list[tuple[str, Any]]:
    return list(_STYLES) * 4


def _curve(run: pd.DataFrame, title: str) -> pd.Series:
    named = run["name"].map(both_sides)
    return run[(named == title) | (title == ALL)].groupby("samples")["dice"].mean()


@dataclass(frozen=True)
class Overlay:
    """One scan and one system's result, all on one grid in RAS order.

    Attributes
    ----------
    title : str
    image : (X, Y, Z) float array
    segmentation, reference : (X, Y, Z) uint8 array
        `Structure.label` values.
    flip_probability : (X, Y, Z) float array
        Largest q over the structures.
    label_set : LabelSet
    """

    title: str
    image: npt.NDArray[np.floating]
    segmentation: npt.NDArray[np.uint8]
    reference: npt.NDArray[np.uint8]
    flip_probability: npt.NDArray[np.floating]
    label_set: LabelSet = ASEG


def flip_overlay(overlay: Overlay) -> Figure:
    """Labels, flip probability and true errors, per plane in the slice with most errors."""
    wrong = overlay.segmentation != overlay.reference
    figure = _figure((9.6, 9.6), "black")
    low, high = np.percentile(overlay.image[overlay.image > 0], (1, 99.5))
    titles = ("labels", "flip probability (0-0.5)", "disagrees with the reference")
    for row, plane in enumerate(PLANES.values()):
        others = tuple(a for a in range(3) if a != plane.axes[0])
        place = int(wrong.sum(axis=others).argmax())
        layers: tuple[Any, ...] = (
            overlay.label_set.color_table()[display_slice(overlay.segmentation, plane, place)],
            np.ma.masked_less(display_slice(overlay.flip_probability, plane, place), _LEAST_FLIP),
            np.ma.masked_equal(0.5 * display_slice(wrong, plane, place).astype(float), 0),
        )
        for column, (layer, title) in enumerate(zip(layers, titles, strict=True)):
            axes = figure.add_axes((column / 3, (2 - row) * 0.31, 1 / 3, 0.31))
            axes.axis("off")
            axes.imshow(
                display_slice(overlay.image, plane, place), cmap="gray", vmin=low, vmax=high
            )
            axes.imshow(layer, cmap="inferno", vmin=0, vmax=0.5, alpha=0.6 if column == 0 else 0.9)
            if row == 0:
                axes.set_title(title, color="white", fontsize=10)
    figure.suptitle(overlay.title, color="white", fontsize=11)
    return figure


def save_figure(figure: Figure, stem: Path, kinds: Sequence[str] = ("png", "svg")) -> None:
    """Write STEM.png and STEM.svg; equal figures give equal files."""
    import matplotlib as mpl

    for kind in kinds:
        metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"Date": None}
        target = stem.with_name(f"{stem.name}.{kind}")
        with atomic_path(target) as temporary, mpl.rc_context({"svg.hashsalt": "hetseg"}):
            figure.savefig(
                temporary, format=kind, dpi=110, metadata=metadata, facecolor=figure.get_facecolor()
            )


def _figure(size: tuple[float, float], background: str = "white") -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor=background)
    FigureCanvasAgg(figure)
    return figure
