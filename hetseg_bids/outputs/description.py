"""What the output folder says of itself as a BIDS dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hetseg_bids import __version__
from hetseg_bids.config import BIDS_VERSION
from hetseg_bids.files import read_json, remove_leftovers, write_json, write_text
from hetseg_bids.outputs.derivatives import RAW

_TABLES = ("morph", "change")  # which BIDS doesn't know


def write_dataset_description(out_dir: Path, bids_dir: Path) -> None:
    """Write OUT/dataset_description.json, and OUT/.bidsignore unless there is one."""
    out, raw = out_dir.resolve(), bids_dir.resolve()
    # below the dataset both move together
    link = Path(os.path.relpath(raw, out)).as_posix() if raw in out.parents else raw.as_uri()
    source = _description_of(bids_dir)
    content = {
        "Name": "hetseg: brain structure segmentation with label-flip uncertainty",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **{key: source[key] for key in ("License",) if key in source},
        "GeneratedBy": [{"Name": "hetseg", "Version": __version__, **_container()}],
        "SourceDatasets": [
            {"URL": link, **({"DOI": source["DatasetDOI"]} if "DatasetDOI" in source else {})}
        ],
        "DatasetLinks": {RAW: link},
    }
    description, ignore = out_dir / "dataset_description.json", out_dir / ".bidsignore"
    remove_leftovers((description, ignore))
    write_json(description, content)
    if not ignore.exists():
        tables = "".join(f"*_{name}.{end}\n" for name in _TABLES for end in ("tsv", "json"))
        write_text(ignore, f"*.html\nlogs/\n{tables}group_*\n")


def _description_of(bids_dir: Path) -> dict[str, str]:
    """The texts in the description of the input."""
    try:
        content = read_json(bids_dir / "dataset_description.json")
    except (OSError, ValueError):  # accepted with --skip-bids-validation
        return {}
    return {key: text for key, text in content.items() if text and isinstance(text, str)}


def _container() -> dict[str, Any]:
    kind, _, tag = os.environ.get("HETSEG_CONTAINER", "").partition(":")
    return {"Container": {"Type": kind, "Tag": tag}} if tag else {}
