"""The intracranial volume and the structures of SAMSEG and hetseg, on the same whole heads.

    python benchmarks/sbtiv.py SAMSEG OUT T1W ... [--model DIR] [--dice]

SAMSEG/sub-X/ holds what `run_samseg -i sub-X_T1w.nii.gz -o SAMSEG/sub-X` wrote, of which
samseg.stats and seg.mgz are read; scans without are left out. Writes OUT/volumes.tsv. With --dice
also OUT/dice.tsv, of the scans that have FreeSurfer's labels (sub-X_dseg.nii.gz) beside them;
hetseg segments these first (OUT/derivatives). Seconds a scan on one core, with --dice a minute.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from accuracy import write_dataset

from hetseg_bids.cli import run
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.metrics import Mask, compare, dice
from hetseg_bids.images import Grid, read_labels
from hetseg_bids.network.models import Model, load_head_model
from hetseg_bids.preprocessing.conform import resample, working_grid
from hetseg_bids.preprocessing.head import find_head
from hetseg_bids.preprocessing.headers import read_t1w
from hetseg_bids.preprocessing.pipeline import cut_area
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.segmentation.intracranial import mask_on, see_head, volume_sd
from hetseg_bids.segmentation.uncertainty import NORMAL_975
from hetseg_bids.structures.aseg import ASEG, STRUCTURES

_ML = 1000.0
_SBTIV = re.compile(r"^# Measure Intra-Cranial, ([0-9.]+), mm\^3$", re.MULTILINE)
_OUTER = {0: "unknown", 165: "skull", 258: "soft", 259: "eyes"}  # all else counts in sbTIV
_CEREBELLUM = (7, 8, 46, 47)
_END_MM = 3.0  # below the cerebellum, where hetseg's inside ends
_CC = "corpus_callosum"  # white matter in SAMSEG
_WHITE = ("left_cerebral_white_matter", "right_cerebral_white_matter", _CC)
_JOINED = "cerebral_white_matter_with_cc"


@dataclass(frozen=True)
class Peer:
    """What SAMSEG found in a scan.

    Attributes
    ----------
    ml : float
        sbTIV, a sum of posterior probabilities.
    labels : (X, Y, Z) int32 array
        FreeSurfer ids.
    grid : Grid
    """

    ml: float
    labels: npt.NDArray[np.int32]
    grid: Grid

    @classmethod
    def read(cls, folder: Path) -> Peer:
        """Read what `run_samseg` wrote."""
        found = _SBTIV.search((folder / "samseg.stats").read_text())
        if found is None:
            sys.exit(f"{folder / 'samseg.stats'}: no Intra-Cranial")
        return cls(float(found[1]) / _ML, *read_labels(folder / "seg.mgz"))


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samseg", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("t1w", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, help="head model's folder (default: the shipped one)")
    parser.add_argument("--dice", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    there = [t for t in args.t1w if (args.samseg / _name(t) / "seg.mgz").is_file()]
    if not there:
        sys.exit(f"{args.samseg}: no sub-X/seg.mgz of these scans")
    peers = {t1w: Peer.read(args.samseg / _name(t1w)) for t1w in there}
    model = load_head_model(CPU, args.model)
    volumes = pd.DataFrame([volume_row(model, t1w, peer) for t1w, peer in peers.items()])
    write_table(volumes, args.out / "volumes.tsv")
    _tell_volumes(volumes)
    if args.dice:
        scores = pd.DataFrame(_dice_rows(peers, args.out))
        write_table(scores, args.out / "dice.tsv")
        _tell_dice(scores)


def volume_row(model: Model, t1w: Path, peer: Peer) -> dict[str, object]:
    """Both volumes of a scan, and where the masks differ, ml."""
    scan = read_t1w(t1w)
    if not peer.grid.matches(scan.grid):
        sys.exit(f"{t1w}: not the image that SAMSEG saw (another grid)")
    working = working_grid(scan.grid)
    data = torch.from_numpy(scan.data)[None]
    head = find_head(
        resample(data, scan.grid, working, outside=scan.background)[0], working, scan.background
    )
    seen = see_head(model, head)
    logits, u = seen.inside, seen.uncertainty
    mask = mask_on(logits, head.grid, scan.grid) > 0
    voxel = scan.grid.voxel_volume
    mm3 = float(mask.sum()) * voxel
    half = NORMAL_975 * volume_sd(mm3, 8 * u.flip_variance)
    inner = ~np.isin(peer.labels, list(_OUTER))
    above = _above_end(peer)
    regions = {
        "below_ml": inner & ~above,  # of SAMSEG, where hetseg's inside has ended
        "samseg_only_ml": inner & above & ~mask,
        **{f"hetseg_only_{k}_ml": mask & (peer.labels == v) for v, k in _OUTER.items()},
    }
    ml = mm3 / _ML
    return {
        "scan": _name(t1w),
        "hetseg_ml": ml,
        "low_ml": ml - half / _ML,
        "high_ml": ml + half / _ML,
        "samseg_ml": peer.ml,
        "difference_percent": 100 * (ml / peer.ml - 1),
        "inside": abs(mm3 - peer.ml * _ML) <= half,
        "cut_cm2": cut_area(logits > 0, head.grid, scan.grid, scan.content),
        "dice": dice(mask, inner),
        **{name: float(region.sum()) * voxel / _ML for name, region in regions.items()},
    }


def _name(t1w: Path) -> str:
    return t1w.name.split("_")[0]


def _above_end(peer: Peer) -> Mask:
    """Where hetseg's inside may be, by SAMSEG's cerebellum."""
    i, j, k = np.ogrid[tuple(slice(n) for n in peer.grid.shape)]
    a, b, c, d = peer.grid.affine[2]
    height = a * i + b * j + c * k + d
    return height >= height[np.isin(peer.labels, _CEREBELLUM)].min() - _END_MM


def _tell_volumes(table: pd.DataFrame) -> None:
    lines = [
        "| scan | hetseg, ml | 95 % interval, ml | SAMSEG sbTIV, ml | difference | inside |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.scan} | {r.hetseg_ml:.0f} | {r.low_ml:.0f}-{r.high_ml:.0f} | {r.samseg_ml:.0f} "
        f"| {r.difference_percent:+.1f} % | {'yes' if r.inside else 'no'} |"
        for r in table.itertuples()
    ]
    print("\n".join(lines))
    off = table["difference_percent"]
    print(
        f"{len(table)} heads: mean difference {off.mean():+.1f} %, sd {off.std():.1f} %, "
        f"correlation {table['hetseg_ml'].corr(table['samseg_ml']):.3f}, "
        f"{table['inside'].sum()} in the interval"
    )
    print(table.set_index("scan").filter(regex="dice|cut|below|only").round(3).to_string())


def _dice_rows(peers: dict[Path, Peer], out: Path) -> Iterator[dict[str, object]]:
    """Agreement of both with FreeSurfer's labels, by structure."""
    references = {t: t.with_name(t.name.replace("_T1w", "_dseg")) for t in peers}
    scans = [t1w for t1w, reference in references.items() if reference.is_file()]
    if not scans:
        sys.exit("no sub-X_dseg.nii.gz beside the scans")
    results = out / "derivatives"
    if code := run.main([str(write_dataset(scans, out / "bids")), str(results), "participant"]):
        sys.exit(code)
    for t1w in scans:
        name = _name(t1w)
        labels, grid = read_labels(results / name / "anat" / f"{name}_seg-hetseg_dseg.nii.gz")
        if not grid.matches(peers[t1w].grid):
            sys.exit(f"{t1w}: hetseg and SAMSEG on different grids")
        truth = ASEG.collapse(read_labels(references[t1w])[0])
        for tool, found in (("hetseg", labels), ("samseg", peers[t1w].labels)):
            for structure, agreement in _agreements(ASEG.collapse(found), truth, grid):
                yield {"scan": name, "tool": tool, "structure": structure, **agreement}


