"""The page of a person with several sessions, and what the cohort's page says of change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hetseg_bids.files import write_text
from hetseg_bids.quality.change import LEAST_YEARS, Session
from hetseg_bids.reports.mosaics import Picture
from hetseg_bids.reports.templating import css_color, environment
from hetseg_bids.segmentation.uncertainty import NORMAL_975
from hetseg_bids.structures.label_sets import Structure

_WIDTH, _HEIGHT = 240.0, 96.0  # of a plot, without its margins
_LEAST_SPAN = 0.1  # of the volume, so that a plot doesn't magnify what is nothing


@dataclass(frozen=True)
class PersonChange:
    """What the page of a person shows.

    Attributes
    ----------
    person : str
        ``sub-X``.
    sessions : list of Session
        In order.
    order : str
        What the order of sessions and the years are from, in words.
    pages : list of (list of str)
        Names of the pages of each session's scans, beside this one.
    notes : list of str
        Why the sessions may differ by more than repeat noise.
    pictured : list of str
        Sessions in the pictures.
    table : DataFrame
        See `quality.change.change_table`.
    """

    person: str
    sessions: list[Session]
    order: str
    pages: list[list[str]]
    notes: list[str]
    pictured: list[str]
    table: pd.DataFrame

    @property
    def whole(self) -> pd.DataFrame:
        """Changes from the first to the last session."""
        ends = (self.sessions[0].name, self.sessions[-1].name)
        return self.table[
            (self.table["session_from"] == ends[0]) & (self.table["session_to"] == ends[1])
        ]

    @property
    def dated(self) -> bool:
        """Whether the times of all sessions are known."""
        return not any(np.isnan(session.years) for session in self.sessions)


def write_change_page(
    path: Path,
    shown: PersonChange,
    structures: Sequence[Structure],
    images: str,
    draw: Callable[[], list[Picture] | None],
) -> None:
    """Write the page of a person, unless the one that is there was made from the same inputs.

    Parameters
    ----------
    path : Path
        ``OUT/sub-X_change.html``.
    shown : PersonChange
    structures : sequence of Structure
        In the order of the sessions' tables.
    images : str
        What identifies the images of which the pictures are made.
    draw : callable
        Makes the pictures; None where that failed, so that the next call tries again.
    """
    plain = _render(shown, structures, [], "")
    inputs = hashlib.sha256(f"{plain}{images}".encode()).hexdigest()
    if path.is_file() and f'data-inputs="{inputs}"' in path.read_text("utf-8", errors="replace"):
        return
    pictures = draw()
    made_of = "" if pictures is None else inputs
    write_text(path, _render(shown, structures, pictures or [], made_of))


def _render(
    shown: PersonChange, structures: Sequence[Structure], pictures: list[Picture], inputs: str
) -> str:
    pairs = list(shown.table.groupby(["session_from", "session_to"], sort=False))
    ends = (shown.sessions[0].name, shown.sessions[-1].name)
    pairs.sort(key=lambda pair: pair[0] != ends)  # the first to the last comes first
    whole = shown.whole
    return (
        environment()
        .get_template("change.html.jinja")
        .render(
            shown=shown,
            inputs=inputs,
            pictures=pictures,
            by_chance=_by_chance(len(structures)),
            least_years=f"{LEAST_YEARS:g}",
            first=ends[0],
            last=ends[1] + (f", {shown.sessions[-1].years:.2f} years" if shown.dated else ""),
            plots=[
                _plot(shown, number, structure, whole["more_than_noise"].iloc[number])
                for number, structure in enumerate(structures)
            ],
            tables=[(*ends, _rows(table, structures)) for ends, table in pairs],
        )
    )


@dataclass(frozen=True)
class Point:
    """A session in a plot: its place and the ends of its error bar, in the plot's units."""

    x: float
    y: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Plot:
    """Volumes of a structure over the sessions.

    Attributes
    ----------
    title : str
    more : str
        ``increase``, ``decrease``, ``no`` or ``n/a``: first to last session.
    top, bottom : str
        Volume at the plot's upper and lower edge.
    points : list of Point
    """

    title: str
    more: str
    top: str
    bottom: str
    points: list[Point]

    @property
    def line(self) -> str:
        """The points as an SVG polyline has them."""
        return " ".join(f"{point.x:g},{point.y:g}" for point in self.points)


