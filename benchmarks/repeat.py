"""How much volumes differ from scan to scan of one person, and whether hetseg says so.

    python benchmarks/repeat.py RESCANS OUT [--copies T1W ...] [--model NAME]

RESCANS holds sub-X_T1w.nii.gz of people scanned twice and, if both scans were labelled by hand,
sub-X_dseg.nii.gz; the second scan of X is X + 20, as OASIS counts. Every image of --copies is
compared with copies of it as a second scan might be: turned by some degrees, moved by up to 2 mm,
with another gain and fresh noise, of the usual strength and much stronger. Segments all that is
not in OUT/volumes already, and writes OUT/repeat-scans.tsv (the rescans' volumes) and
OUT/repeat.tsv (of each pair and structure the difference, in units of what a fit to all other
people says). Prints the fit of `uncertainty.RepeatNoise` to all of them, and how the fits to all
other people hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from accuracy import read_reference, scans_of
from numpy.typing import ArrayLike
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.images import grid_of
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.outputs.derivatives import save_image
from hetseg_bids.preprocessing.pipeline import prepare_image
from hetseg_bids.quality.image_quality import quality_of
from hetseg_bids.segmentation.inference import predict
from hetseg_bids.segmentation.labels import segment
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.uncertainty import (
    NORMAL_975,
    REPEAT_NOISE,
    RepeatNoise,
    volume_sd,
)
from hetseg_bids.structures.aseg import STRUCTURES
from hetseg_bids.structures.label_sets import bare_name
from hetseg_bids.training.synthesis.random_fields import smooth_field

_SEED = 29_2026
_SECOND_VISIT = 20
_COPIES = {"copies": 0.03, "noisy copies": 0.08}  # noise, share of the bright voxels' value
_TURN_DEG, _SHIFT_MM, _GAIN = 2.0, 2.0, 0.05
_GAIN_SPACING = 60.0  # voxels
_BRIGHT = 98  # percentile of the signal: about white matter, in heads a little above it
_CAUSES = ["volume_mm3", "flip_variance_mm3", "noise"]
_KEPT = ["participant_id", "scan", "name", "volume_mm3", "volume_sd_mm3", "volume_repeat_sd_mm3"]
_JUDGED = ["set", "participant_id", "name", "volume_mm3", "difference_mm3", "noise_2", "z"]


def main() -> int:
    """Segment, fit, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rescans", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--copies", type=Path, nargs="*", default=[], metavar="T1W")
    parser.add_argument("--model", default="label-flip")
    args = parser.parse_args()
    model = load_model(args.model, torch.device("cpu"))
    rescans = pairs_of(args.rescans)
    cases = [("rescans", *pair) for pair in rescans]
    for place, path in enumerate(args.copies):
        cases += imitations(path, args.out, (_SEED, place))
    scans = {path: volumes(path, model, args.out) for _, *pair in cases for path in pair}
    kept = [
        scans[path].assign(participant_id=person_of(pair[0]), scan=person_of(path))
        for pair in rescans
        for path in pair
    ]
    write_table(pd.concat(kept)[_KEPT].round(3), args.out / "repeat-scans.tsv")
    pairs = pd.concat([compare(name, a, scans[a], scans[b]) for name, a, b in cases])
    judged = held_out(pairs)
    write_table(judged[_JUDGED].round(3), args.out / "repeat.tsv")
    print(differences(pairs, by_hand(rescans)))
    print(f"fit: {fit(pairs)}\nin use: {REPEAT_NOISE}")
    print(report(judged))
    return 0


def person_of(t1w: Path) -> str:
    """sub-X."""
    return t1w.name.split("_")[0]


def pairs_of(folder: Path) -> list[tuple[Path, Path]]:
    """First and second scan of everyone who was scanned twice."""
    scans = {int(p.name.split("_")[0].removeprefix("sub-")): p for p in scans_of(folder)}
    pairs = [(p, scans[n + _SECOND_VISIT]) for n, p in scans.items() if n + _SECOND_VISIT in scans]
    if not pairs:
        sys.exit(f"{folder}: no sub-X_T1w.nii.gz with a second scan, sub-(X + {_SECOND_VISIT})")
    return pairs


