"""What hetseg says of brains with lesions: expected and true Dice, q and verdict.

    python benchmarks/lesions.py OUT [--views axial] [--only fluid30] [--masks]

Lesions are put into nilearn's MNI152 T1w; the reference is the segmentation of the scan without
them, and holds no structure in the lesion. Rows without the atlas (`plausibility`) and with it.
Writes OUT/lesions.tsv: a row for each case and structure whose Dice fell or whose expected Dice
changed by 0.02 or more.

With --masks, instead, how far volumes outside the lesion change, without and with its mask given
(`hetseg --lesion-mask`): OUT/masks.tsv, two rows for each lesion.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import ndimage

from hetseg_bids.dataset.demo import write_demo_dataset
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.pipeline import PreparedImage, prepare_image
from hetseg_bids.quality.verdict import judge
from hetseg_bids.segmentation.inference import Logits, predict
from hetseg_bids.segmentation.labels import Segmentation, segment
from hetseg_bids.segmentation.lesioned import GivenLesion
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.plausibility import doubt_implausible_
from hetseg_bids.structures.aseg import ASEG

NOISE = 0.02  # of white matter's intensity
LEAST_CHANGE = 0.02
Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lesion:
    """Balls (centre in mm, ml) of one tissue's intensity, times a factor."""

    balls: tuple[tuple[tuple[float, float, float], float], ...]
    tissue: str
    factor: float = 1.0


LESIONS = {
    "fluid 30 ml, left white matter": Lesion((((-30, -25, 28), 30),), "fluid"),
    "fluid 30 ml, left frontal": Lesion((((-26, 30, 18), 30),), "fluid"),
    "fluid 10 ml, left white matter": Lesion((((-28, -40, 28), 10),), "fluid"),
    "fluid 20 ml on both sides": Lesion((((-28, -25, 30), 20), ((28, -25, 30), 20)), "fluid"),
    "fluid 60 ml, open to the ventricle": Lesion((((28, 42, 12), 60),), "fluid"),
    "fluid 8 ml, right putamen": Lesion((((26, 2, 0), 8),), "fluid"),
    "fluid 5 ml, left thalamus": Lesion((((-13, -18, 8), 5),), "fluid"),
    "fluid 8 ml, left cerebellum": Lesion((((-24, -62, -38), 8),), "fluid"),
    "grey 15 ml, right white matter": Lesion((((28, -30, 30), 15),), "grey"),
    "dark 10 ml, right cortex": Lesion((((45, -50, 40), 10),), "fluid", 0.4),
    "bright 15 ml, right white matter": Lesion((((28, 20, 20), 15),), "white", 1.4),
    "cut out 60 ml, right frontal": Lesion((((28, 42, 12), 60),), "nothing"),
}
WIDENED_MM = (6.0, 9.0)
TISSUES = {
    "fluid": "lateral_ventricle",
    "white": "cerebral_white_matter",
    "grey": "cerebral_cortex",
}


