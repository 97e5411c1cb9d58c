"""How much volumes differ from scan to scan of one person, and whether hetseg says so.

    python benchmarks/repeat.py RESCANS OUT [--copies T1W ...] [--model NAME]

RESCANS holds sub-X_T1w.nii.gz of people scanned twice and, if both scans were labelled by hand,
sub-X_dseg.nii.gz; the second scan of X is X + 20, as OASIS counts. Every image of --copies gets
copies as a second scan might be: turned by some degrees, moved by up to 2 mm, with another gain
and fresh noise; and some with much more noise. Segments all that is not in OUT/volumes already, and
writes OUT/repeat-scans.tsv (the rescans' volumes) and OUT/repeat.tsv (of each person and structure
the standard deviation over the scans). Prints the fit of `uncertainty.RepeatNoise` to all of them,
and how a fit to all other people holds for each person.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from accuracy import read_reference, scans_of
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

from hetseg_bids.derivatives import save_image
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.image_quality import quality_of
from hetseg_bids.inference import predict
from hetseg_bids.models import Model, load_model
from hetseg_bids.morphometry import measure
from hetseg_bids.preprocessing.pipeline import prepare
from hetseg_bids.segmentation import segment
from hetseg_bids.structures import STRUCTURES, bare_name
from hetseg_bids.training.random_fields import smooth_field
from hetseg_bids.uncertainty import REPEAT_NOISE, RepeatNoise, volume_sd

_SEED = 29_2026
_SECOND_VISIT = 20
_COPIES = {"copies": (0.03, 4), "noisy copies": (0.08, 3)}  # noise, how many
_TURN_DEG, _SHIFT_MM, _GAIN = 2.0, 2.0, 0.05
_GAIN_SPACING = 60.0  # voxels
_BRIGHT = 98  # percentile of the signal: about white matter, in heads a little above it
_NOISY = 0.05  # above what all rescans have
_NORMAL_975 = 1.959964
_KEYS = ["set", "participant_id", "name"]
_MEASURED = ["name", "volume_mm3", "volume_sd_mm3", "volume_repeat_sd_mm3", "noise"]


def main() -> int:
    """Segment, fit, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rescans", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--copies", type=Path, nargs="*", default=[], metavar="T1W")
    parser.add_argument("--model", default="label-flip")
    args = parser.parse_args()
    model = load_model(args.model, torch.device("cpu"))
    pairs = pairs_of(args.rescans)
    scans = pd.concat(
        [*measure_rescans(pairs, model, args.out), *measure_copies(args.copies, model, args.out)]
    )
    table = over_scans(scans)
    rescans = scans.loc[scans["set"] == "rescans", ["participant_id", "scan", *_MEASURED]]
    write_table(rescans.round(3), args.out / "repeat-scans.tsv")
    write_table(table.round(3), args.out / "repeat.tsv")
    print(differences(scans, by_hand(pairs)))
    print(report(scans, table))
    return 0


def pairs_of(folder: Path) -> list[tuple[Path, Path]]:
    """First and second scan of everyone who was scanned twice."""
    scans = {int(p.name.split("_")[0].removeprefix("sub-")): p for p in scans_of(folder)}
    pairs = [(p, scans[n + _SECOND_VISIT]) for n, p in scans.items() if n + _SECOND_VISIT in scans]
    if not pairs:
        sys.exit(f"{folder}: no sub-X_T1w.nii.gz with a second scan, sub-(X + {_SECOND_VISIT})")
    return pairs


def measure_rescans(
    pairs: list[tuple[Path, Path]], model: Model, out: Path
) -> Iterator[pd.DataFrame]:
    """A row a structure of both scans of everyone."""
    for first, second in pairs:
        for path in (first, second):
            table = volumes(path, model, out)
            person = first.name.split("_")[0]
            yield table.assign(set="rescans", participant_id=person, scan=path.name.split("_")[0])


def measure_copies(images: list[Path], model: Model, out: Path) -> Iterator[pd.DataFrame]:
    """A row a structure of all copies of all images."""
    for place, path in enumerate(images):
        person, image = path.name.split("_")[0], nib.load(path)
        for name, (noise, count) in _COPIES.items():
            for number in range(count):
                copy = out / "copies" / f"{person}n{noise:.0%}c{number}_T1w.nii.gz".replace("%", "")
                if not copy.exists():
                    data = imitate(image, noise, (_SEED, place, number))
                    save_image(copy, data, image.affine, intent="none")
                table = volumes(copy, model, out)
                yield table.assign(set=name, participant_id=person, scan=copy.name.split("_")[0])


