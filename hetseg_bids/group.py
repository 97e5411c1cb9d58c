"""Group level: the volumes of all finished scans in one table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from hetseg_bids.errors import InputError
from hetseg_bids.files import atomic_path, write_json
from hetseg_bids.morphometry import COLUMNS

_ENDING = "_morph.tsv"
_MARK = "_seg-hetseg"


def write_group_table(out_dir: Path) -> Path:
    """Write OUT/group_morph.tsv and its data dictionary, a row a scan and structure.

    Raises
    ------
    InputError
        If there are no finished scans.
    """
    tables = sorted(out_dir.glob(f"sub-*/**/*{_MARK}*{_ENDING}"))
    if not tables:
        raise InputError(f"{out_dir}: no finished scans; run the participant level first")
    rows = []
    for path in tables:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        stem = path.name.removesuffix(_ENDING).replace(_MARK, "")
        parts = dict(part.split("-", 1) for part in stem.split("_") if "-" in part)
        table.insert(0, "participant_id", f"sub-{parts['sub']}")
        table.insert(1, "session_id", f"ses-{parts['ses']}" if "ses" in parts else "n/a")
        table.insert(2, "scan", stem)
        rows.append(table)
    target = out_dir / "group_morph.tsv"
    with atomic_path(target) as temporary:
        pd.concat(rows).to_csv(temporary, sep="\t", index=False)
    keys = {
        "participant_id": "Participant",
        "session_id": "Session",
        "scan": "Entities of the T1w image",
    }
    columns = {name: {"Description": text} for name, text in (keys | COLUMNS).items()}
    write_json(target.with_suffix(".json"), columns)
    return target
