"""The page of a cohort: scans to look at first, distributions, the mean flip map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hetseg_bids.files import write_text
from hetseg_bids.quality.flip_map import CohortMap
from hetseg_bids.quality.outliers import LEAST_PEOPLE
from hetseg_bids.reports.mosaics import Picture, View, draw_flip, flip_scale
from hetseg_bids.reports.templating import environment

_GRAVITY = {"fail": 0, "look": 1, "pass": 2}
_FILTER_VALUES = 40  # a column of text with more different values is no filter
_FEW_VALUES = 8  # numbers with no more different values are codes: chosen one by one
_SHARE = "Volume, % of the intracranial volume"
_DIGITS = {_SHARE: 4}  # a nucleus accumbens has 0.03 %
_MOSTLY = 0.5  # share of numbers in a column of numbers


@dataclass(frozen=True)
class Cohort:
    """Everything that the page shows; all lists and tables have the same order of scans.

    Attributes
    ----------
    structures : list of str
        Titles, those of the whole head last.
    quality : DataFrame
        group_qc.tsv.
    pages : list of str
        Participant pages, relative to the group page.
    volume_ml, expected_dice, asymmetry : (scans, S) float array
        Of each structure; NaN where it has none.
    participants : DataFrame
        participants.tsv, one row per scan.
    missing : DataFrame or None
        group_missing.tsv; None where the dataset can't be read.
    crashes : list of str
        Names of crash files of scans that no later run finished.
    intracranial_ml : (scans, 3) float array
        Intracranial volume and both ends of its 95 % interval; NaN where it isn't known.
    without_intracranial : str
        Which scans have none, and why; empty where all have one.
    relative_to : str
        What volumes are divided by for the outlier score, in words.
    change : dict or None
        See `reports.change.cohort_change`; None where nobody has several sessions.
    """

    structures: list[str]
    quality: pd.DataFrame
    pages: list[str]
    volume_ml: npt.NDArray[np.float64]
    expected_dice: npt.NDArray[np.float64]
    asymmetry: npt.NDArray[np.float64]
    participants: pd.DataFrame
    missing: pd.DataFrame | None
    crashes: list[str]
    intracranial_ml: npt.NDArray[np.float64]
    without_intracranial: str
    relative_to: str
    change: dict[str, Any] | None = None


def write_group_page(out_dir: Path, cohort: Cohort, cohort_map: CohortMap | None) -> Path:
    """Write OUT/group.html; returns its path."""
    levels = cohort.quality["verdict"].value_counts()
    html = (
        environment()
        .get_template("group.html.jinja")
        .render(
            count=len(cohort.quality),
            people=cohort.quality["participant_id"].nunique(),
            processings=_processings(cohort.quality),
            levels=[(level, int(levels.get(level, 0))) for level in _GRAVITY],
            least=LEAST_PEOPLE,
            relative_to=cohort.relative_to,
            without_intracranial=cohort.without_intracranial,
            any_intracranial=bool(np.isfinite(cohort.intracranial_ml[:, 0]).any()),
            dataset=cohort.missing is not None,
            missing=[] if cohort.missing is None else cohort.missing.to_dict("records"),
            crashes=cohort.crashes,
            change=cohort.change,
            map_count=0 if cohort_map is None else cohort_map.count,
            space="" if cohort_map is None else cohort_map.template.name,
            pictures=[] if cohort_map is None else _pictures(cohort_map),
            scale=flip_scale(),
            data=page_data(cohort),
        )
    )
    page = out_dir / "group.html"
    write_text(page, html)
    return page


def page_data(cohort: Cohort) -> dict[str, Any]:
    """The data of the page's tables and plots, for JSON; the scans most in need of a look first."""
    quality = cohort.quality
    gravity = quality["verdict"].map(_GRAVITY).to_numpy()
    score = np.nan_to_num(quality["outlier_score"].astype(float).to_numpy(), nan=0.0)
    order = np.lexsort((quality["scan"], -score, gravity))
    columns, ranges = _filters(cohort.participants.iloc[order])
    if len(_processings(quality)) > 1:
        columns = {"Model and processing": list(_processing(quality).to_numpy()[order])} | columns
    heads = cohort.intracranial_ml
    measures = {
        "Volume, ml": cohort.volume_ml,
        "Asymmetry (L - R) / mean": cohort.asymmetry,
        "Expected Dice": cohort.expected_dice,
    }
    if np.isfinite(heads).any():
        measures[_SHARE] = 100 * cohort.volume_ml / heads[:, :1]
    return {
        "structures": cohort.structures,
        "scan": list(quality["scan"].to_numpy()[order]),
        "page": [cohort.pages[i] for i in order],
        "verdict": list(quality["verdict"].to_numpy()[order]),
        "why": [_why(row) for row in quality.iloc[order].itertuples()],
        "score": _numbers(quality["outlier_score"].to_numpy(dtype=float)[order], 2),
        "dice": _numbers(quality["mean_expected_dice"].to_numpy(dtype=float)[order], 3),
        "intracranial": [_with_interval(*row) for row in heads[order]],
        "columns": columns,
        "ranges": ranges,
        "measures": {
            name: _matrix(values[order], _DIGITS.get(name, 3)) for name, values in measures.items()
        },
        "quartiles": {
            name: _matrix(_quartiles(values, quality["participant_id"]), _DIGITS.get(name, 3))
            for name, values in measures.items()
        },
    }