def volumes(t1w: Path, model: Model, out: Path) -> pd.DataFrame:
    """Volumes of a scan with their standard deviations, and its noise; kept in OUT/volumes."""
    kept = out / "volumes" / t1w.name.replace("_T1w.nii.gz", ".tsv")
    if not kept.exists():
        prepared = prepare(t1w)
        logits = predict(model, prepared.image, prepared.mask)
        result = segment(logits, prepared.working, prepared.native)
        noise = quality_of(prepared, result).noise
        write_table(measure(result).assign(noise=noise), kept)
        print(t1w.name, flush=True)
    columns = ["name", "volume_mm3", "volume_sd_mm3", "noise"]
    table = pd.read_csv(kept, sep="\t", na_values="n/a")[columns]
    table["flip_variance_mm3"] = table["volume_sd_mm3"].map(flip_variance)
    return table.assign(volume_repeat_sd_mm3=said_by(REPEAT_NOISE, table))


def said_by(noise: RepeatNoise, table: pd.DataFrame) -> list[float]:
    """The standard deviation over scans that a model says for each row."""
    columns = (table[c] for c in ("volume_mm3", "flip_variance_mm3", "noise"))
    return [noise.sd(*row) for row in zip(*columns, strict=True)]


def flip_variance(sd: float) -> float:
    """What `uncertainty.volume_sd` made a standard deviation of, mm3."""
    return float(optimize.brentq(lambda f: volume_sd(f) - sd, 0, sd**2 + 1))


def over_scans(scans: pd.DataFrame) -> pd.DataFrame:
    """A row for each person and structure: means, and the standard deviation over scans."""
    groups = scans.groupby(_KEYS, sort=False)
    table = groups[["volume_mm3", "flip_variance_mm3", "noise"]].mean()
    table["observed_sd_mm3"] = groups["volume_mm3"].std(ddof=1)
    table["scans"] = groups.size()
    return table.reset_index()


def fit(table: pd.DataFrame) -> RepeatNoise:
    """The constants that make the observed deviations most likely, normal errors given.

    What noise does can't be seen where all scans have the same: it stays as it is in use.
    """
    start = np.log(astuple(REPEAT_NOISE))
    known = start[1] if table["noise"].max() < _NOISY else None
    degrees, observed = table["scans"] - 1, table["observed_sd_mm3"]

    def model(logarithms: np.ndarray) -> RepeatNoise:
        border, noise, share = np.exp(logarithms)
        return RepeatNoise(border, noise if known is None else float(np.exp(known)), share)

    def cost(logarithms: np.ndarray) -> float:
        variance = np.square(said_by(model(logarithms), table))
        return float((degrees * (np.log(variance) + observed**2 / variance)).sum())

    return model(optimize.minimize(cost, start, method="Nelder-Mead").x)


def held_out(table: pd.DataFrame) -> pd.DataFrame:
    """Every person's rows with what a fit on all other people says of them."""
    parts = []
    for person, rows in table.groupby("participant_id", sort=False):
        noise = fit(table[table["participant_id"] != person])
        parts.append(rows.assign(said_sd_mm3=said_by(noise, rows)))
    return pd.concat(parts)


def coverage(scans: pd.DataFrame, said: pd.DataFrame) -> pd.Series:
    """Whether differences of two scans are within 1.96 of their said standard deviations."""
    joined = scans.merge(said[[*_KEYS, "said_sd_mm3"]], on=_KEYS)

    def share(rows: pd.DataFrame) -> float:
        limit = _NORMAL_975 * np.sqrt(2) * rows["said_sd_mm3"].iloc[0]
        pairs = itertools.combinations(rows["volume_mm3"], 2)
        return float(np.mean([abs(a - b) <= limit for a, b in pairs]))

    return joined.groupby(_KEYS, sort=False)[["volume_mm3", "said_sd_mm3"]].apply(share)


def differences(scans: pd.DataFrame, by_hand: list[float]) -> str:
    """Median difference of two scans of a person, with and without a hand that labels."""
    pairs = scans[scans["set"] == "rescans"].groupby(["participant_id", "name"])["volume_mm3"]
    relative = (pairs.max() - pairs.min()) / pairs.mean()
    people = relative.index.get_level_values(0).nunique()
    text = f"{people} people scanned twice: volumes differ by {relative.median():.1%} (median)"
    return text + (f", labelled by hand {np.median(by_hand):.1%}" if by_hand else "")


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


def report(scans: pd.DataFrame, table: pd.DataFrame) -> str:
    """The fit, and how it holds on people that were not used for it."""
    lines = [f"fit: {fit(table)}", f"in use: {REPEAT_NOISE}"]
    said = held_out(table).set_index(_KEYS)
    said["covered"] = coverage(scans, said.reset_index())
    said["square"] = (said["observed_sd_mm3"] / said["said_sd_mm3"]) ** 2
    said = said.reset_index()
    said["structure"] = said["name"].map(bare_name)
    lines.append("Each by a fit on all other people: observed / said SD, differences within 1.96:")
    for keys in (["set"], ["set", "participant_id"], ["set", "structure"]):
        groups = said.groupby(keys, sort=False)
        result = pd.DataFrame(
            {
                "people": groups["participant_id"].nunique(),
                "scans": groups["scans"].first(),
                "ratio": np.sqrt(groups["square"].mean()),
                "covered": groups["covered"].mean(),
            }
        )
        lines.append(result.round(3).to_string())
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
