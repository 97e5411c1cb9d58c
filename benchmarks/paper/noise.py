"""The known-noise experiment's data: synthetic scans whose clean labels are known.

    python benchmarks/paper/noise.py LABEL_MAPS WORK

Writes WORK/noise/LEVEL/train (9 scans, corrupted labels), WORK/noise/LEVEL/kinds (0 right,
1 boundary moved, 2 sporadic error), WORK/noise/clean (what the labels were) and
WORK/noise/validation (6 scans, clean labels).  The scans are the same at every level; only
the labels differ.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from hetseg_bids.files import atomic_path
from hetseg_bids.preprocessing.normalisation import BACKGROUND
from hetseg_bids.training.synthesis.label_noise import (
    CLEAN,
    LabelNoiseConfig,
    add_sporadic_errors_,
    displace,
)
from hetseg_bids.training.synthesis.painting import SynthesisConfig, SyntheticSource
from hetseg_bids.training.volumes import LabelledVolume

LEVELS = {
    "low": LabelNoiseConfig(
        jitter=(0.5, 0.5), sporadic_rate=4, sporadic_radius=(3, 7), missing_rate=0, swap_rate=0.2
    ),
    "medium": LabelNoiseConfig(
        jitter=(0.7, 0.7), sporadic_rate=12, sporadic_radius=(3, 7), missing_rate=0, swap_rate=0.5
    ),
    "high": LabelNoiseConfig(
        jitter=(1.2, 1.2), sporadic_rate=30, sporadic_radius=(3, 7), missing_rate=0, swap_rate=1.0
    ),
}
N_TRAIN, N_VALIDATION = 9, 6
_SEED = 20_2611


def main() -> None:
    """Write the scans and print how much of the labels each level corrupts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("work", type=Path)
    args = parser.parse_args()
    root = args.work / "noise"
    maps = sorted(args.maps.glob("*.nii*"))
    # nobody's anatomy is in both parts
    for i, volume in enumerate(clean_scans(maps[:N_TRAIN], N_TRAIN)):
        save_image(root / "clean" / f"sub-{i:02d}_dseg.nii.gz", volume.labels, volume)
        for number, (level, config) in enumerate(LEVELS.items()):
            rng = np.random.default_rng((_SEED, number, i))
            moved = displace(rng, volume.labels, config)
            weak = moved.clone()
            add_sporadic_errors_(rng, weak, config)
            kinds = torch.where(weak != moved, 2, (weak != volume.labels).int()).to(torch.uint8)
            save(root / level / "train", f"{i:02d}", volume, weak)
            save_image(root / level / "kinds" / f"sub-{i:02d}_kinds.nii.gz", kinds, volume)
            brain = volume.labels > 0
            rates = [float((kinds[brain] == k).float().mean()) for k in (1, 2)]
            print(f"{level} sub-{i:02d}: boundary {rates[0]:.3f}, sporadic {rates[1]:.4f}")
    for i, volume in enumerate(clean_scans(maps[N_TRAIN:], N_VALIDATION), start=N_TRAIN):
        save(root / "validation", f"{i:02d}", volume, volume.labels)


def clean_scans(maps: list[Path], count: int) -> Iterator[LabelledVolume]:
    """Synthetic scans with their true labels, one per map."""
    for i, path in enumerate(maps[:count]):
        source = SyntheticSource([path], SynthesisConfig(labels=CLEAN))
        yield source.draw(np.random.default_rng((_SEED, i)))


def save(folder: Path, name: str, volume: LabelledVolume, labels: torch.Tensor) -> None:
    """One T1w + dseg pair, the T1w as integers with a background of zero."""
    anat = folder / f"sub-{name}" / "anat"
    brain = volume.image != BACKGROUND
    scores = torch.where(brain, (volume.image + 5) * 100, torch.zeros(()))
    save_image(anat / f"sub-{name}_T1w.nii.gz", scores.round().to(torch.int16), volume)
    save_image(anat / f"sub-{name}_dseg.nii.gz", labels, volume)


def save_image(path: Path, voxels: torch.Tensor, volume: LabelledVolume) -> None:
    """A NIfTI image on the grid of a volume."""
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(voxels.numpy(), volume.affine), temporary)


if __name__ == "__main__":
    main()