def _with_interval(volume: float, low: float, high: float) -> str:
    """A volume and its interval, which results may lack."""
    if np.isnan(volume):
        return "n/a"
    return f"{volume:,.0f}" + ("" if np.isnan(low) else f" ({low:,.0f} to {high:,.0f})")


def _processing(quality: pd.DataFrame) -> pd.Series:
    return quality["model"] + ", " + quality["processing"]


def _processings(quality: pd.DataFrame) -> dict[str, int]:
    """Scans of each model and processing, most first."""
    return {str(name): int(n) for name, n in _processing(quality).value_counts().items()}


def _quartiles(values: npt.NDArray[np.float64], people: pd.Series) -> npt.NDArray[np.float64]:
    """(3, S) quartiles over people, each with the mean of his or her scans."""
    persons = pd.DataFrame(values).groupby(people.to_numpy()).mean()
    return np.asarray(persons.quantile([0.25, 0.5, 0.75]), np.float64)


def _filters(
    participants: pd.DataFrame,
) -> tuple[dict[str, list[str]], dict[str, list[float | None]]]:
    """Columns to choose a value of, and columns of numbers to choose a range of."""
    columns: dict[str, list[str]] = {}
    ranges: dict[str, list[float | None]] = {}
    for name in participants.columns:
        texts = participants[name].astype(str)
        numbers = pd.to_numeric(texts.where(~texts.isin(("n/a", ""))), errors="coerce")
        different = texts.nunique()
        if different > _FEW_VALUES and numbers.notna().mean() > _MOSTLY:
            ranges[str(name)] = _numbers(numbers.to_numpy(dtype=float), 6)
        elif 1 < different <= _FILTER_VALUES:
            columns[str(name)] = list(texts)
    return columns, ranges


def _why(row: Any) -> str:
    return "; ".join(text for text in (row.reasons, row.outlier_of) if text != "n/a")


def _numbers(values: npt.NDArray[np.float64], digits: int) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), digits) for v in values]


def _matrix(values: npt.NDArray[np.float64], digits: int) -> list[list[float | None]]:
    """One list per structure, because a plot shows one structure."""
    return [_numbers(column, digits) for column in values.T]


def _pictures(cohort: CohortMap) -> list[Picture]:
    titles = {"Mean flip probability": cohort.mean, "Its standard deviation": cohort.sd}
    image, mask = cohort.template.image, cohort.template.image > 0
    pictures = []
    for title, values in titles.items():
        labels = np.zeros(image.shape, np.uint8)
        view = View(image, labels, values, mask, cohort.template.grid.affine)
        pictures += [Picture(f"{title}, {p.title.lower()}", p.uri) for p in draw_flip(view)]
    return pictures
