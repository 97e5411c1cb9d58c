"""The whole of FreeSurfer's aseg from the structures and the parts of a model.

A *division* says which task gives each label, what is taken off it, and which label is cut into
fifths by rule, as FreeSurfer cuts the corpus callosum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hetseg_bids.structures.label_sets import LabelSet, Structure, bare_name, partner_of

CALLOSUM = "corpus_callosum"
_FIFTHS = ("cc_posterior", "cc_mid_posterior", "cc_central", "cc_mid_anterior", "cc_anterior")
_FIRST_FIFTH = 251
_FIFTH_COLORS = ((0, 0, 64), (0, 0, 112), (0, 0, 160), (0, 0, 208), (0, 0, 255))
# what is left of a structure when its part is a label of its own: name, and place of its id
_LEFT_OVER = {
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
    tasks : tuple of str
        Task of the model that gives each structure; the fifths of the corpus callosum have the
        same.
    taken_off : tuple of (int, int)
        Places of a structure and of the part that is taken off it.
    fifths : tuple of int
        Places of the fifths, from the back.
    """

    label_set: LabelSet
    tasks: tuple[str, ...]
    taken_off: tuple[tuple[int, int], ...] = ()
    fifths: tuple[int, ...] = ()


def whole_aseg(label_set: LabelSet) -> Division:
    """The division of a label set with parts.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import WITH_PARTS
    >>> division = whole_aseg(WITH_PARTS)
    >>> len(division.label_set.structures), division.label_set.names[4], division.tasks[6]
    (43, 'left_lateral_ventricle', 'left_cerebellum')
    >>> [division.label_set.structures[i].label for i in division.fifths]
    [251, 252, 253, 254, 255]
    """
    written: list[Structure] = []
    tasks: list[str] = []
    for structure in label_set.structures:
        if structure.name == CALLOSUM:
            continue
        _, name = _LEFT_OVER.get(structure.bare_name, ("", structure.bare_name))
        side = structure.name.removesuffix(structure.bare_name)
        own = (structure.label,)
        written.append(replace(structure, name=side + name, members=own))
        tasks.append(structure.name)
    written += label_set.parts
    tasks += [part.name for part in label_set.parts]
    for i, (name, color) in enumerate(zip(_FIFTHS, _FIFTH_COLORS, strict=True)):
        written.append(Structure(name, _FIRST_FIFTH + i, (_FIRST_FIFTH + i,), color))
        tasks.append(CALLOSUM)
    taken = [
        (tasks.index(task), tasks.index(task.replace(bare_name(task), part)))
        for task in tasks
        for part, _ in (_LEFT_OVER.get(bare_name(task), ("", "")),)
        if part
    ]
    fifths = range(len(tasks) - len(_FIFTHS), len(tasks))
    whole = LabelSet(tuple(written), label_set.sided, label_set.parenchyma)
    return Division(whole, tuple(tasks), tuple(taken), tuple(fifths))


def undivided(label_set: LabelSet) -> Division:
    """The structures of a model as they are."""
    return Division(label_set, label_set.names)


def mirrored(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks that give the same structures in a mirror image."""
    return tuple(partner_of(task) for task in tasks)
