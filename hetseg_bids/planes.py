"""The three viewing planes and how a RAS volume is sliced along each.

Training and inference must slice alike, so the axis order lives here alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Plane:
    """Axes of a RAS volume (0 = left-right, 1 = posterior-anterior, 2 = inferior-superior).

    Attributes
    ----------
    name : str
    axes : tuple of 3 int
        Axis across slices, then the axes of the rows and of the columns.
    """

    name: str
    axes: tuple[int, int, int]


AXIAL = Plane("axial", (2, 1, 0))
CORONAL = Plane("coronal", (1, 0, 2))
SAGITTAL = Plane("sagittal", (0, 1, 2))

PLANES: dict[str, Plane] = {plane.name: plane for plane in (AXIAL, CORONAL, SAGITTAL)}


def are_planes(names: Sequence[str]) -> bool:
    """Whether these name planes, one or more and each once.

    Examples
    --------
    >>> [are_planes(names) for names in (["axial"], ["axial", "axial"], ["oblique"], [])]
    [True, False, False, False]
    """
    return 0 < len(names) == len({*names} & {*PLANES})


def display_slice(
    volume: npt.NDArray[np.generic], plane: Plane, place: int
) -> npt.NDArray[np.generic]:
    """A slice of a RAS volume in radiological view.

    Superior or anterior is up, the left side of the head is on the right of the picture.

    Parameters
    ----------
    volume : (X, Y, Z) array
    plane : Plane
    place : int
        Number of the slice.

    Returns
    -------
    picture : (rows, columns) array

    Examples
    --------
    >>> volume = np.zeros((4, 5, 6))
    >>> volume[0, 4, 3] = 1  # left, anterior
    >>> picture = display_slice(volume, AXIAL, 3)
    >>> picture.shape, picture[0]
    ((5, 4), array([0., 0., 0., 1.]))
    """
    # a view: take() would copy all of a volume whose x runs fastest
    return np.moveaxis(volume, plane.axes[0], 0)[place].T[::-1, ::-1]
