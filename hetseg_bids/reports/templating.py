"""How templates become pages: everything is escaped, and an undefined name is an error."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from hetseg_bids.structures.label_sets import Structure


@cache
def environment() -> Environment:
    """Templates of this package, each compiled once."""
    loader = PackageLoader("hetseg_bids.reports")
    made = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    made.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return made


def css_color(structure: Structure) -> str:
    """A structure's colour as CSS has it.

    Examples
    --------
    >>> css_color(Structure("left_thalamus", 10, (10,), (0, 118, 14)))
    'rgb(0, 118, 14)'
    """
    return "rgb({}, {}, {})".format(*structure.color)
