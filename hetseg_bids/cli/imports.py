"""Imports that cost less."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_PYTHONS_OWN = 10_000  # objects; Python 3.12 begins with 375 that are frozen


@contextmanager
def imported_for_good() -> Iterator[None]:
    """Keep the garbage collector away from what is imported here, now and later.

    Modules live until the process ends. To look through those of torch again and again while they
    are imported, and once more at the end, takes longer than to import pandas.
    """
    # once: what is frozen is never collected
    if gc.get_freeze_count() > _PYTHONS_OWN or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
