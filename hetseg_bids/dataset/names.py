"""What the names of images say: entities, sessions, the suffix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

T1W, UNIT1 = "T1w", "UNIT1"
SUFFIXES = (T1W, UNIT1)
"""Suffixes of the images that are segmented: T1w, and the uniform image of an MP2RAGE."""

# BIDS puts `mod` before these
_AFTER_MOD = ("echo", "flip", "inv", "mt", "part", "proc", "chunk")


def entities_of(stem: str) -> dict[str, str]:
    """BIDS entities in a file name: ``sub-01_ses-2`` gives ``{"sub": "01", "ses": "2"}``.

    Examples
    --------
    >>> entities_of("sub-01_ses-2_run-1")
    {'sub': '01', 'ses': '2', 'run': '1'}
    """
    return dict(part.split("-", 1) for part in stem.split("_") if "-" in part)


def keys_of(stem: str) -> dict[str, str]:
    """The columns that name a scan in tables; a file without ``sub-`` counts as a person.

    What stands in front of ``sub-X`` tells apart people of different folders.

    Examples
    --------
    >>> keys_of("sub-01_ses-2_run-1")
    {'participant_id': 'sub-01', 'session_id': 'ses-2', 'scan': 'sub-01_ses-2_run-1'}
    >>> [keys_of(stem)["participant_id"] for stem in ("bert_orig", "siteB_sub-01_T1w")]
    ['bert_orig', 'siteB_sub-01']
    """
    entities = entities_of(stem)
    person = re.match(r"(?:.*?_)?sub-[^_]+", stem)
    return {
        "participant_id": person.group() if person else stem,
        "session_id": f"ses-{entities['ses']}" if "ses" in entities else "n/a",
        "scan": stem,
    }


def derivative_stem(stem: str, suffix: str) -> str:
    """The entities of an image's derivatives: those of a UNIT1 get ``mod-UNIT1``.

    A T1w and a UNIT1 of one session may have the same entities, but never the same outputs.

    Examples
    --------
    >>> derivative_stem("sub-01_run-1_chunk-2", "UNIT1"), derivative_stem("sub-01_run-1", "T1w")
    ('sub-01_run-1_mod-UNIT1_chunk-2', 'sub-01_run-1')
    """
    if suffix == T1W:
        return stem
    parts = stem.split("_")
    later = [part for part in parts if part.split("-")[0] in _AFTER_MOD]
    return "_".join([*(part for part in parts if part not in later), f"mod-{suffix}", *later])


def image_stem(stem: str) -> str:
    """The entities of the image whose derivatives have these: undoes `derivative_stem`.

    Examples
    --------
    >>> image_stem("sub-01_run-1_mod-UNIT1_chunk-2"), image_stem("sub-01_run-1")
    ('sub-01_run-1_chunk-2', 'sub-01_run-1')
    """
    return stem.replace(f"_mod-{UNIT1}", "")


def suffix_of(stem: str) -> str:
    """The suffix of the image whose derivatives have these entities.

    Examples
    --------
    >>> suffix_of("sub-01_mod-UNIT1"), suffix_of("sub-01_run-1"), suffix_of("bert_UNIT1")
    ('UNIT1', 'T1w', 'UNIT1')
    """
    # results of files without a dataset keep the whole name
    return UNIT1 if UNIT1 in (entities_of(stem).get("mod"), stem.split("_")[-1]) else T1W


def by_name(stem: str) -> tuple[list[str | int], str]:
    """A key to sort names by, with numbers as numbers; no two names have the same.

    Examples
    --------
    >>> sorted(["sub-01_run-10", "sub-01_run-9", "sub-01"], key=by_name)
    ['sub-01', 'sub-01_run-9', 'sub-01_run-10']
    """
    parts = re.split(r"(\d+)", stem)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], stem


def one_of_each_session(
    stems: Iterable[str], rank: Callable[[str], Any] = by_name
) -> frozenset[str]:
    """The image with the lowest rank of each session; T1w and UNIT1 are chosen apart.

    Without sessions, all images of a person are one session.

    Examples
    --------
    >>> stems = ["sub-01_run-2", "sub-01_run-1", "sub-01_mod-UNIT1", "sub-02_ses-1"]
    >>> sorted(one_of_each_session(stems))
    ['sub-01_mod-UNIT1', 'sub-01_run-1', 'sub-02_ses-1']
    """
    first: dict[tuple[str, ...], str] = {}
    for stem in sorted(stems, key=rank):
        keys = keys_of(stem)
        first.setdefault((keys["participant_id"], keys["session_id"], suffix_of(stem)), stem)
    return frozenset(first.values())
