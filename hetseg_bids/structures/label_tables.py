"""Label sets as TSV files in the form of BIDS's ``dseg.tsv``."""

from __future__ import annotations

import colorsys
import csv
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from hetseg_bids.errors import DatasetError
from hetseg_bids.files import write_tsv
from hetseg_bids.structures.label_sets import MAX_ASEG_ID, LabelSet, Structure, partner_of

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_GOLDEN = 0.618034  # of a turn: hues that follow each other differ


def read_label_table(path: Path) -> LabelSet:
    """Read a table of structures.

    Parameters
    ----------
    path : Path
        TSV with the columns ``index`` (the value in label images, 1-255) and ``name`` (small
        letters, digits and underscores; ``left_X`` and ``right_X`` for the two sides of X);
        ``color`` (``#rrggbb``) and ``members`` (ids that count as the structure in training
        labels, comma-separated) may be left out.

    Raises
    ------
    DatasetError
        If it can't be read, or the structures in it can't be told apart or mirrored.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> path = getfixture("tmp_path") / "dseg.tsv"
    >>> write_label_table(path, ASEG)
    >>> read_label_table(path).names == ASEG.names
    True
    """
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
        if not len(table):
            raise ValueError("no structure in it")
        rows = enumerate(table.to_dict("records"))
        return make_label_set(tuple(_structure(i, row) for i, row in rows))
    except KeyError as error:
        raise DatasetError(
            f"not a table of structures (column {error} is missing)", path=path
        ) from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"not a table of structures ({error})", path=path) from None


def _structure(number: int, row: dict[str, str]) -> Structure:
    name, label = row["name"], int(row["index"])
    if not _NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: small letters, digits and underscores are allowed")
    members = tuple(int(word) for word in row.get("members", "").split(",") if word.strip())
    red, green, blue = _color(number, row.get("color", ""))
    return Structure(name, label, members or (label,), (red, green, blue))


def _color(number: int, word: str) -> tuple[int, ...]:
    if _COLOR.fullmatch(word):
        return tuple(bytes.fromhex(word[1:]))
    if word not in ("", "n/a"):
        raise ValueError(f"color {word!r}: #rrggbb is expected")
    return tuple(round(255 * v) for v in colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 0.9))


def make_label_set(structures: tuple[Structure, ...], *, overlapping: bool = False) -> LabelSet:
    """A label set of structures that can be told apart and mirrored.

    Parameters
    ----------
    structures : tuple of Structure
    overlapping : bool
        Whether an id may belong to several structures, as brain is inside the skull, too.

    Raises
    ------
    ValueError
        If they can't.

    Examples
    --------
    >>> make_label_set((Structure("left_lesion", 1, (1,), (255, 0, 0)),))
    Traceback (most recent call last):
    ValueError: left_lesion has no right_lesion with as many members
    """
    label_set = LabelSet(structures)
    for value in (i for s in structures for i in (s.label, *s.members)):
        if not 0 < value <= MAX_ASEG_ID:
            raise ValueError(f"id {value} is outside 1-{MAX_ASEG_ID}")
    for what, values in (
        ("index", [s.label for s in structures]),
        ("member", [i for s in structures for i in s.members]),
        ("name", list(label_set.task_names)),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice and not (overlapping and what == "member"):
            raise ValueError(f"{what} {twice[0]} occurs twice")
    sides = {s.name: len(s.members) for s in structures if s.hemisphere}
    for name, count in sides.items():
        if sides.get(partner_of(name)) != count:
            raise ValueError(f"{name} has no {partner_of(name)} with as many members")
    return label_set


def write_label_table(path: Path, label_set: LabelSet) -> None:
    """Write a ``dseg.tsv``: index, name, color.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> path = getfixture("tmp_path") / "dseg.tsv"
    >>> write_label_table(path, ASEG)
    >>> path.read_text().split()[:6]
    ['index', 'name', 'color', '2', 'left_cerebral_white_matter', '#dcdcdc']
    """
    rows = [(s.label, s.name, "#{:02x}{:02x}{:02x}".format(*s.color)) for s in label_set.structures]
    write_tsv(path, pd.DataFrame(rows, columns=["index", "name", "color"]))
