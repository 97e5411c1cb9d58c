"""Brain masks of whole heads: deepbet's against the head model's, and masks that fit no head.

    python benchmarks/extraction.py OUT T1W [T1W ...] [--model DIR] [--as-they-are] [--structures]

Each head, and copies of it that were padded, tilted, nodded, cut, and given a long neck, noise and
a bias field. OUT/masks.tsv: volume of each mask, its Dice with the same method's mask of the head
as it is, and, where FreeSurfer's labels lie beside the image (sub-X_dseg), the share of the
labelled brain and of the worst structure that it misses. OUT/fits.tsv: what the check of masks says
of deepbet's, of copies of them that were spoilt, and of the head model's. With --structures,
OUT/structures.tsv: Dice of the 28 structures inside each mask. One process; 10 s a copy on one
core, a minute for each segmentation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from deepbet.bet import BrainExtraction as DeepBet
from scipy import ndimage

from hetseg_bids import segment
from hetseg_bids.errors import MaskError
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.files import write_tsv
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.network.models import Model, load_head_model
from hetseg_bids.preprocessing.brain_extraction import extract_brain
from hetseg_bids.preprocessing.conform import nearest, resample, working_grid
from hetseg_bids.preprocessing.head import find_head
from hetseg_bids.preprocessing.headers import read_t1w
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.intracranial import SeenHead, mask_on, see_head
from hetseg_bids.segmentation.mask_fit import MaskFit
from hetseg_bids.structures.aseg import ASEG, STRUCTURES

_ML = 1000.0
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]
_UNCROPPED_OF = ("as it is", "padded")
DEEPBET, UNCROPPED, HEAD, WIDER = "deepbet", "deepbet, not cropped", "head", "head + 2 mm"


@dataclass(frozen=True)
class Scan:
    """A head on its working grid.

    Attributes
    ----------
    image : (X, Y, Z) float32 array
        RAS, 1 mm.
    background : float
    labels : (X, Y, Z) uint8 array
        FreeSurfer's, of the 28 structures; 0 everywhere where there are none.
    """

    image: npt.NDArray[np.float32]
    background: float
    labels: Labels

    @property
    def grid(self) -> Grid:
        """Where it lies; the same place for all copies doesn't matter."""
        i, j, k = self.image.shape
        return Grid((i, j, k), np.eye(4))

    def moved(self, move: Callable[[npt.NDArray, int, float], npt.NDArray]) -> Scan:
        """A copy whose labels move along: `move` gets array, order and value outside."""
        image = move(self.image, 1, self.background).astype(np.float32)
        return Scan(image, self.background, move(self.labels, 0, 0).astype(np.uint8))


@dataclass(frozen=True)
class Found:
    """The masks of a scan by method, CPU seconds of each, and what the head model sees."""

    masks: dict[str, Mask]
    seconds: dict[str, float]
    seen: SeenHead
    grid: Grid


def main() -> None:
    """Write the tables and print what they say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("t1w", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, help="head model (default: the shipped one)")
    parser.add_argument("--as-they-are", action="store_true", help="no copies of the heads")
    parser.add_argument("--structures", action="store_true", help="segment the labelled heads")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = load_head_model(CPU, args.model)
    masks, fits, structures = [], [], []
    for path in args.t1w:
        rows, judged = compare_masks(path, model, copies=not args.as_they_are)
        masks += rows
        fits += judged
        if args.structures:
            structures += list(structure_rows(path, model, args.out))
        write_tsv(args.out / "masks.tsv", pd.DataFrame(masks).round(4))
        write_tsv(args.out / "fits.tsv", pd.DataFrame(fits).round(4))
    _tell_masks(pd.DataFrame(masks))
    _tell_fits(pd.DataFrame(fits))
    if structures:
        table = pd.DataFrame(structures)
        write_tsv(args.out / "structures.tsv", table.round(4))
        print(table.groupby(["scan", "method"])["dice"].mean().unstack().round(4).to_string())


def compare_masks(
    path: Path, model: Model, *, copies: bool
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Rows of OUT/masks.tsv and OUT/fits.tsv."""
    name, scan = path.name.split("_")[0], read_scan(path)
    masks: list[dict[str, object]] = []
    fits: list[dict[str, object]] = []
    first: dict[str, Mask] = {}
    for copy, (changed, place) in copies_of(scan).items():
        found = extract(changed, model, uncropped=copies and copy in _UNCROPPED_OF)
        for method, mask in found.masks.items():
            as_it_is = mask if copy == "as it is" else place(first[method].astype(np.uint8)) > 0
            first.setdefault(method, mask)
            row: dict[str, object] = {"scan": name, "copy": copy, "method": method}
            row |= {"ml": mask.sum() / _ML, "dice_as_it_is": dice(mask, as_it_is)}
            row |= _against_labels(mask, changed.labels)
            masks.append(row | {"seconds": found.seconds[method]})
        for kind, mask in _judged(found, spoil=copy == "as it is"):
            fit = fit_of(mask, changed, found)
            row = {"scan": name, "copy": copy, "mask": kind, "skull_ml": _ml(found.seen.inside)}
            row |= {"outside": fit.outside, "missed": fit.missed}
            fits.append(row | {"doubted": bool(fit.doubts)})
        if not copies:
            break
    return masks, fits


