"""The page of one scan, made from its derivatives alone, so that it can be written again.

A run that has just made them hands over the arrays, which saves reading them; the page is the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import ndimage

from hetseg_bids.dataset.names import T1W, UNIT1
from hetseg_bids.files import read_json, write_text
from hetseg_bids.images import Grid, read_labels, read_largest
from hetseg_bids.outputs.derivatives import OutputPaths
from hetseg_bids.outputs.finished import read_morph, split_wholes
from hetseg_bids.preprocessing.conform import nearest, resample, working_grid
from hetseg_bids.preprocessing.headers import read_t1w
from hetseg_bids.preprocessing.lesions import read_lesion
from hetseg_bids.preprocessing.mp2rage import is_unit1
from hetseg_bids.preprocessing.pipeline import PreparedImage
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.quality.verdict import Verdict, asymmetry, judge
from hetseg_bids.quality.whole import of_structures
from hetseg_bids.reports.methods import methods_text
from hetseg_bids.reports.mosaics import (
    View,
    draw_flip,
    draw_glance,
    draw_mask,
    draw_outlines,
    draw_zooms,
    flip_scale,
)
from hetseg_bids.reports.quality import quality_rows
from hetseg_bids.reports.templating import css_color, environment
from hetseg_bids.reports.viewer import viewer_data
from hetseg_bids.reports.whole_head import IntracranialVolume
from hetseg_bids.segmentation.labels import LEVELS, Segmentation
from hetseg_bids.segmentation.lesioned import GivenLesion
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.segmentation.wholes import title_of
from hetseg_bids.structures.label_sets import LabelSet
from hetseg_bids.structures.label_tables import read_label_table

_LEAST_CERTAIN = 4
_AT_A_GLANCE = 3  # of these
_MARGIN = 5  # voxels around the brain
_MM3_PER_ML = 1000.0
_REPEAT_SD = "volume_repeat_sd_mm3"  # tables made before it was measured don't have it
_LESION = "lesion_share"


@dataclass(frozen=True)
class Shown:
    """The images of a result, as its files hold them.

    Attributes
    ----------
    grid : Grid
    dseg, mask : (X, Y, Z) uint8 array
    flip_probability : (X, Y, Z) float32 array or None
        Largest q over the structures.
    image : (X, Y, Z) float32 array or None
        The scan on the `working_grid` of `grid`; None where its file has to be read.
    """

    grid: Grid
    dseg: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    flip_probability: npt.NDArray[np.float32] | None
    image: npt.NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, result: Segmentation, mask: npt.NDArray[np.uint8], prepared: PreparedImage
    ) -> Shown:
        """Those of a result in memory; `mask` lies on its grid."""
        q, maps = None, result.flip_probability
        if maps is not None:
            values = (np.arange(LEVELS + 1) * maps.slope).astype(np.float32)  # as files hold them
            q = values[result.full(maps.levels.max(axis=0))]
        there = prepared.working.matches(working_grid(result.grid))
        image = prepared.shown.numpy() if prepared.shown is not None and there else None
        return cls(result.grid, np.asarray(result.full(result.dseg), np.uint8), mask, q, image)

    @classmethod
    def read(cls, paths: OutputPaths) -> Shown:
        """Those of files."""
        labels, grid = read_labels(paths.dseg)
        mask, _ = read_labels(paths.mask)
        flips = paths.flip_probability
        q = read_largest(flips) if flips.exists() else None
        return cls(grid, labels.astype(np.uint8), mask.astype(np.uint8), q)


def write_report(
    paths: OutputPaths,
    source: Path,
    run: dict[str, str] | None = None,
    shown: Shown | None = None,
    lesion_path: Path | None = None,
) -> Path:
    """Write a scan's page from its image and derivatives.

    Parameters
    ----------
    paths : OutputPaths
    source : Path
        The T1w or UNIT1 image.
    run : dict of str, optional
        Facts about the run that made the results, for the page's end.
    shown : Shown, optional
        The derivatives' images, where they are in memory.
    lesion_path : Path, optional
        The lesion mask that was given, for its contour.

    Returns
    -------
    page : Path
    """
    record = read_json(paths.record)
    label_set = read_label_table(paths.labels)
    table, wholes = split_wholes(read_morph(paths.morph), label_set)
    shown = shown or Shown.read(paths)
    head = _view(shown, source, label_set, lesion_path)
    brain = _brain(head, shown)
    whole = of_structures(table)
    worst = _least_certain(whole[whole["name"].isin(label_set.names)])
    page = environment().get_template("participant.html.jinja")
    write_text(
        paths.report,
        page.render(
            title=paths.report.stem,
            verdict=_verdict(record, table),
            lesion=GivenLesion.of_record(record),
            glance=_glance(whole, table, label_set, worst),
            quality=quality_rows(ImageQuality.of_record(record)),
            legend=_legend(label_set),
            heads=_heads(table),
            rows=_rows(table, label_set),
            wholes=_whole_rows(wholes, _REPEAT_SD in table, _lesioned(table)),
            intracranial=IntracranialVolume.of(wholes, record),
            methods=methods_text(record, len(label_set.structures)),
            source_sha256=record["HetsegSourceSHA256"],
            model_sha256=record["HetsegModelSHA256"],
            provenance=_provenance(record),
            run=run or {},
            **_pictures(brain, head, worst),
        ),
    )
    return paths.report


def _pictures(brain: View, head: View, worst: list[str]) -> dict[str, Any]:
    """What is drawn, by its name in the template."""
    return {
        "picture": draw_glance(brain),
        "outlines": draw_outlines(brain),
        "flips": [] if brain.flip_probability is None else draw_flip(brain),
        "scale": flip_scale(),
        "zooms": draw_zooms(brain, worst),
        "mask_pictures": draw_mask(head, brain.window),
        "viewer": viewer_data(brain),
    }


def _verdict(record: dict[str, Any], table: pd.DataFrame) -> Verdict:
    image, lesion = ImageQuality.of_record(record), GivenLesion.of_record(record)
    found = Plausibility.of_record(record)
    return judge(table, record["HetsegWarnings"], image, found, lesion=lesion)


def _least_certain(table: pd.DataFrame) -> list[str]:
    """Structures that are there; the verdict names those that aren't."""
    found = table[table["volume_mm3"].astype(float) > 0]
    dice = found.assign(expected_dice=found["expected_dice"].astype(float))
    return list(dice.nsmallest(_LEAST_CERTAIN, "expected_dice")["name"])


