"""Errors that are shown to people as one line."""

from __future__ import annotations


class HetsegError(Exception):
    """An error whose message says what is wrong and what to do about it."""


class InputError(HetsegError):
    """Input that can't be used: a file or option is named, with the remedy."""
