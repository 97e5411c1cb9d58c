"""Argument types that several commands share."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path


def path(text: str) -> Path:
    """A path; ``~`` and ``~user`` at its beginning stand for the home folder.

    Shells expand them only at the start of a word (not in ``--model=~/x``) and containers not at
    all.  They are expanded here alone: a relative path that still begins with a tilde (``./~``) is
    made absolute, because pandas would expand it once more.
    """
    expanded = Path(os.path.expanduser(text))  # noqa: PTH111 (Path drops the "./" of "./~")
    return Path.cwd() / expanded if expanded.name and str(expanded)[0] == "~" else expanded


def folder(text: str) -> Path:
    """A folder to write to: a path where no file lies."""
    found = path(text)
    if found.exists() and not found.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a file; give a folder")
    return found


def name_or_path(text: str) -> str:
    """The name of a shipped model, or a folder."""
    return str(path(text)) if text.startswith("~") else text


def positive(text: str) -> int:
    """A whole number of at least 1.

    Examples
    --------
    >>> positive("4")
    4
    """
    return _at_least(1, text)


def whole(text: str) -> int:
    """A whole number of at least 0."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least {least}")
    return int(text)


def positive_float(text: str) -> float:
    """A number above 0."""
    number = float(text)  # argparse makes the message of a ValueError
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be positive")
    return number


def share(text: str) -> float:
    """A number of 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of 0 to 1")
    return number
