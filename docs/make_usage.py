"""Write docs/usage.md from the parsers: ``python docs/make_usage.py``."""

from __future__ import annotations

import argparse
from pathlib import Path

from hetseg_bids.cli import evaluate, export, run, train

PAGE = Path(__file__).with_name("usage.md")
_COMMANDS = (run.build_parser, train.build_parser, evaluate.build_parser, export.build_parser)


def page() -> str:
    """The whole page."""
    parts = ["# Usage", "Made from the command lines' parsers by `docs/make_usage.py`."]
    for build in _COMMANDS:
        parser = build()
        parts += [f"## {parser.prog}", _escape(parser.description or "")]
        for group in parser._action_groups:
            actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
            if actions:
                rows = [f"| {_names(a)} | {_text(parser, a)} |" for a in actions]
                title = (group.title or "").capitalize()
                parts.append("\n".join([f"| {title} | |", "|---|---|", *rows]))
        if parser.epilog:
            parts.append(_escape(parser.epilog))
    return "\n\n".join(parts) + "\n"


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
    PAGE.write_text(page(), encoding="utf-8")
