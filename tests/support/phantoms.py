"""Heads made by code: labels, T1w images, and the grids they lie on."""

from __future__ import annotations

from functools import cache

import nibabel as nib
import numpy as np


def phantom_labels(shape: tuple[int, int, int] = (150, 180, 140)) -> np.ndarray:
    """A head of ellipsoids in RAS, 1 mm, with aseg ids; the left putamen is the larger one."""
    return _phantom_labels(shape).copy()


@cache  # a second each
def _phantom_labels(shape: tuple[int, int, int]) -> np.ndarray:
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")

    def ball(centre: tuple[int, int, int], radii: tuple[int, int, int]) -> np.ndarray:
        terms = ((g - c) / r for g, c, r in zip(grid, centre, radii, strict=True))
        return sum(t * t for t in terms) <= 1

    x, y, z = (n // 2 for n in shape)
    labels = np.zeros(shape, np.uint8)
    left = grid[0] < x
    labels[ball((x, y, z), (72, 86, 66))] = 211  # skin
    labels[ball((x, y, z), (66, 80, 60))] = 24
    brain = ball((x, y, z), (62, 76, 56))
    labels[brain] = np.where(left, 3, 42)[brain]
    white = ball((x, y, z), (56, 70, 50))
    labels[white] = np.where(left, 2, 41)[white]
    for side, sign in ((0, -1), (1, 1)):
        size = 12 if side == 0 else 8
        labels[ball((x + sign * 28, y + 5, z), (size, size + 8, size))] = (12, 51)[side]
        labels[ball((x + sign * 12, y - 5, z), (8, 12, 8))] = (10, 49)[side]
        labels[ball((x + sign * 10, y, z + 16), (5, 24, 6))] = (4, 43)[side]
        labels[ball((x + sign * 26, y - 45, z - 32), (20, 18, 12))] = (8, 47)[side]
    labels[ball((x, y - 22, z - 28), (9, 9, 20))] = 16
    return labels


def phantom_t1w(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """A plain T1w of the phantom: tissue values and a little noise, whole head."""
    values = np.zeros(256, np.float32)
    values[[2, 41]] = 1000
    values[[3, 42, 8, 47]] = 650
    values[[4, 43, 24]] = 280
    values[[12, 51]] = 790
    values[[10, 49]] = 840
    values[16] = 900
    values[211] = 800
    noise = np.random.default_rng(seed).normal(0, 15, labels.shape)
    return np.where(labels > 0, values[labels] + noise, 0).clip(0).astype(np.float32)


def skull_phantom(shape: tuple[int, int, int] = (170, 200, 170)) -> tuple[np.ndarray, np.ndarray]:
    """A T1w-like phantom with a dark skull in a bright scalp, and what is inside the skull."""
    labels = phantom_labels(shape)
    inside = (labels > 0) & (labels != 211)
    x, y, z = np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij")
    scalp = ((x / 78) ** 2 + (y / 93) ** 2 + (z / 73) ** 2 <= 1) & ~inside & (labels == 0)
    values = np.zeros(256, np.float32)
    values[[2, 41]], values[[3, 42, 8, 47]] = 1000, 650
    values[[4, 43, 24]], values[[12, 51, 10, 49]], values[16], values[255] = 280, 800, 900, 1000
    values[211] = 150  # bone here
    image = values[labels]
    image[scalp] = 850
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return np.abs(image + noise).astype(np.float32), inside


def three_quarters(volume: np.ndarray) -> np.ndarray:
    """The same volume at three quarters of the size along each axis: less than half the time."""
    return volume[np.ix_(*(np.arange(0, n, 4 / 3).astype(int) for n in volume.shape))]


def stripped_phantom() -> np.ndarray:
    labels = phantom_labels()
    image = phantom_t1w(labels)
    image[(labels == 0) | (labels == 211)] = 0
    return image


def small_brain() -> np.ndarray:
    """The phantom at 2 mm, without skin and CSF."""
    labels = phantom_labels()[::2, ::2, ::2]
    return np.where((labels == 211) | (labels == 24), 0, labels).astype(np.uint8)


def centred_affine(shape: tuple[int, ...], zoom: float = 1.0) -> np.ndarray:
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = -zoom * (np.array(shape[:3]) - 1) / 2
    return affine


def reorient(image: nib.Nifti1Image, code: str) -> nib.Nifti1Image:
    """The same image stored in another axis order."""
    here = nib.io_orientation(image.affine)
    there = nib.orientations.axcodes2ornt(code)
    return image.as_reoriented(nib.orientations.ornt_transform(here, there))
