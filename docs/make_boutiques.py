"""boutiques.json from the parser: one list of options, not two. `make_usage.py` writes it."""

from __future__ import annotations

import argparse
from typing import Any

from hetseg_bids import __version__
from hetseg_bids.cli.arguments import path, positive, positive_float
from hetseg_bids.cli.run import build_parser

# folders and files that need not exist before the call, or that a name may stand for
_NOT_FILES = ("output_dir", "bids_database_dir", "model")


def descriptor() -> dict[str, Any]:
    """The Boutiques descriptor (schema 0.5) of ``hetseg``."""
    parser = build_parser()
    actions = [a for a in parser._actions if not isinstance(a, (_Help, argparse._VersionAction))]
    keys = " ".join(f"[{a.dest.upper()}]" for a in actions)
    return {
        "name": "hetseg",
        "description": parser.description,
        "tool-version": __version__,
        "schema-version": "0.5",
        "command-line": f"hetseg {keys}",
        "inputs": [_input(action) for action in actions],
        "output-files": [
            {
                "id": "output_folder",
                "name": "BIDS derivatives",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": [
            {"code": 1, "description": "Some scan failed; the others' results are whole"},
            {"code": 2, "description": "The input or the options can't be used"},
        ],
        "suggested-resources": {"cpu-cores": 2, "ram": 4, "walltime-estimate": 120},
        "tags": {"domain": ["neuroinformatics", "mri", "segmentation", "bids-app"]},
    }


_Help = argparse._HelpAction


def _input(action: argparse.Action) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": (action.help or "") % {"default": action.default},
        "value-key": f"[{action.dest.upper()}]",
        "optional": bool(action.option_strings),
        "type": _type(action),
    }
    if action.option_strings:
        entry["command-line-flag"] = max(action.option_strings, key=lambda s: s.startswith("--"))
    if action.choices is not None:
        entry["value-choices"] = list(action.choices)
    if action.nargs == "+":
        entry["list"] = True
    if entry["type"] == "Number":
        entry["integer"] = action.type is positive
    return entry


def _type(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "Flag"
    if action.type is path and action.dest not in _NOT_FILES:
        return "File"
    if action.type in (positive, positive_float):
        return "Number"
    return "String"
