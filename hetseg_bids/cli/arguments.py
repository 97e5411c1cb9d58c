"""Argument types that several commands share."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1")
    return int(text)


def positive_float(text: str) -> float:
    """A number above 0."""
    number = float(text)  # argparse words the ValueError
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be positive")
    return number
