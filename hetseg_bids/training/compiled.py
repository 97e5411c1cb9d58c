"""Where torch.compile keeps the code of a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER_NAME = "compiled"
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_UNFINISHED = "unfinished"


@contextmanager
def compiled_code(out: Path) -> Iterator[None]:
    """Keep it in a folder of the run, and make it anew after a run that didn't end by itself.

    A compiler that was killed, or had no room on the disk, leaves half a library under its final
    name. PyTorch takes it for a whole one: later runs, also others, end when they load it, or take
    slower instructions (`findings/`). A folder that the user chose (TORCHINDUCTOR_CACHE_DIR) is
    left to the user.

    Parameters
    ----------
    out : Path
        Folder of the run.
    """
    if _VARIABLE in os.environ:
        yield
        return
    folder = out / FOLDER_NAME
    unfinished = folder / _UNFINISHED
    if unfinished.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished.touch()
    os.environ[_VARIABLE] = str(folder.resolve())
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
    unfinished.unlink()
