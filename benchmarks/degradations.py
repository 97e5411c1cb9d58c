"""Ways to spoil a scan whose labels are known, for the robustness table.

Each takes a `Scan` in RAS order with voxels of about 1 mm, and gives what a scanner, a person or a
tool might have made of it; labels follow where the anatomy moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.conform import nearest, resample
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.training.synthesis.random_fields import smooth_field

_SEED = 20_2611
_FWHM = 2.3548  # of a Gaussian, in standard deviations


@dataclass(frozen=True)
class Scan:
    """A scan with label images that share its grid.

    Attributes
    ----------
    image : (X, Y, Z) float32 array
        RAS order.
    labels : tuple of (X, Y, Z) uint8 arrays
        aseg ids.
    affine : (4, 4) float array
    """

    image: np.ndarray
    labels: tuple[np.ndarray, ...]
    affine: np.ndarray

    @classmethod
    def read(cls, t1w: Path, *labels: Path) -> Scan:
        """Read files on one grid."""
        image = nib.as_closest_canonical(nib.load(t1w))
        ids = [np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj) for path in labels]
        kept = tuple(np.where((i >= 0) & (i < 256), i, 0).astype(np.uint8) for i in ids)
        return cls(np.asarray(image.dataobj, dtype=np.float32), kept, image.affine)

    @property
    def grid(self) -> Grid:
        """Grid of image and labels."""
        return Grid(self.image.shape, self.affine)

    @property
    def bright(self) -> float:
        """About the intensity of white matter."""
        return float(np.percentile(self.image[self.labels[0] > 0], 95))

    def median(self, *ids: int) -> float:
        """Median intensity of some structures."""
        return float(np.median(self.image[np.isin(self.labels[0], ids)]))

    def repainted(self, image: np.ndarray) -> Scan:
        """The scan with another image where there was signal; zeros stay."""
        return replace(self, image=np.where(self.image == 0, 0, image))


def regrid(scan: Scan, image: np.ndarray, target: Grid) -> Scan:
    """Image (trilinear) and labels (nearest) on another grid."""
    moved = resample(torch.from_numpy(image)[None], scan.grid, target)[0].numpy()
    return Scan(moved, tuple(nearest(i, scan.grid, target) for i in scan.labels), target.affine)


def slices(thickness: float) -> Callable[[Scan], Scan]:
    """Axial slices of another thickness, mm."""

    def degrade(scan: Scan) -> Scan:
        zoom = float(nib.affines.voxel_sizes(scan.affine)[2])
        sigma = np.sqrt(max(0.0, thickness**2 - zoom**2)) / _FWHM / zoom
        blurred = ndimage.gaussian_filter1d(scan.image, sigma, axis=2) if sigma else scan.image
        affine = scan.affine.copy()
        affine[:3, 2] *= thickness / zoom
        shape = (*scan.image.shape[:2], int(scan.image.shape[2] * zoom / thickness))
        return regrid(scan, blurred, Grid(shape, affine))

    return degrade


def noise(share: float) -> Callable[[Scan], Scan]:
    """Rician noise of a share of white matter's intensity, where there is signal."""

    def degrade(scan: Scan) -> Scan:
        rng = np.random.default_rng(_SEED)
        real, imaginary = rng.normal(0, share * scan.bright, (2, *scan.image.shape))
        noisy = np.hypot(scan.image + real, imaginary).astype(np.float32)
        return scan.repainted(noisy)

    return degrade


def bias(strength: float) -> Callable[[Scan], Scan]:
    """A smooth gain; strength is the standard deviation of its logarithm."""

    def degrade(scan: Scan) -> Scan:
        rng = np.random.default_rng(_SEED)
        field = smooth_field(rng, scan.image.shape, 60.0)[0].numpy()
        return replace(scan, image=scan.image * np.exp(strength / field.std() * field))

    return degrade