def read_scan(path: Path) -> Scan:
    """A head on its working grid, with FreeSurfer's labels where they lie beside it."""
    t1w = read_t1w(path)
    grid = working_grid(t1w.grid)
    image = resample(torch.from_numpy(t1w.data)[None], t1w.grid, grid, outside=t1w.background)[0]
    labels = np.zeros(grid.shape, np.uint8)
    reference = _reference(path)
    if reference.is_file():
        ids, where = read_labels(reference)
        labels = nearest(ASEG.collapse(ids), where, grid)
    return Scan(image.numpy(), t1w.background, labels)


def extract(scan: Scan, model: Model, *, uncropped: bool) -> Found:
    """The brain by each method."""
    seconds = {}
    start = time.process_time()
    masks = {DEEPBET: _deepbet(scan.image)}
    seconds[DEEPBET] = time.process_time() - start
    if uncropped:
        start = time.process_time()
        masks[UNCROPPED] = _uncropped(scan.image)
        seconds[UNCROPPED] = time.process_time() - start
    start = time.process_time()
    head = find_head(torch.from_numpy(scan.image), scan.grid, scan.background)
    seen = see_head(model, head)
    masks[HEAD] = mask_on(seen.brain, head.grid, scan.grid) > 0
    masks[WIDER] = widened(masks[HEAD], 2)
    seconds[HEAD] = seconds[WIDER] = time.process_time() - start
    return Found(masks, seconds, seen, head.grid)


def _deepbet(image: npt.NDArray[np.float32]) -> Mask:
    """As hetseg runs it; an empty mask where it finds no brain."""
    try:
        return extract_brain(image)
    except MaskError:
        return np.zeros(image.shape, bool)


def _uncropped(image: npt.NDArray[np.float32]) -> Mask:
    bet = DeepBet(no_gpu=True)
    probability = bet.run_model(image - image.min())
    return np.asarray(bet.postprocess(probability > 0.5, 0)) > 0


def copies_of(scan: Scan) -> dict[str, tuple[Scan, Callable[[Labels], Labels]]]:
    """Copies by name, each with what it does to a mask; the scan itself first."""
    rng = np.random.default_rng(0)
    places = np.argwhere(scan.image > 0.2 * np.percentile(scan.image, 99))
    top = int(np.percentile(places[:, 2], 99.9))
    bright = float(np.percentile(scan.image, 99))
    wide = np.array(scan.image.shape) / 4

    def padded(array: npt.NDArray, _: int, outside: float) -> npt.NDArray:
        return np.pad(array, 90, constant_values=outside)

    def turned(axes: tuple[int, int], angle: float) -> Callable[..., npt.NDArray]:
        def turn(array: npt.NDArray, order: int, outside: float) -> npt.NDArray:
            array = np.pad(array, 30, constant_values=outside)
            return ndimage.rotate(array, angle, axes, reshape=False, order=order, cval=outside)

        return turn

    def without_crown(array: npt.NDArray, *_: float) -> npt.NDArray:
        return array[:, :, : top - 40]

    def with_neck(array: npt.NDArray, *_: float) -> npt.NDArray:
        low = np.flatnonzero((scan.image > 0.2 * bright).mean(axis=(0, 1)) > 0.02)[0] + 3
        below = array[:, :, low : low + 1] if array.dtype != np.uint8 else np.zeros(1, np.uint8)
        grown = np.broadcast_to(below, (*array.shape[:2], 120))
        return np.concatenate((grown, array[:, :, low:]), axis=2)

    moves = {
        "padded": padded,
        "tilted": turned((0, 2), 30),
        "nodded": turned((1, 2), 30),
        "crown cut": without_crown,
        "long neck": with_neck,
    }
    field = ndimage.zoom(rng.normal(0, 0.25, (4, 4, 4)), wide, order=3)
    noise = rng.normal(0, 0.1 * bright, (2, *scan.image.shape))
    noisy = np.hypot(scan.image + noise[0], noise[1]).astype(np.float32)
    biased = ((scan.image - scan.background) * np.exp(field) + scan.background).astype(np.float32)
    copies = {"as it is": (scan, _same)}
    copies |= {
        # the move of a mask is that of the labels
        name: (scan.moved(move), lambda mask, move=move: move(mask, 0, 0))
        for name, move in moves.items()
    }
    copies["noisy"] = replace(scan, image=noisy), _same
    copies["biased"] = replace(scan, image=biased), _same
    return copies


def _same(mask: Labels) -> Labels:
    return mask