@dataclass(frozen=True)
class Glance:
    """The numbers beside the verdict, as text.

    Attributes
    ----------
    volume_ml : str
        Of all structures together.
    dice : str or None
        Mean expected Dice; None without a flip map.
    worst : list of (str, str, str)
        Title, expected Dice and mean flip probability of the least certain structures.
    """

    volume_ml: str
    dice: str | None
    worst: list[tuple[str, str, str]]


def _glance(
    whole: pd.DataFrame, table: pd.DataFrame, label_set: LabelSet, worst: list[str]
) -> Glance:
    mean = whole["expected_dice"].astype(float).mean()
    facts = table.set_index("name")[["expected_dice", "mean_flip_probability"]].astype(float)
    titles = {s.name: s.title for s in label_set.structures}
    return Glance(
        volume_ml=f"{whole['volume_mm3'].astype(float).sum() / _MM3_PER_ML:,.0f} ml",
        dice=None if np.isnan(mean) else f"{mean:.2f}",
        worst=[
            (
                titles[name],
                f"{facts.loc[name, 'expected_dice']:.2f}",
                f"{facts.loc[name, 'mean_flip_probability']:.2f}",
            )
            for name in worst[:_AT_A_GLANCE]
        ],
    )


def _legend(label_set: LabelSet) -> list[tuple[str, str]]:
    """Name and colour of the outlines; sides that share a colour once."""
    colors: dict[str, set[tuple[int, int, int]]] = {}
    for structure in label_set.structures:
        colors.setdefault(structure.bare_name, set()).add(structure.color)
    entries = (
        (s.both_sides if len(colors[s.bare_name]) == 1 else s.title, css_color(s))
        for s in label_set.structures
    )
    return list(dict.fromkeys(entries))


@dataclass(frozen=True)
class Cell:
    """A number as text, the same for sorting, and its bar's length in percent."""

    text: str
    value: float | None
    bar: float = 0.0


@dataclass(frozen=True)
class Row:
    """One structure of the table; its cells in the order of `_heads`."""

    title: str
    color: str
    cells: tuple[Cell, ...]


def _heads(table: pd.DataFrame) -> list[str]:
    repeat = ["Repeat SD, mm³"] if _REPEAT_SD in table else []
    lesion = ["In the lesion"] if _lesioned(table) else []
    return [
        *("Structure", "Volume, mm³", "95 % interval of a reference, mm³", *repeat),
        *("Asymmetry (L \N{MINUS SIGN} R) / mean", "Mean flip probability", "Expected Dice"),
        *lesion,
    ]


def _lesioned(table: pd.DataFrame) -> bool:
    return _LESION in table and bool(table[_LESION].notna().any())