def _plot(shown: PersonChange, number: int, structure: Structure, more: str) -> Plot:
    rows = [session.table.iloc[number] for session in shown.sessions]
    volume = np.array([float(row["volume_mm3"]) for row in rows])
    reach = NORMAL_975 * np.array([float(row["volume_repeat_sd_mm3"]) for row in rows])
    reach = np.nan_to_num(reach, nan=0.0)
    low, high = float((volume - reach).min()), float((volume + reach).max())
    spare = max(0.0, _LEAST_SPAN * float(volume.mean()) - (high - low)) / 2 or (high - low) / 20
    low, high = low - spare, high + spare
    places = [s.years if shown.dated else n for n, s in enumerate(shown.sessions)]
    length = places[-1] or 1.0

    def y(value: float) -> float:
        return round(_HEIGHT * (high - value) / ((high - low) or 1.0), 1)

    points = [
        Point(
            x=round(_WIDTH * place / length, 1),
            y=y(volume[n]),
            low=y(volume[n] - reach[n]),
            high=y(volume[n] + reach[n]),
            text=f"{session.name}: {volume[n]:,.0f} mm³"
            + (f", {session.years:.2f} years" if shown.dated else ""),
        )
        for n, (session, place) in enumerate(zip(shown.sessions, places, strict=True))
    ]
    return Plot(structure.title, more, f"{high:,.0f}", f"{low:,.0f}", points)


def _rows(table: pd.DataFrame, structures: Sequence[Structure]) -> list[dict[str, Any]]:
    """Cells of a table: texts, and what they are sorted by."""
    rows = []
    for structure, row in zip(structures, table.to_dict("records"), strict=True):
        cells = [
            _cell(row["volume_from_mm3"], ",.0f"),
            _cell(row["volume_to_mm3"], ",.0f"),
            _with_interval(
                row["difference_percent"],
                row["difference_ci95_low_percent"],
                row["difference_ci95_high_percent"],
            ),
            _with_interval(
                row["percent_per_year"],
                row["percent_per_year_ci95_low"],
                row["percent_per_year_ci95_high"],
            ),
            _cell(row["smallest_change_percent"], ".1f"),
        ]
        rows.append(
            {
                "title": structure.title,
                "color": css_color(structure),
                "cells": cells,
                "more": row["more_than_noise"],
            }
        )
    return rows


def _cell(value: float, form: str) -> tuple[str, float | str]:
    return ("n/a", "") if np.isnan(value) else (f"{value:{form}}", float(value))


def _with_interval(value: float, low: float, high: float) -> tuple[str, float | str]:
    text, key = _cell(value, "+.1f")
    return (text if np.isnan(low) else f"{text} ({low:+.1f} to {high:+.1f})"), key


def cohort_change(
    people: Sequence[PersonChange], structures: Sequence[Structure]
) -> dict[str, Any]:
    """First to last session of each person, by structure and by person, for the cohort's page.

    Changes are also given in units of their repeat noise (standard deviation of a difference).
    """
    columns = ["difference_mm3", "smallest_change_mm3", "difference_percent", "percent_per_year"]
    values = np.stack([shown.whole[columns].to_numpy(float) for shown in people])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = NORMAL_975 * values[..., 0] / values[..., 1]
    z[~np.isfinite(z)] = np.nan
    more = np.stack([shown.whole["more_than_noise"].to_numpy(str) for shown in people])
    shrunk, grown = more == "decrease", more == "increase"
    order = np.argsort(-(shrunk | grown).sum(axis=1), kind="stable")
    return {
        "structures": [
            {
                "title": structure.title,
                "percent": _middle(values[:, i, 2], "+.1f"),
                "rate": _middle(values[:, i, 3], "+.1f"),
                "z": _spread(z[:, i]),
                "decrease": int(shrunk[:, i].sum()),
                "increase": int(grown[:, i].sum()),
            }
            for i, structure in enumerate(structures)
        ],
        "people": [
            {
                "person": people[n].person,
                "page": f"{people[n].person}_change.html",
                "sessions": len(people[n].sessions),
                "years": _cell(float(people[n].whole["years"].iloc[0]), ".2f")[0],
                "decrease": int(shrunk[n].sum()),
                "increase": int(grown[n].sum()),
                "largest": _largest(z[n], structures),
            }
            for n in order
        ],
        "by_chance": _by_chance(len(structures)),
    }


def _by_chance(count: int) -> str:
    """How many structures of a person without change exceed the noise (docs/change.md)."""
    return (
        f"If nothing changed, 5 % of structures (about {count / 20:.1f} of {count}) would exceed "
        "the noise by chance; in three people scanned twice, each judged by the others, 10 % did."
    )


def _middle(values: np.ndarray, form: str) -> str:
    known = values[~np.isnan(values)]
    return f"{np.median(known):{form}}" if len(known) else "n/a"


def _spread(values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    if not len(known):
        return "n/a"
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    return f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"


def _largest(z: np.ndarray, structures: Sequence[Structure]) -> str:
    if np.isnan(z).all():
        return "n/a"
    worst = int(np.nanargmax(np.abs(z)))
    return f"{structures[worst].title} ({z[worst]:+.1f})"