def main() -> None:
    """Segment every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--views", nargs="+", default=list(PLANES), choices=list(PLANES))
    parser.add_argument("--no-mirror", action="store_true")
    parser.add_argument("--only", nargs="+", default=[""], help="starts of cases' names")
    parser.add_argument("--masks", action="store_true", help="give the lesions' masks")
    args = parser.parse_args()
    model = load_model("label-flip", torch.device("cpu"))
    t1w = next(write_demo_dataset(args.out / "demo").rglob("*_T1w.nii.gz"))

    def predicted(path: Path, mask: Path | None = None) -> tuple[PreparedImage, Logits]:
        return run(path, model, args.views, mirror=not args.no_mirror, mask=mask)

    prepared, logits = predicted(t1w)
    clean = segment(logits, prepared.working, prepared.native)
    labels = np.asarray(clean.full(clean.dseg))
    image = nib.load(t1w)
    data = np.asarray(image.dataobj, np.float32)
    tables = []
    if not args.masks:
        tables = [summary("as it is", prepared, logits, labels, np.zeros(labels.shape, bool))]
    for name, changed, lesion, reference in cases(data, image.affine, labels, tuple(args.only)):
        path = args.out / f"{name.replace(' ', '-').replace(',', '')}_T1w.nii.gz"
        nib.save(nib.Nifti1Image(changed, image.affine), path)
        if not args.masks:
            tables.append(summary(name, *predicted(path), reference, lesion))
        elif lesion.any():
            mask = path.with_name(path.name.replace("_T1w", "_label-lesion_mask"))
            nib.save(nib.Nifti1Image(lesion.astype(np.uint8), image.affine), mask)
            for given in (None, mask):
                tables.append(elsewhere(name, *predicted(path, given), labels, lesion))
                print(tables[-1].to_string(index=False), flush=True)
    table = pd.concat(tables)
    if args.masks:
        table.to_csv(args.out / "masks.tsv", sep="\t", index=False, float_format="%.4f")
        return
    table = table[[name for name in table if "verdict" not in name] + ["verdict before", "verdict"]]
    table.to_csv(args.out / "lesions.tsv", sep="\t", index=False, float_format="%.3f")
    print(table.to_string(index=False))


def run(
    path: Path, model: Model, views: list[str], *, mirror: bool, mask: Path | None = None
) -> tuple[PreparedImage, Logits]:
    """The network's answer."""
    prepared = prepare_image(path, "skip", lesion_path=mask)
    return prepared, predict(model, prepared.image, prepared.mask, views=views, mirror=mirror)


def cases(
    data: Volume,
    affine: npt.NDArray[np.float64],
    labels: npt.NDArray[np.uint8],
    only: tuple[str, ...],
) -> Iterator[tuple[str, Volume, Mask, npt.NDArray[np.uint8]]]:
    """Name, image, lesion and reference labels of each case."""
    for name, lesion in LESIONS.items():
        if not name.startswith(only):
            continue
        inside = np.any([ball(data.shape, affine, *b) for b in lesion.balls], axis=0) & (data > 0)
        yield name, put(data, labels, inside, lesion), inside, np.where(inside, 0, labels)
    for mm in WIDENED_MM:
        name = f"ventricles widened by {mm:.0f} mm"
        if not name.startswith(only):
            continue
        shift = widening(labels, mm)
        wide = ndimage.map_coordinates(data, shift, order=1)
        reference = ndimage.map_coordinates(labels, shift, order=0)
        yield name, np.where(data > 0, wide, 0), np.zeros(data.shape, bool), reference


def ball(
    shape: tuple[int, ...],
    affine: npt.NDArray[np.float64],
    centre: tuple[float, float, float],
    ml: float,
) -> Mask:
    """Voxels of a ball."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = nib.affines.apply_affine(affine, places)
    radius = (ml * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    return np.asarray(((mm - centre) ** 2).sum(axis=-1) <= radius**2)


def put(data: Volume, labels: npt.NDArray[np.uint8], inside: Mask, lesion: Lesion) -> Volume:
    """The image with a lesion."""
    if lesion.tissue == "nothing":
        return np.where(inside, 0, data).astype(np.float32)
    level = lesion.factor * intensity(data, labels, lesion.tissue)
    spread = NOISE * intensity(data, labels, "white")
    noise = np.random.default_rng(0).normal(0, spread, data.shape)
    return np.where(inside, np.maximum(level + noise, 1e-3), data).astype(np.float32)


def intensity(data: Volume, labels: npt.NDArray[np.uint8], tissue: str) -> float:
    """Median of a tissue."""
    ids = [s.label for s in ASEG.structures if s.bare_name == TISSUES[tissue]]
    return float(np.median(data[np.isin(labels, ids)]))


def widening(labels: npt.NDArray[np.uint8], mm: float) -> npt.NDArray[np.float64]:
    """From where each voxel comes when the ventricles' walls move outwards, fading over 40 mm."""
    ids = [s.label for s in ASEG.structures if s.bare_name == "lateral_ventricle"]
    inside = np.isin(labels, ids)
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    distance = ndimage.gaussian_filter(distance, 1.5)
    outward = np.stack(np.gradient(distance))
    outward /= np.maximum(np.linalg.norm(outward, axis=0), 1e-3)
    outward = np.stack([ndimage.gaussian_filter(axis, 1.5) for axis in outward])
    fading = np.where(distance < 0, 1 + distance / 8, 1 - distance / 40).clip(0, 1)
    places = np.stack(np.meshgrid(*map(np.arange, labels.shape), indexing="ij"))
    return np.asarray(places - outward * mm * fading)