def motion(mm: float, seed: int = _SEED) -> Callable[[Scan], Scan]:
    """Nods of the head while k-space was filled, three places and three times.

    Places are counted from the one that the middle of k-space saw: there the image shows the
    head, and there the reference lies.
    """

    def degrade(scan: Scan) -> Scan:
        rng = np.random.default_rng(seed)
        lines = scan.image.shape[1]
        order = np.fft.fftshift(np.arange(lines))  # the middle of k-space in the middle
        starts = np.sort(rng.choice(np.arange(lines // 8, 7 * lines // 8), 3, replace=False))
        places = np.concatenate((np.zeros((1, 2)), rng.normal(0, mm, (3, 2))))
        middle = places[np.searchsorted(starts, lines // 2, side="right")]
        spectrum = np.empty(scan.image.shape, np.complex128)
        for start, stop, place in zip([0, *starts], [*starts, lines], places, strict=True):
            seen = np.fft.fftn(nod(scan.image, *(place - middle)))
            spectrum[:, order[start:stop]] = seen[:, order[start:stop]]
        image = np.abs(np.fft.ifftn(spectrum)).astype(np.float32)
        return scan.repainted(image)

    return degrade


def nod(image: np.ndarray, degrees: float, mm: float) -> np.ndarray:
    """Turn about the left-right axis and shift along the body."""
    turned = ndimage.rotate(image, degrees, axes=(1, 2), reshape=False, order=1)
    return ndimage.shift(turned, (0, 0, mm), order=1)


def pale(share: float) -> Callable[[Scan], Scan]:
    """Deep grey matter that lost a share of its distance to white matter."""

    def degrade(scan: Scan) -> Scan:
        deep = np.isin(scan.labels[0], (10, 49, 12, 51, 13, 52, 28, 60))
        white = scan.median(2, 41)
        weight = share * ndimage.gaussian_filter(deep.astype(np.float32), 0.7)
        return replace(scan, image=scan.image + weight * (white - scan.image))

    return degrade


def weak(share: float) -> Callable[[Scan], Scan]:
    """All grey matter a share of its distance to white matter brighter, as in children."""

    def degrade(scan: Scan) -> Scan:
        grey, white = scan.median(3, 42), scan.median(2, 41)
        brighter = white - (1 - share) * (white - grey)
        image = np.interp(scan.image, (0, grey, white), (0, brighter, white))
        return replace(scan, image=np.maximum(image, scan.image).astype(np.float32))

    return degrade


def ringing(kept: float) -> Callable[[Scan], Scan]:
    """Truncation artefacts: only the middle share of k-space along two axes was acquired."""

    def degrade(scan: Scan) -> Scan:
        spectrum = np.fft.fftn(scan.image)
        for axis in (1, 2):
            size = scan.image.shape[axis]
            outside = np.abs(np.fft.fftfreq(size)) > kept / 2
            spectrum[(slice(None),) * axis + (outside,)] = 0
        image = np.abs(np.fft.ifftn(spectrum)).astype(np.float32)
        return scan.repainted(image)

    return degrade


def mirrored(scan: Scan) -> Scan:
    """Left and right exchanged."""
    swap = ASEG.mirror_labels()
    return replace(
        scan, image=scan.image[::-1].copy(), labels=tuple(swap[i[::-1]] for i in scan.labels)
    )


def turned(degrees: float) -> Callable[[Scan], Scan]:
    """A head that looks to the side."""

    def degrade(scan: Scan) -> Scan:
        angle = np.deg2rad(degrees)
        turn = np.eye(4)
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        middle = scan.affine[:3, :3] @ ((np.array(scan.image.shape) - 1) / 2) + scan.affine[:3, 3]
        there, back = np.eye(4), np.eye(4)
        there[:3, 3], back[:3, 3] = middle, -middle
        seen = regrid(scan, scan.image, Grid(scan.image.shape, there @ turn @ back @ scan.affine))
        return replace(seen, affine=scan.affine)

    return degrade


def cropped(mm: float) -> Callable[[Scan], Scan]:
    """The lowest part of the brain is outside the field of view."""

    def degrade(scan: Scan) -> Scan:
        zoom = float(nib.affines.voxel_sizes(scan.affine)[2])
        first = int(np.argwhere((scan.labels[0] > 0).any(axis=(0, 1)))[0, 0] + mm / zoom)
        affine = scan.affine.copy()
        affine[:3, 3] += affine[:3, 2] * first
        labels = tuple(i[:, :, first:] for i in scan.labels)
        return Scan(scan.image[:, :, first:].copy(), labels, affine)

    return degrade


def defaced(scan: Scan) -> Scan:
    """A face that was cut off with the tips of the frontal lobes."""
    places = np.argwhere(scan.labels[0] > 0)
    front, middle = places[:, 1].max() - 15, places[:, 2].mean()
    image = scan.image.copy()
    image[:, front:, : int(middle)] = 0
    return replace(scan, image=image)


def bitten(scan: Scan) -> Scan:
    """A strip that took a piece of the left temporal lobe along."""
    places = np.argwhere(scan.labels[0] == 17)  # left hippocampus
    centre = places.mean(axis=0) - (30, 0, 0)
    axes = np.ogrid[tuple(slice(0, n) for n in scan.image.shape)]
    distance = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
    return replace(scan, image=np.where(distance < 20**2, 0, scan.image).astype(np.float32))


DEGRADATIONS: dict[str, Callable[[Scan], Scan]] = {
    "slices0p8": slices(0.8),
    "slices1p5": slices(1.5),
    "slices2": slices(2.0),
    "slices3": slices(3.0),
    "slices5": slices(5.0),
    "noise5": noise(0.05),
    "noise10": noise(0.10),
    "noise20": noise(0.20),
    "bias20": bias(0.2),
    "bias40": bias(0.4),
    "motion1": motion(1.0),
    "motion3": motion(3.0),
    "pale80": pale(0.8),
    "weak40": weak(0.4),
    "ringing60": ringing(0.6),
    "mirrored": mirrored,
    "turned30": turned(30.0),
    "cropped20": cropped(20.0),
    "cropped40": cropped(40.0),
    "defaced": defaced,
    "bitten": bitten,
}