def imitations(path: Path, out: Path, seed: tuple[int, ...]) -> Iterator[tuple[str, Path, Path]]:
    """An image with each of its copies."""
    image = nib.load(path)
    for name, noise in _COPIES.items():
        copy = out / "copies" / f"{person_of(path)}n{100 * noise:.0f}_T1w.nii.gz"
        if not copy.exists():
            save_image(copy, imitate(image, noise, seed), grid_of(image), intent="none")
        yield name, path, copy


def volumes(t1w: Path, model: Model, out: Path) -> pd.DataFrame:
    """Volumes of a scan with their standard deviations, and its noise; kept in OUT/volumes."""
    kept = out / "volumes" / t1w.name.replace("_T1w.nii.gz", ".tsv")
    if not kept.exists():
        prepared = prepare_image(t1w)
        logits = predict(model, prepared.image, prepared.mask)
        result = segment(logits, prepared.working, prepared.native)
        noise = quality_of(prepared, result).noise
        write_table(measure(result).assign(noise=noise), kept)
        print(t1w.name, flush=True)
    columns = ["name", "volume_mm3", "volume_sd_mm3", "noise"]
    table = pd.read_csv(kept, sep="\t", na_values="n/a")[columns]
    table["flip_variance_mm3"] = table["volume_sd_mm3"].map(flip_variance)
    said = [REPEAT_NOISE.sd(*row) for row in zip(*(table[c] for c in _CAUSES), strict=True)]
    return table.assign(volume_repeat_sd_mm3=said)


def flip_variance(sd: float) -> float:
    """What `uncertainty.volume_sd` made a standard deviation of, mm3."""
    return float(optimize.brentq(lambda f: volume_sd(f) - sd, 0, sd**2 + 1))