def summary(
    name: str,
    prepared: PreparedImage,
    logits: Logits,
    reference: npt.NDArray[np.uint8],
    lesion: Mask,
) -> pd.DataFrame:
    """Rows of one case."""
    before = segment(logits, prepared.working, prepared.native)
    plain = measure(before)
    found = doubt_implausible_(logits, prepared.working)
    after = segment(logits, prepared.working, prepared.native)
    doubted = measure(after, surplus_mm3=found.surplus_mm3)
    rows = []
    for i, structure in enumerate(ASEG.structures):
        true = dice(after, reference, structure.label)
        expected = [float(t["expected_dice"][i]) for t in (plain, doubted)]
        wrong = lesion[after.box] & (after.dseg == structure.label)
        if max(expected[0] - true, abs(expected[1] - expected[0])) < LEAST_CHANGE:
            continue
        rows.append(
            {
                "case": name,
                "structure": structure.name,
                "ml in lesion": wrong.sum() * after.grid.voxel_volume / 1000,
                "dice": true,
                "expected before": expected[0],
                "expected": expected[1],
                "q in lesion before": median_flip_probability(before, i, wrong),
                "q in lesion": median_flip_probability(after, i, wrong),
            }
        )
    table = pd.DataFrame(rows or [{"case": name}])
    table["verdict before"] = judge(plain).level
    verdict = judge(doubted, plausibility=found)
    table["verdict"] = f"{verdict.level}: {'; '.join(verdict.reasons)}"
    return table


def elsewhere(
    name: str,
    prepared: PreparedImage,
    logits: Logits,
    labels: npt.NDArray[np.uint8],
    lesion: Mask,
) -> pd.DataFrame:
    """How far volumes outside a lesion differ from those of the scan without it."""
    given = prepared.lesion
    found = doubt_implausible_(logits, prepared.working, given)
    result = segment(
        logits, prepared.working, prepared.native, lesion=given, label_lesion=given is not None
    )
    ours = np.asarray(result.full(result.dseg))
    before, after = (np.bincount(dseg[~lesion], minlength=256) for dseg in (labels, ours))
    left = np.argwhere(lesion)[:, 0].mean() < labels.shape[0] / 2  # RAS
    row: dict[str, object] = {"case": name, "mask": "no" if given is None else "given"}
    sides = {"other": "R" if left else "L", "same": "L" if left else "R"}
    for side, letter in sides.items():
        group = [s for s in ASEG.structures if s.hemisphere == letter]
        change = pd.Series({s.name: after[s.label] / before[s.label] - 1 for s in group})
        worst = change.abs().idxmax()
        row |= {f"{side} side, median": change.abs().median(), f"{side} side, most": change[worst]}
        row[f"{side} side, structure"] = worst
    row["labels in lesion agree"] = float((labels == ours)[lesion].mean())
    table = measure(result, surplus_mm3=found.surplus_mm3)
    named = None if given is None else GivenLesion("", given.ml)
    verdict = judge(table, plausibility=found, lesion=named)
    row["verdict"] = f"{verdict.level}: {'; '.join(verdict.reasons)}"
    return pd.DataFrame([row])


def dice(result: Segmentation, reference: npt.NDArray[np.uint8], label: int) -> float:
    """Dice of one structure."""
    ours, theirs = np.asarray(result.full(result.dseg)) == label, reference == label
    both = np.count_nonzero(ours) + np.count_nonzero(theirs)
    return 2 * np.count_nonzero(ours & theirs) / both if both else float("nan")


def median_flip_probability(result: Segmentation, number: int, where: Mask) -> float:
    """Median flip probability of a structure in some voxels of the result's box."""
    maps = result.flip_probability
    if maps is None or not where.any():
        return float("nan")
    return float(np.median(maps.levels[number][where])) * maps.step


if __name__ == "__main__":
    main()
