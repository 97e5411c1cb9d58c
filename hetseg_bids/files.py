"""Atomic files: a name is either absent or complete."""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{12}-")
_MOST_JSON_BYTES = 10_000_000


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` that replaces it when the block ends well.

    The temporary file keeps the suffixes (nibabel and safetensors look at them), starts
    with a dot so that BIDS tools ignore it, and is removed if the block raises.

    Examples
    --------
    >>> table = getfixture("tmp_path") / "volumes.tsv"  # an empty folder
    >>> with atomic_path(table) as temporary:
    ...     size = temporary.write_text("name volume_mm3")
    >>> [path.name for path in table.parent.iterdir()]
    ['volumes.tsv']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove temporary files that killed runs left beside these files.

    The caller must hold the lock: another process may not be writing them.

    Examples
    --------
    >>> dseg = getfixture("tmp_path") / "sub-01_dseg.nii.gz"
    >>> dseg.with_name(f".tmp-0123456789ab-{dseg.name}").touch()  # a killed run's
    >>> remove_leftovers([dseg])
    >>> list(dseg.parent.iterdir())
    []
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, ours in names.items():
        # one look at each folder: with thousands of scans, OUT and its logs are large
        for found in folder.iterdir() if folder.is_dir() else ():
            start = _TEMPORARY.match(found.name)
            if start and found.name[start.end() :] in ours:
                found.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")  # also on Windows


def write_tsv(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically, ``n/a`` where a value is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> path = getfixture("tmp_path") / "volumes.tsv"
    >>> write_tsv(path, pd.DataFrame({"name": ["brainstem"], "volume_mm3": [float("nan")]}))
    >>> path.read_text().split()
    ['name', 'volume_mm3', 'brainstem', 'n/a']
    """
    with atomic_path(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, na_rep="n/a", lineterminator="\n")


def read_tsv(path: Path) -> pd.DataFrame:
    """Read a table of a BIDS dataset, every value as text.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it isn't a table.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "participants.tsv"
    >>> import pandas as pd
    >>> write_tsv(path, pd.DataFrame({"participant_id": ["sub-01"], "age": [31]}))
    >>> read_tsv(path).loc[0, "age"]
    '31'
    """
    import pandas as pd  # slow to import

    table = pd.read_csv(
        path,
        sep="\t",
        dtype=str,
        keep_default_na=False,
        quoting=csv.QUOTE_NONE,  # BIDS has no quotes in TSV files
    )
    if not isinstance(table.index, pd.RangeIndex):  # its first columns were taken for names of rows
        raise ValueError(f"{path.name}: rows have more fields than the header (tabs at their end?)")
    return table


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, two-space indented, keys in the given order.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "sub-01_T1w.json"
    >>> write_json(path, {"MagneticFieldStrength": 3})
    >>> path.read_text().splitlines()
    ['{', '  "MagneticFieldStrength": 3', '}']
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_sidecar(image: Path) -> dict[str, Any]:
    """The JSON object beside a NIfTI image; nothing where there is none that can be read.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "sub-01_T1w.nii.gz"
    >>> write_json(path.with_name("sub-01_T1w.json"), {"MagneticFieldStrength": 3})
    >>> read_sidecar(path), read_sidecar(path.with_name("sub-02_T1w.nii.gz"))
    ({'MagneticFieldStrength': 3}, {})
    """
    bare = image.name.removesuffix(".gz").removesuffix(".nii")
    try:
        return read_json(image.with_name(f"{bare}.json"))
    except (OSError, ValueError):
        return {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, which may hold anything.

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If it is larger than 10 MB, isn't JSON, is nested too deeply, or isn't an object.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "sub-01_T1w.json"
    >>> write_json(path, {"MagneticFieldStrength": 3})
    >>> read_json(path)
    {'MagneticFieldStrength': 3}
    """
    if path.stat().st_size > _MOST_JSON_BYTES:
        raise ValueError("larger than 10 MB")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content
