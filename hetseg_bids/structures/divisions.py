"""What is written of a model's structures and parts: the structures alone, or all of an aseg.

A *division* says from which row of a model's logits each written label comes, what is taken off
it, and which row is cut into fifths by rule, as FreeSurfer cuts the corpus callosum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hetseg_bids.structures.label_sets import LabelSet, Structure

CALLOSUM = "corpus_callosum"
FIFTHS: tuple[Structure, ...] = tuple(
    Structure(f"cc_{name}", label, (label,), (0, 0, blue))
    for name, label, blue in (
        ("posterior", 251, 64),
        ("mid_posterior", 252, 112),
        ("central", 253, 160),
        ("mid_anterior", 254, 208),
        ("anterior", 255, 255),
    )
)
# the part that becomes a label of its own, and the name of what is left of the structure
_DIVIDED = {
    "lateral_ventricle": ("inferior_lateral_ventricle", "lateral_ventricle"),
    "cerebellum": ("cerebellum_white_matter", "cerebellum_cortex"),
}


@dataclass(frozen=True)
class Division:
    """Which labels are written, and from what.

    Attributes
    ----------
    label_set : LabelSet
        What is written.
    rows : tuple of int
        For each written label the row of the model's logits: structures first, then parts.
    split : tuple of (int, int)
        Written labels that are what is left of a structure, each with the label of its part.
    fifths : tuple of int
        Written labels that are fifths of one row, from the back to the front; or none.
    divided : dict of str to tuple of str
        Names of structures, and of the labels that take their place where that isn't one label.
    """

    label_set: LabelSet
    rows: tuple[int, ...]
    split: tuple[tuple[int, int], ...] = ()
    fifths: tuple[int, ...] = ()
    divided: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def of_parts(self) -> bool:
        """Whether the parts that a model labels are needed."""
        return bool(self.divided)


def whole_aseg(label_set: LabelSet) -> Division:
    """The division of a label set with parts: every label of an aseg.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import WITH_PARTS
    >>> division = whole_aseg(WITH_PARTS)
    >>> names = division.label_set.names
    >>> len(names), [(names[a], names[b]) for a, b in division.split][2]
    (43, ('left_cerebellum_cortex', 'left_cerebellum_white_matter'))
    >>> [division.label_set.structures[i].label for i in division.fifths]
    [251, 252, 253, 254, 255]
    """
    structures, parts = label_set.structures, label_set.parts
    part_names = [part.name for part in parts]
    written: list[Structure] = []
    split: list[tuple[int, int]] = []
    divided: dict[str, tuple[str, ...]] = {}
    for place, whole in enumerate(structures):
        if whole.name == CALLOSUM:
            written.append(FIFTHS[0])
            divided[whole.name] = tuple(fifth.name for fifth in FIFTHS)
            continue
        part, left = _DIVIDED.get(whole.bare_name, ("", whole.bare_name))
        side = whole.name.removesuffix(whole.bare_name)
        written.append(replace(whole, name=side + left, members=(whole.label,)))
        if part:
            split.append((place, len(structures) + part_names.index(side + part)))
            divided[whole.name] = (side + left, side + part)
    written += [*parts, *FIFTHS[1:]]
    rows = list(range(len(structures) + len(parts)))
    callosum = label_set.names.index(CALLOSUM)
    fifths = (callosum, *range(len(rows), len(rows) + len(FIFTHS) - 1))
    rows += [callosum] * (len(FIFTHS) - 1)
    return Division(LabelSet(tuple(written)), tuple(rows), tuple(split), fifths, divided)


def undivided(label_set: LabelSet) -> Division:
    """The structures as they are.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG, WITH_PARTS
    >>> undivided(WITH_PARTS).label_set == ASEG
    True
    """
    return Division(replace(label_set, parts=()), tuple(range(len(label_set.structures))))
