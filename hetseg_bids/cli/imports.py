"""Imports that cost less."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_for_good() -> Iterator[None]:
    """Keep the garbage collector away from what is imported here, now and later.

    Modules live until the process ends. To look through those of torch again and again while they
    are imported, and once more at the end, takes longer than to import pandas.
    """
    if gc.get_freeze_count() or not gc.isenabled():  # once: what is frozen is never collected
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
