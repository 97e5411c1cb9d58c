"""The page of one scan, made from its derivatives alone, so that it can be redone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jinja2 import Environment, PackageLoader

from hetseg_bids.derivatives import OutputPaths
from hetseg_bids.files import write_text
from hetseg_bids.images import Grid, grid_of, open_image, read_labels, read_voxels
from hetseg_bids.preprocessing.conform import nearest, resample, working_grid
from hetseg_bids.reports.mosaics import View, draw_mosaics
from hetseg_bids.structures import STRUCTURES

_LEAST_CERTAIN = 3


def write_report(paths: OutputPaths, source: Path) -> Path:
    """Write a scan's page from its T1w and derivatives.

    Parameters
    ----------
    paths : OutputPaths
    source : Path
        The T1w image.

    Returns
    -------
    page : Path
    """
    record = json.loads(paths.record.read_text(encoding="utf-8"))
    table = pd.read_csv(paths.morph, sep="\t", na_values="n/a", keep_default_na=False)
    environment = Environment(
        loader=PackageLoader("hetseg_bids.reports"), autoescape=True, trim_blocks=True
    )
    html = environment.get_template("participant.html.jinja").render(
        title=paths.stem,
        summary=_summary(table),
        warnings=record["HetsegWarnings"],
        pictures=draw_mosaics(_load_view(paths, source)),
        rows=[_row(i, table.iloc[i]) for i in range(len(STRUCTURES))],
        provenance=_provenance(record),
    )
    write_text(paths.report, html)
    return paths.report


def _summary(table: pd.DataFrame) -> str:
    dice = table["expected_dice"].astype(float)
    if dice.isna().all():
        return "This model gives no flip map; look at the outlines."
    worst = table.assign(expected_dice=dice).nsmallest(_LEAST_CERTAIN, "expected_dice")
    names = ", ".join(
        f"{row['name'].replace('_', ' ')} ({row.expected_dice:.2f})" for _, row in worst.iterrows()
    )
    return f"Mean expected Dice {dice.mean():.2f}; least certain: {names}."


def _row(i: int, row: pd.Series) -> dict[str, str]:
    def number(name: str, digits: int) -> str:
        value = float(row[name])
        return "n/a" if np.isnan(value) else f"{value:,.{digits}f}"

    low, high = number("volume_ci95_low_mm3", 0), number("volume_ci95_high_mm3", 0)
    return {
        "title": STRUCTURES[i].title,
        "color": "rgb({}, {}, {})".format(*STRUCTURES[i].color),
        "volume": number("volume_mm3", 0),
        "interval": "n/a" if low == "n/a" else f"{low} to {high}",
        "flip": number("mean_flip_probability", 3),
        "dice": number("expected_dice", 2),
    }


def _provenance(record: dict[str, Any]) -> list[tuple[str, str]]:
    settings = ", ".join(f"{k} = {v}" for k, v in record["HetsegSettings"].items())
    return [
        ("T1w", ", ".join(record["Sources"])),
        ("SHA-256 of the T1w", record["HetsegSourceSHA256"]),
        ("hetseg", record["HetsegVersion"]),
        ("Model", f"{record['HetsegModel']} ({record['HetsegModelSHA256'][:12]})"),
        ("Brain extraction", record["HetsegBrainExtraction"]),
        ("Settings", settings),
    ]


def _load_view(paths: OutputPaths, source: Path) -> View:
    labels, native = read_labels(paths.dseg)
    working = working_grid(native)
    t1w = open_image(source)
    voxels = np.nan_to_num(read_voxels(source, t1w)).reshape(t1w.shape[:3])
    image = _to(working, grid_of(t1w), voxels)
    dseg = nearest(labels.astype(np.uint8), native, working)
    flip = None
    if paths.flip.exists():
        q = open_image(paths.flip).dataobj
        largest = np.zeros(native.shape, np.float32)
        for i in range(q.shape[3]):
            np.maximum(largest, np.asarray(q[..., i], dtype=np.float32), out=largest)
        flip = _to(working, native, largest)
    box = _brain_box(dseg)
    return View(image[box], dseg[box], None if flip is None else flip[box])


def _to(target: Grid, source: Grid, data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return resample(torch.from_numpy(data)[None], source, target)[0].numpy()


def _brain_box(labels: npt.NDArray[np.uint8]) -> tuple[slice, ...]:
    if not labels.any():
        return tuple(slice(0, n) for n in labels.shape)
    places = np.argwhere(labels)
    low, high = places.min(axis=0) - 5, places.max(axis=0) + 6
    return tuple(slice(max(0, int(a)), int(b)) for a, b in zip(low, high, strict=True))