def _agreements(
    found: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], grid: Grid
) -> Iterator[tuple[str, dict[str, float]]]:
    """Of the structures, and of white matter and corpus callosum as one."""
    ids = {s.name: s.label for s in STRUCTURES}
    groups = {name: (label,) for name, label in ids.items()}
    groups[_JOINED] = tuple(ids[name] for name in _WHITE)
    for name, members in groups.items():
        a, b = np.isin(found, members), np.isin(truth, members)
        if b.any():
            score = compare(a, b, grid.zooms)
            yield (
                name,
                {"dice": score.dice, "hd95_mm": score.hd95_mm, "volume_error": score.volume_error},
            )


def _tell_dice(scores: pd.DataFrame) -> None:
    """Mean over scans; the last row is of the structures that both have."""
    table = scores.pivot_table(index="structure", columns="tool", values="dice", sort=False)
    print("| structure | hetseg | SAMSEG |\n|---|---|---|")
    for name, row in table.iterrows():
        other = "-" if name == _CC else f"{row['samseg']:.3f}"
        print(f"| {name} | {row['hetseg']:.3f} | {other} |")
    both = scores[~scores["structure"].isin((*_WHITE, _JOINED))]
    means = both.pivot_table(index="scan", columns="tool", values=["dice", "hd95_mm"])
    count = both["structure"].nunique()
    print(f"\nWithout white matter and corpus callosum, {count} structures:\n{means.round(3)}")


if __name__ == "__main__":
    main()
