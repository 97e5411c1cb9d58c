"""Write what is made from code: docs/usage.md, docs/api.md and boutiques.json.

python docs/make_usage.py
"""

from __future__ import annotations

import argparse
import inspect
import json
from pathlib import Path

from make_boutiques import descriptor

import hetseg_bids
from hetseg_bids import errors
from hetseg_bids.cli import evaluate, export, run, train

FOLDER = Path(__file__).parent
_COMMANDS = (run.build_parser, train.build_parser, evaluate.build_parser, export.build_parser)
_WITHOUT_BIDS = "The other options are those of `hetseg` but for *which images*."


def pages() -> dict[Path, str]:
    """Every file that is made from code."""
    boutiques = json.dumps(descriptor(), indent=2) + "\n"
    return {
        FOLDER / "usage.md": usage(),
        FOLDER / "api.md": api(),
        FOLDER.parent / "boutiques.json": boutiques,
    }


def api() -> str:
    """What can be imported from `hetseg_bids`."""
    parts = [
        "# API",
        "All else may change. Made from the code by `docs/make_usage.py`.",
    ]
    for name in hetseg_bids.__all__:
        item = getattr(hetseg_bids, name)
        if inspect.isclass(item) or inspect.isfunction(item):
            call = str(inspect.signature(item)).replace("'", "") if inspect.isfunction(item) else ""
            parts.append(f"## {name}\n\n```\n{name}{call}\n\n{inspect.getdoc(item)}\n```")
    base = f"```\nHetsegError\n\n{inspect.getdoc(errors.HetsegError)}\n```"
    parts += ["## Errors", base, _domains()]
    return "\n\n".join(parts) + "\n"


def _domains() -> str:
    """The classes of errors as a table."""
    rows = [
        f"| `{c.__name__}` | `{c.__bases__[0].__name__}` | {inspect.getdoc(c)} |"
        for c in vars(errors).values()
        if inspect.isclass(c) and issubclass(c, errors.HetsegError) and c is not errors.HetsegError
    ]
    return "\n".join(["| in `hetseg_bids.errors` | is a | is about |", "|---|---|---|", *rows])


def usage() -> str:
    """The page of the command lines."""
    parts = ["# Usage", "Made from the command lines' parsers by `docs/make_usage.py`."]
    for build in _COMMANDS:
        parser = build()
        parts += [f"## {parser.prog}", _escape(parser.description or ""), *_tables(parser)]
        if parser.epilog:
            parts.append(_escape(parser.epilog))
        if build is run.build_parser:
            files = run.build_files_parser()
            parts += ["## hetseg without BIDS", _escape(files.description or "")]
            parts += [*_tables(files)[:2], _WITHOUT_BIDS]
    return "\n\n".join(parts) + "\n"


def _tables(parser: argparse.ArgumentParser) -> list[str]:
    """A table for each group of options."""
    tables = []
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
        if actions:
            rows = [f"| {_names(a)} | {_text(parser, a)} |" for a in actions]
            title = (group.title or "").capitalize()
            tables.append("\n".join([f"| {title} | |", "|---|---|", *rows]))
    return tables


def _names(action: argparse.Action) -> str:
    names = action.option_strings or [action.dest]
    value = ""
    if action.option_strings and action.nargs != 0:
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else ""
        value = str(action.metavar or choices or action.dest.upper())
    return ", ".join(_escape(f"`{name} {value}`".replace(" `", "`")) for name in names)


def _text(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    words = {**vars(action), "prog": parser.prog}
    return _escape((action.help or "") % words)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
