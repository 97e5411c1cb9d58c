"""What a model labels: structures, the tasks of its network, and ids that change sides.

A *structure* is one of the labels that a model writes: 28 in `aseg.ASEG`, or those of another
`LabelSet`.  A *task* is one binary output of the network: the structures followed by 3
auxiliary tasks (left hemisphere, right hemisphere, brain parenchyma) that only help training, and
by *parts*: what the rest of FreeSurfer's aseg tells apart within structures and beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

_ABBREVIATED = ("Cc", "Csf", "Wm")
_FLUID = ("ventricle", "ventricles", "csf")
Hemisphere = Literal["L", "R"]


@dataclass(frozen=True)
class Structure:
    """One output label.

    Attributes
    ----------
    name : str
        Machine name, e.g. ``left_thalamus``.
    label : int
        Value written in the dseg image.
    members : tuple of int
        Every id that counts as this structure in a reference segmentation.
    color : tuple of int
        RGB, 0-255, after FreeSurfer's colour table.
    single : bool
        Whether it is one piece in anatomy, so that small pieces elsewhere are errors.

    Examples
    --------
    >>> structure = Structure("left_ventral_dc", 28, (28,), (165, 42, 42))
    >>> structure.title, structure.both_sides, structure.hemisphere
    ('Left ventral DC', 'Ventral DC', 'L')
    """

    name: str
    label: int
    members: tuple[int, ...]
    color: tuple[int, int, int]
    single: bool = False

    @property
    def hemisphere(self) -> Hemisphere | None:
        """The side, None for midline structures."""
        return hemisphere_of(self.name)

    @property
    def fluid(self) -> bool:
        """Whether it is a space with fluid, and no tissue."""
        return self.name.endswith(_FLUID)

    @property
    def title(self) -> str:
        """Name shown to users, e.g. ``Left thalamus``."""
        return _for_people(self.name)

    @property
    def bare_name(self) -> str:
        """Machine name without the side, e.g. ``thalamus``."""
        return bare_name(self.name)

    @property
    def both_sides(self) -> str:
        """Name shown to users for both sides together, e.g. ``Thalamus``."""
        return both_sides(self.name)


def bare_name(name: str) -> str:
    """Machine name of a structure without the side, e.g. ``thalamus``."""
    return name.removeprefix("left_").removeprefix("right_")


def both_sides(name: str) -> str:
    """Name shown to users for both sides of a structure, e.g. ``Thalamus``."""
    return _for_people(bare_name(name))


def hemisphere_of(name: str) -> Hemisphere | None:
    """The side in a machine name; None for a midline structure."""
    return "L" if name.startswith("left_") else "R" if name.startswith("right_") else None


def partner_of(name: str) -> str:
    """Machine name of the same structure on the other side; a midline name stays.

    Examples
    --------
    >>> partner_of("left_thalamus"), partner_of("brainstem")
    ('right_thalamus', 'brainstem')
    """
    other = {"L": "right_", "R": "left_", None: ""}[hemisphere_of(name)]
    return other + bare_name(name) if other else name


def _for_people(name: str) -> str:
    words = name.replace("_", " ").capitalize().replace(" dc", " DC")
    first, *rest = words.split(" ", 1)
    return " ".join([first.upper() if first in _ABBREVIATED else first, *rest])


@dataclass(frozen=True)
class AuxiliaryTask:
    """A task that is trained but not written: `members` as in `Structure`."""

    name: str
    members: tuple[int, ...]


MAX_ASEG_ID = 255


@dataclass(frozen=True)
class LabelSet:
    """What a model labels, in the order of its outputs.

    Attributes
    ----------
    structures : tuple of Structure
    sided : tuple of 2 tuple of int
        Ids of the left and of the right side, in the same order, that belong to no structure.
        They are exchanged when an image is mirrored, and count for the hemisphere tasks.
    parenchyma : tuple of int
        Ids of brain tissue that belong to no structure, such as lesions.
    parts : tuple of Structure
        Finer structures. Labels that lack one say nothing of it, as not all labels have them.

    Examples
    --------
    >>> left = Structure("left_thalamus", 10, (10,), (0, 118, 14))
    >>> right = Structure("right_thalamus", 49, (49,), (0, 118, 14))
    >>> LabelSet((left, right)).task_names
    ('left_thalamus', 'right_thalamus',
     'left_hemisphere', 'right_hemisphere', 'brain_parenchyma')
    """

    structures: tuple[Structure, ...]
    sided: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    parenchyma: tuple[int, ...] = ()
    parts: tuple[Structure, ...] = ()

    @cached_property
    def auxiliary(self) -> tuple[AuxiliaryTask, ...]:
        """The tasks that aren't written."""
        tissue = [s for s in self.structures if not s.fluid]
        return (
            AuxiliaryTask("left_hemisphere", self._of_side("L", self.sided[0])),
            AuxiliaryTask("right_hemisphere", self._of_side("R", self.sided[1])),
            AuxiliaryTask(
                "brain_parenchyma", (*(i for s in tissue for i in s.members), *self.parenchyma)
            ),
        )

    def _of_side(self, side: Hemisphere, more: tuple[int, ...]) -> tuple[int, ...]:
        ids = [i for s in self.structures if s.hemisphere == side for i in s.members]
        return (*ids, *more)

    @property
    def tasks(self) -> tuple[Structure | AuxiliaryTask, ...]:
        """Structures, then auxiliary tasks, then parts."""
        return self.structures + self.auxiliary + self.parts

    @property
    def rows(self) -> tuple[Structure, ...]:
        """Structures, then parts: the order of logits in which the auxiliary tasks are left out."""
        return self.structures + self.parts

    @property
    def names(self) -> tuple[str, ...]:
        """Machine names of the structures."""
        return tuple(s.name for s in self.structures)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Machine names of the tasks."""
        return tuple(t.name for t in self.tasks)

    def membership(self, max_id: int = MAX_ASEG_ID) -> npt.NDArray[np.bool_]:
        """Which tasks each label id belongs to.

        Parameters
        ----------
        max_id : int
            Largest id of the table.

        Returns
        -------
        membership : (max_id + 1, tasks) bool array
            ``membership[labels]`` is the one-hot (multi-hot) target of a label image.

        Examples
        --------
        >>> from hetseg_bids.structures.aseg import ASEG
        >>> table = ASEG.membership()
        >>> table.shape
        (256, 31)
        >>> [name for name, member in zip(ASEG.task_names, table[10], strict=True) if member]
        ['left_thalamus', 'left_hemisphere', 'brain_parenchyma']
        """
        table = np.zeros((max_id + 1, len(self.tasks)), dtype=bool)
        for column, task in enumerate(self.tasks):
            table[list(task.members), column] = True
        return table

    def mirror_permutation(self) -> npt.NDArray[np.int64]:
        """Task order after a left-right reflection.

        Returns
        -------
        permutation : (tasks,) int array
            ``targets[permutation]`` are the targets of the mirrored image.

        Examples
        --------
        >>> from hetseg_bids.structures.aseg import ASEG
        >>> order = ASEG.mirror_permutation()
        >>> ASEG.task_names[0], ASEG.task_names[order[0]]
        ('left_cerebral_white_matter', 'right_cerebral_white_matter')
        """
        index = {name: i for i, name in enumerate(self.task_names)}
        return np.array([index[partner_of(name)] for name in self.task_names], dtype=np.int64)

    def mirror_labels(self) -> npt.NDArray[np.uint8]:
        """Which id each id becomes when an image is mirrored.

        Returns
        -------
        table : (256,) uint8 array
            ``table[labels]`` are the labels of the mirrored image; ids of the midline stay.

        Examples
        --------
        >>> from hetseg_bids.structures.aseg import ASEG
        >>> ASEG.mirror_labels()[[10, 49, 16]]  # thalami and brainstem
        array([49, 10, 16], dtype=uint8)
        """
        table = np.arange(MAX_ASEG_ID + 1, dtype=np.uint8)
        members = {s.name: s.members for s in self.structures}
        sides = [(ids, members[partner_of(n)]) for n, ids in members.items() if partner_of(n) != n]
        for left, right in (*sides, self.sided):
            for here, there in zip(left, right, strict=True):
                table[here], table[there] = there, here
        return table

    def color_table(self) -> npt.NDArray[np.uint8]:
        """Colours for a label image.

        Returns
        -------
        table : (256, 4) uint8 array
            RGBA of each `Structure.label`; all other values are transparent.

        Examples
        --------
        >>> from hetseg_bids.structures.aseg import ASEG
        >>> ASEG.color_table()[[0, 10]]  # background, left thalamus
        array([[  0,   0,   0,   0],
               [  0, 118,  14, 255]], dtype=uint8)
        """
        table = np.zeros((MAX_ASEG_ID + 1, 4), dtype=np.uint8)
        for structure in self.structures:
            table[structure.label] = (*structure.color, 255)
        return table

    def collapse(self, labels: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Reduce a reference segmentation to the values of this label set.

        Parameters
        ----------
        labels : integer array, any shape
            For `ASEG`, aseg (or aparc+aseg reduced to aseg) ids.

        Returns
        -------
        collapsed : uint8 array, same shape
            `Structure.label` where the id is a member of a structure, else 0.

        Examples
        --------
        >>> from hetseg_bids.structures.aseg import ASEG
        >>> ASEG.collapse(np.array([4, 5, 24]))  # ventricle, its inferior horn, CSF
        array([4, 4, 0], dtype=uint8)
        """
        table = np.zeros(MAX_ASEG_ID + 1, dtype=np.uint8)
        for structure in self.structures:
            table[list(structure.members)] = structure.label
        inside = (labels >= 0) & (labels <= MAX_ASEG_ID)
        return table[np.where(inside, labels, 0)]
