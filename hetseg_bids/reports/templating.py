"""How templates become pages: everything is escaped, and an undefined name is an error."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def environment() -> Environment:
    """Templates of this package, each compiled once."""
    loader = PackageLoader("hetseg_bids.reports")
    made = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    made.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return made
