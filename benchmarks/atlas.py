"""Where structures lie in brains: the atlas that implausible labels are found by.

    python benchmarks/atlas.py ../shared/data/synthseg_maps

Writes hetseg_bids/data/atlas.npz from SynthSeg's 20 label maps (Billot et al. 2023, Apache-2.0),
and says what of each map lies how far beyond where the 19 others and their mirror images have it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.structures.alignment import centroids, template_affine
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.structures.atlas import (
    ATLAS,
    FARTHEST_MM,
    SHAPE,
    SIZES,
    STEPS_PER_MM,
    VENTRICLE,
    WHOLE,
    ZOOM,
    stored,
    to_cells,
)
from hetseg_bids.training.synthesis.label_maps import read_label_map

PRESENT = 20  # percent of a cell
CHOROID_PLEXUS = {31: 4, 63: 43}  # inside the ventricles, and a network may label it so
MIRRORED = ASEG.mirror_permutation()[: len(ASEG.structures)]


def main() -> None:
    """Read, align, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    args = parser.parse_args()
    found = [read(path) for path in sorted(args.maps.glob("*_dseg.nii.gz"))]
    shares = np.stack([shares_of(labels, grid) for labels, grid in found])
    sizes = np.stack([sizes_of(labels) for labels, _ in found])
    report(shares)
    write(shares, sizes)


def read(path: Path) -> tuple[npt.NDArray[np.uint8], Grid]:
    """One map with the structures' label values."""
    labels = read_label_map(path)
    for source, target in CHOROID_PLEXUS.items():
        labels[labels == source] = target
    affine = np.asarray(nib.as_closest_canonical(nib.load(path)).affine)
    return ASEG.collapse(labels), Grid(labels.shape, affine)


def sizes_of(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Volume of each structure relative to all: (S,)."""
    counts = np.array([np.count_nonzero(labels == s.label) for s in ASEG.structures], float)
    return counts / counts.sum()


def shares_of(labels: npt.NDArray[np.uint8], grid: Grid) -> npt.NDArray[np.uint8]:
    """Percent of each cell that each structure fills: (S, X, Y, Z)."""
    affine = template_affine(centroids(labels, grid, ASEG.structures))
    if affine is None:
        raise ValueError("too few structures")
    mapping = to_cells() @ affine @ grid.affine
    voxels_a_cell = 1 / abs(np.linalg.det(mapping[:3, :3]))
    out = np.zeros((len(ASEG.structures), *SHAPE), np.uint8)
    for share, structure in zip(out, ASEG.structures, strict=True):
        cells = np.rint(nib.affines.apply_affine(mapping, np.argwhere(labels == structure.label)))
        cells = cells.astype(int)[((cells >= 0) & (cells < SHAPE)).all(axis=1)]
        counts = np.bincount(np.ravel_multi_index(cells.T, SHAPE), minlength=share.size)
        share[:] = np.minimum(np.rint(WHOLE * counts / voxels_a_cell), WHOLE).reshape(SHAPE)
    return out


def with_mirror_images(shares: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The maps and their mirror images: (2 N, S, X, Y, Z)."""
    return np.concatenate([shares, shares[:, MIRRORED, ::-1]])


def beyond(present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Distance to the nearest cell where something is present, mm."""
    distance = ndimage.distance_transform_edt(~present) * ZOOM
    return np.minimum(distance, FARTHEST_MM)


def report(shares: npt.NDArray[np.uint8]) -> None:
    """What lies beyond the other maps."""
    limits = (3, 4.5, 6, 9)
    print("structure", *(f"ml beyond {mm} mm" for mm in limits), sep="\t")
    present = with_mirror_images(shares) >= PRESENT
    for i, structure in enumerate(ASEG.structures):
        most = np.zeros(len(limits))
        for number, share in enumerate(shares[:, i]):
            others = np.arange(len(present)) % len(shares) != number
            distance = beyond(present[others, i].any(axis=0))
            far = [share[distance > mm].sum() / WHOLE * ZOOM**3 / 1000 for mm in limits]
            most = np.maximum(most, far)
        print(structure.name, *(f"{ml:.2f}" for ml in most), sep="\t")


def write(shares: npt.NDArray[np.uint8], sizes: npt.NDArray[np.float64]) -> None:
    """Write the file; equal maps give equal bytes."""
    both = with_mirror_images(shares)[:, stored(ASEG)]
    left = next(i for i, s in enumerate(ASEG.structures) if s.name == f"left_{VENTRICLE}")
    largest = np.maximum(sizes.max(axis=0), sizes.max(axis=0)[MIRRORED])
    smallest = np.minimum(sizes.min(axis=0), sizes.min(axis=0)[MIRRORED])
    ventricles = np.concatenate([sizes[:, left], sizes[:, MIRRORED[left]]])
    step = np.ceil(ventricles / largest[left] * SIZES).clip(max=SIZES)
    there = both[:, stored(ASEG).index(left)] >= PRESENT
    content = {
        "share": np.rint(both.mean(axis=0)).astype(np.uint8),
        "beyond": np.stack(
            [np.rint(beyond(p) * STEPS_PER_MM) for p in (both >= PRESENT).any(axis=0)]
        ).astype(np.uint8),
        "needs": np.where(there, step[:, None, None, None], SIZES + 1).min(axis=0).astype(np.uint8),
        "size_range": np.stack([smallest, largest], axis=1),
    }
    digest = hashlib.sha256(b"".join(array.tobytes() for array in content.values()))
    file = io.BytesIO()
    version = np.array(digest.hexdigest()[:12])
    np.savez_compressed(file, **content, names=np.array(ASEG.names), version=version)
    ATLAS.write_bytes(file.getvalue())
    print(f"{ATLAS}: {len(file.getvalue()) / 1000:.0f} kB, version {digest.hexdigest()[:12]}")


if __name__ == "__main__":
    main()
