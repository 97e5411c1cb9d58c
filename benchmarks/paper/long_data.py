"""The data of the long runs, beside those that prepare.py made.

    python benchmarks/paper/long_data.py WORK [--freesurfer TRAIN [TRAIN ...] --validate FOLDER]

WORK/noisy has the scans of WORK/scans: labels that carry the known noise (`LEVEL` of noise.py) in
train, those without it in clean. With --freesurfer, WORK/freesurfer has the T1w + dseg pairs of
those folders, skull-stripped, and the pairs to validate on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from noise import LEVELS, save
from prepare import save_as_before

from hetseg_bids.training.paired import Pair, find_pairs, find_scans, read_pair
from hetseg_bids.training.synthesis.label_noise import weaken

LEVEL = "high"  # twice medium: 17.7 % of the brain's voxels have a moved border
_SEED = 36


def main() -> None:
    """Write what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--freesurfer", nargs="+", type=Path, default=())
    parser.add_argument("--validate", type=Path)
    args = parser.parse_args()
    noisy = args.work / "noisy"
    for number, pair in enumerate(find_pairs(args.work / "scans" / "train")):
        changed = corrupt(pair, noisy / "train", np.random.default_rng((_SEED, number)))
        print(f"{pair.t1w.name}: {changed:.3f} of the labelled voxels have another label")
    for part, source in (("clean", "train"), ("validation", "validation")):
        (noisy / part).unlink(missing_ok=True)
        (noisy / part).symlink_to((args.work / "scans" / source).resolve())
    for folder in args.freesurfer:
        strip(folder, args.work / "freesurfer" / "train")
    if args.validate:
        strip(args.validate, args.work / "freesurfer" / "validation")


def corrupt(pair: Pair, folder: Path, rng: np.random.Generator) -> float:
    """Link a scan, write its labels with noise; returns the share of labels that changed."""
    name = pair.t1w.name.removesuffix("_T1w.nii.gz")
    anat = folder / name / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    (anat / pair.t1w.name).unlink(missing_ok=True)
    (anat / pair.t1w.name).symlink_to(pair.t1w.resolve())
    image = nib.load(pair.dseg)
    ras = nib.as_closest_canonical(image)
    labels = torch.from_numpy(np.ascontiguousarray(ras.dataobj, np.uint8))
    weak = weaken(rng, labels, LEVELS[LEVEL])
    save_as_before(weak.numpy(), ras.affine, image.affine, anat / pair.dseg.name)
    return float((weak != labels)[labels > 0].float().mean())


def strip(folder: Path, out: Path) -> None:
    """Write the pairs of a folder that aren't there yet, brains only, at 1 mm.

    Where a scan has labels before and after manual edits, those before count.
    """
    for t1w in find_scans(folder):
        name = t1w.name.removesuffix("_T1w.nii.gz").removeprefix("sub-")
        dseg = t1w.with_name(f"sub-{name}_dseg.nii.gz")
        if dseg.exists() and not (out / f"sub-{name}").exists():
            volume = read_pair(Pair(t1w, dseg), "auto")
            save(out, name, volume, volume.labels)
            print(f"{out.parent.name}/{out.name}: sub-{name}")


if __name__ == "__main__":
    main()