def _rows(table: pd.DataFrame, label_set: LabelSet) -> list[Row]:
    uneven, lesioned = asymmetry(table), _lesioned(table)
    rows = []
    for i, structure in enumerate(label_set.structures):
        facts = table.iloc[i]
        repeat = [_cell(float(facts[_REPEAT_SD]), 0)] if _REPEAT_SD in table else []
        cells = (
            _cell(float(facts["volume_mm3"]), 0),
            _interval(*(float(facts[f"volume_ci95_{end}_mm3"]) for end in ("low", "high"))),
            *repeat,
            # one number for both sides
            Cell("", None)
            if structure.hemisphere == "R"
            else _cell(uneven[structure.name], 2, full=1, sign="+"),
            _cell(float(facts["mean_flip_probability"]), 3, full=0.5),
            _cell(float(facts["expected_dice"]), 2, full=1),
            *([_cell(float(facts[_LESION]), 2, full=1)] if lesioned else []),
        )
        rows.append(Row(structure.title, css_color(structure), cells))
    return rows


def _whole_rows(wholes: pd.DataFrame, repeat: bool, lesioned: bool) -> list[Row]:
    """The rows of the whole head that are known; they have no side and no colour."""
    rows = []
    for _, facts in wholes.iterrows():
        if np.isnan(float(facts["volume_mm3"])):
            continue
        cells = (
            _cell(float(facts["volume_mm3"]), 0),
            _interval(*(float(facts[f"volume_ci95_{end}_mm3"]) for end in ("low", "high"))),
            *([_cell(float(facts[_REPEAT_SD]), 0)] if repeat else []),
            Cell("n/a", None),
            _cell(float(facts["mean_flip_probability"]), 3, full=0.5),
            _cell(float(facts["expected_dice"]), 2, full=1),
            *([Cell("n/a", None)] if lesioned else []),
        )
        rows.append(Row(title_of(str(facts["name"])), "transparent", cells))
    return rows


def _interval(low: float, high: float) -> Cell:
    """Both ends; sorted by the distance between them."""
    width = _cell(high - low, 0)
    return width if width.value is None else Cell(f"{low:,.0f} to {high:,.0f}", width.value)


def _cell(value: float, digits: int, full: float | None = None, sign: str = "") -> Cell:
    if np.isnan(value):
        return Cell("n/a", None)
    bar = 0.0 if full is None else min(100.0, 100 * abs(value) / full)
    return Cell(f"{value:{sign}z,.{digits}f}", value, round(bar, 1))


def _provenance(record: dict[str, Any]) -> list[tuple[str, str]]:
    settings = ", ".join(f"{k} = {v}" for k, v in record["HetsegSettings"].items())
    kind = UNIT1 if is_unit1(Path(record["Sources"][0])) else T1W
    facts = [
        (kind, ", ".join(record["Sources"])),
        (f"SHA-256 of the {kind}", record["HetsegSourceSHA256"]),
        ("hetseg", record["HetsegVersion"]),
        ("Model", f"{record['HetsegModel']} ({record['HetsegModelSHA256'][:12]})"),
        ("Brain extraction", record["HetsegBrainExtraction"]),
        ("Settings", settings),
    ]
    if record["HetsegMaskSHA256"]:
        facts.append(("SHA-256 of the brain mask", record["HetsegMaskSHA256"]))
    lesion = GivenLesion.of_record(record)
    if lesion is not None:
        facts.append(("Lesion mask", f"{lesion.source} ({lesion.ml:.1f} ml)"))
    elif record["HetsegSettings"].get("lesion_mask", "none") != "none":
        facts.append(("Lesion mask", "none for this scan"))
    return facts


def _view(shown: Shown, source: Path, label_set: LabelSet, lesion_path: Path | None) -> View:
    """All but the flip map, which is drawn of the brain only."""
    working = working_grid(shown.grid)
    image = shown.image
    if image is None:
        t1w = read_t1w(source)  # with the same corrections as for the network
        image = _to(working, t1w.grid, t1w.data, t1w.background)
    return View(
        image=image,
        dseg=nearest(shown.dseg, shown.grid, working),
        flip_probability=None,
        mask=nearest(shown.mask, shown.grid, working) > 0,
        affine=working.affine,
        label_set=label_set,
        lesion=None if lesion_path is None else read_lesion(lesion_path).on(working),
    )


def _brain(head: View, shown: Shown) -> View:
    """The part of a view around the brain, with its flip map."""
    box, q = _brain_box(head.mask | (head.dseg > 0)), shown.flip_probability
    brain = head.cropped(box)
    if q is None:
        return brain
    there = Grid(brain.dseg.shape, brain.affine)
    return replace(brain, flip_probability=_to(there, shown.grid, q))


def _to(
    target: Grid, source: Grid, data: npt.NDArray[np.float32], outside: float = 0.0
) -> npt.NDArray[np.float32]:
    return resample(torch.from_numpy(data)[None], source, target, outside=outside)[0].numpy()


def _brain_box(inside: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    if not inside.any():
        return tuple(slice(0, n) for n in inside.shape)
    (found,) = ndimage.find_objects(inside.view(np.uint8))
    return tuple(slice(max(0, s.start - _MARGIN), s.stop + _MARGIN) for s in found)