def compare(name: str, path: Path, first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """A row for each structure of two scans of a person."""
    table = first.merge(second, on="name", suffixes=("", "_2"))
    table["difference_mm3"] = table["volume_mm3_2"] - table["volume_mm3"]
    table["relative"] = 2 * table["difference_mm3"] / (table["volume_mm3"] + table["volume_mm3_2"])
    return table.assign(set=name, participant_id=person_of(path))


def said_by(noise: RepeatNoise, pairs: pd.DataFrame, kept: ArrayLike = 1.0) -> np.ndarray:
    """Standard deviation of a difference; `kept` is the share of the variance of quiet scans."""
    variance = np.zeros(len(pairs))
    for end in ("", "_2"):
        causes = pairs[[cause + end for cause in _CAUSES]].to_numpy(float)
        loud = np.array([noise.sd(*row) ** 2 for row in causes])
        quiet = np.array([noise.sd(*row[:2]) ** 2 for row in causes])
        variance += loud + (np.asarray(kept) - 1) * quiet
    return np.sqrt(variance)


def fit(pairs: pd.DataFrame) -> RepeatNoise:
    """The constants that make the differences most likely, normal errors given.

    Copies lack what a second scan also changes: they have a share of their own of the variance
    without noise, and tell how noise adds to it.  Without them that stays as it is in use.
    """
    copies = (pairs["set"] != "rescans").to_numpy()
    start = np.array([*np.log(astuple(REPEAT_NOISE)), -0.5])

    def model(logarithms: np.ndarray) -> RepeatNoise:
        border, share, noise = map(float, np.exp(logarithms[:3]))
        return RepeatNoise(border, share, noise if copies.any() else REPEAT_NOISE.noise)

    def cost(logarithms: np.ndarray) -> float:
        said = said_by(model(logarithms), pairs, np.exp(logarithms[3] * copies))
        return float((np.log(said) + (pairs["difference_mm3"] / said) ** 2 / 2).sum())

    options = {"maxiter": 2000, "xatol": 1e-3, "fatol": 1e-3}
    return model(optimize.minimize(cost, start, method="Nelder-Mead", options=options).x)


def held_out(pairs: pd.DataFrame) -> pd.DataFrame:
    """Every person's differences in units of what a fit to all other people says of them."""
    parts = []
    for person, rows in pairs.groupby("participant_id", sort=False):
        noise = fit(pairs[pairs["participant_id"] != person])
        parts.append(rows.assign(z=rows["difference_mm3"] / said_by(noise, rows)))
    return pd.concat(parts)


def differences(pairs: pd.DataFrame, hand: list[float]) -> str:
    """Median difference of two scans of a person, by hetseg and by hand."""
    rescans = pairs[pairs["set"] == "rescans"]
    text = f"{rescans['participant_id'].nunique()} people scanned twice: volumes differ by "
    text += f"{rescans['relative'].abs().median():.1%} (median)"
    return text + (f", labelled by hand {np.median(hand):.1%}" if hand else "")


def by_hand(pairs: list[tuple[Path, Path]]) -> list[float]:
    """Relative differences of the structures in the labels beside the scans."""
    found = []
    for pair in pairs:
        if all(path.with_name(path.name.replace("_T1w", "_dseg")).exists() for path in pair):
            first, second = (
                np.bincount(read_reference(path).ravel(), minlength=256) for path in pair
            )
            labels = [s.label for s in STRUCTURES if first[s.label] + second[s.label] > 0]
            mean = (first[labels] + second[labels]) / 2
            found += list(np.abs(first[labels] - second[labels].astype(float)) / mean)
    return found


def report(judged: pd.DataFrame) -> str:
    """How fits hold on people that were not used for them."""
    judged = judged.assign(structure=judged["name"].map(bare_name))
    lines = ["Each by a fit to all other people: observed / said SD; share within 1.96 SD:"]
    for keys in (["set"], ["set", "participant_id"], ["set", "structure"]):
        groups = judged.groupby(keys, sort=False)["z"]
        ratio = groups.agg(lambda z: np.sqrt((z**2).mean()))
        within = groups.agg(lambda z: (z.abs() <= NORMAL_975).mean())
        table = pd.DataFrame({"n": groups.size(), "ratio": ratio, "within": within})
        lines.append(table.round(3).to_string())
    return "\n".join(lines)


def imitate(image: nib.Nifti1Image, noise: float, seed: tuple[int, ...]) -> np.ndarray:
    """The image as if the person had been scanned again: placed, coloured and noisy otherwise.

    Parameters
    ----------
    image : Nifti1Image
    noise : float
        Standard deviation of the fresh Rician noise, share of the bright voxels' value.
    seed : tuple of int

    Returns
    -------
    copy : (X, Y, Z) float32 array
        On the same grid. Zeros (what was cut off) move along with the head.
    """
    rng = np.random.default_rng(seed)
    values = np.asarray(image.dataobj, np.float32)
    turn, there = np.eye(4), np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", rng.normal(0, _TURN_DEG, 3), degrees=True).as_matrix()
    turn[:3, 3] = rng.uniform(-_SHIFT_MM, _SHIFT_MM, 3)
    there[:3, 3] = nib.affines.apply_affine(image.affine, (np.array(values.shape) - 1) / 2)
    mapping = np.linalg.inv(image.affine) @ there @ turn @ np.linalg.inv(there) @ image.affine
    moved = ndimage.affine_transform(values, mapping, order=3)
    signal = ndimage.affine_transform(values != 0, mapping, order=0)
    bright = float(np.percentile(values[values > 0], _BRIGHT))
    gain = np.exp(_GAIN * smooth_field(rng, values.shape, _GAIN_SPACING)[0].numpy())
    real, imaginary = rng.normal(0, noise * bright, (2, *values.shape))
    noisy = np.hypot(moved.clip(0) * gain + real, imaginary)
    return np.where(signal, noisy, 0).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