def _against_labels(mask: Mask, labels: Labels) -> dict[str, object]:
    """Shares of the labelled brain that a mask misses, and what it has beyond 4 mm of it."""
    reference = labels > 0
    if not reference.any():
        return {"missed_percent": np.nan, "beyond_ml": np.nan, "worst_percent": np.nan}
    size, held = (np.bincount(part, minlength=256) for part in (labels[reference], labels[mask]))
    missed = {
        s.name: 100 * (1 - held[s.label] / size[s.label]) for s in STRUCTURES if size[s.label]
    }
    worst = max(missed, key=lambda name: missed[name])
    return {
        "missed_percent": 100 * (1 - mask[reference].mean()),
        "beyond_ml": (mask & ~widened(reference, 4)).sum() / _ML,
        "worst_percent": missed[worst],
        "worst": worst,
    }


def widened(mask: Mask, voxels: int) -> Mask:
    """A mask that is wider by some voxels along each axis."""
    if not mask.any():
        return mask
    box = _box(mask, voxels)
    wide = mask.copy()
    wide[box] = ndimage.binary_dilation(mask[box], iterations=voxels)
    return wide


def _box(mask: Mask, margin: int) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.astype(np.uint8))[0]
    return tuple(
        slice(max(0, s.start - margin), min(n, s.stop + margin))
        for s, n in zip(found, mask.shape, strict=True)
    )


def _judged(found: Found, *, spoil: bool) -> Iterator[tuple[str, Mask]]:
    """Masks for the check: deepbet's and the head model's, and spoilt copies of deepbet's."""
    mask = found.masks[DEEPBET]
    if not mask.any():
        return  # a run stops there
    yield DEEPBET, mask
    if not spoil:
        return
    yield HEAD, found.masks[HEAD]
    yield "twice as large", _twice_as_large(mask)
    middle = [round(np.average(np.arange(n), weights=w)) for n, w in _profiles(mask)]
    for axis, kind in enumerate(("left half", "posterior half", "lower half")):
        half = np.moveaxis(mask.copy(), axis, 0)
        half[: middle[axis]] = False
        yield f"without the {kind}", np.moveaxis(half, 0, axis)
    for axis, way in enumerate(("right", "forward", "up")):
        for mm in (10, 30):
            yield f"{mm} mm {way}", np.roll(mask, mm, axis)
    for mm in (2, 5):
        box = _box(mask, mm)
        narrow = np.zeros_like(mask)
        narrow[box] = ndimage.binary_erosion(mask[box], iterations=mm)
        yield f"{mm} mm narrower", narrow
        yield f"{mm} mm wider", widened(mask, mm)


def _twice_as_large(mask: Mask) -> Mask:
    box = _box(mask, 40)
    distance, count = ndimage.distance_transform_edt(~mask[box]), 2 * int(mask.sum())
    large = np.zeros_like(mask)
    large[box] = distance <= np.partition(distance.ravel(), count)[count]
    return large


def _profiles(mask: Mask) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    for axis, size in enumerate(mask.shape):
        yield size, mask.sum(axis=tuple(i for i in range(3) if i != axis))


def fit_of(mask: Mask, scan: Scan, found: Found) -> MaskFit:
    """What a run would find of a mask."""
    seen = found.seen
    return MaskFit.of(torch.from_numpy(mask), scan.grid, seen.inside, seen.brain, found.grid)


def structure_rows(path: Path, model: Model, out: Path) -> Iterator[dict[str, object]]:
    """Dice of the 28 structures of a labelled head inside each mask."""
    reference = _reference(path)
    if not reference.is_file():
        return
    truth = ASEG.collapse(read_labels(reference)[0])
    grid = working_grid(read_t1w(path).grid)
    for method, mask in extract(read_scan(path), model, uncropped=False).masks.items():
        file = out / f"{path.name.split('_')[0]}_desc-brain_mask.nii.gz"
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), grid.affine), file)
        dseg = np.asarray(segment(path, brain_extraction="mask", mask=file).dseg.dataobj)
        for s in STRUCTURES:
            score = dice(dseg == s.label, truth == s.label)
            name = path.name.split("_")[0]
            yield {"scan": name, "method": method, "name": s.name, "dice": score}


def _reference(t1w: Path) -> Path:
    return t1w.with_name(t1w.name.replace("_T1w", "_dseg"))


def _ml(logits: torch.Tensor) -> float:
    return 8 * float((logits > 0).sum()) / _ML


def _tell_masks(table: pd.DataFrame) -> None:
    values = ("ml", "dice_as_it_is", "missed_percent", "worst_percent", "beyond_ml", "seconds")
    for value in values:
        shown = table.pivot_table(value, ["copy", "method"], "scan", sort=False)
        print(f"\n{value}\n{shown.round(3).to_string()}")


def _tell_fits(table: pd.DataFrame) -> None:
    by = table.groupby(["copy", "mask"], sort=False)
    shown = by.agg(
        outside_min=("outside", "min"),
        outside_max=("outside", "max"),
        missed_min=("missed", "min"),
        missed_max=("missed", "max"),
        doubted=("doubted", "sum"),
        n=("doubted", "size"),
    ).round(3)
    print(f"\ncheck of the mask\n{shown.to_string()}")


if __name__ == "__main__":
    main()
