"""Does a GPU give the results of the CPU, and how fast is it? One command, one file, ten minutes.

    python benchmarks/gpu_check.py T1W OUT [--device auto] [--model NAME] [--train-seconds 60] ...

1. Segments T1W (.nii.gz) on the CPU in float32 and on the device as it computes, and compares
   labels, flip probabilities and volumes.
2. Times each step of a scan on the device with the largest memory of the GPU, and the network's
   share of the matrix product rate that the device reaches in the same number format.
3. Runs the command line over copies of T1W with 1, 2 and 4 workers: scans an hour.
4. Trains a network for a minute on synthetic scans: stacks a second. Their label maps are the
   result of step 1 unless --label-maps are given.

Writes OUT/gpu_check.json after each part: facts of the machine, and figures whose names end with
their unit. Exit status 1 where the device's labels or volumes aren't the CPU's. Without a GPU the
same code compares the CPU with itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from accuracy import link
from speed import SIZE, Clock, matmul_rate, multiply_adds, one_scan, summarise, table_lines
from watched import watched_scans

import hetseg_bids
from hetseg_bids import Segmented
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.files import write_json
from hetseg_bids.images import grid_of
from hetseg_bids.network.devices import (
    device_name,
    keep_freed_memory,
    resolve_device,
    set_threads,
)
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.outputs.derivatives import save_image
from hetseg_bids.preprocessing import number_formats
from hetseg_bids.preprocessing.conform import nearest, working_grid
from hetseg_bids.preprocessing.number_formats import inference_format
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.training.recipes import HEAD_RECIPE, RECIPES
from hetseg_bids.training.synthesis.painting import SyntheticScans, SyntheticSource
from hetseg_bids.training.trainer import RunOptions, StepReport, Trainer

LEAST_DICE = 0.999
MOST_VOLUME_PERCENT = 0.2
JUDGED_MM3 = 5000.0  # of 500 mm3, an accumbens, a single voxel is 0.2 %
NAME = "gpu_check.json"
_BUSY_S = 50.0  # of a run with workers, as far as the number of scans allows
_SCANS = (2, 24)  # at least, at most


def main() -> int:
    """Measure, print and write."""
    args = parsed()
    set_threads(args.threads)
    keep_freed_memory()
    device = resolve_device(args.device)
    facts: dict[str, Any] = {"machine": machine(device), "scan": args.t1w.name}
    for name, part in parts(args, device):
        facts[name] = part
        write_json(args.out / NAME, facts)
        print(f"\n{name}", *lines_of(part), sep="\n", flush=True)
    print(f"\n{args.out / NAME}")
    return 0 if facts["agreement"]["passed"] else 1


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="label-flip")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=3, help="of the steps (default: 3)")
    parser.add_argument("--workers", type=int, nargs="*", default=(1, 2, 4))
    parser.add_argument(
        "--workers-option", default="--nprocs", help="of hetseg, that takes their number"
    )
    parser.add_argument("--scans", type=int, help="of a run (default: as many as take a minute)")
    parser.add_argument("--train-seconds", type=float, default=60.0)
    parser.add_argument(
        "--recipe", choices=sorted({*RECIPES} - {HEAD_RECIPE}), help="default: wide on a GPU"
    )
    parser.add_argument("--train-workers", type=int, default=0)
    parser.add_argument("--synthetic-scans", type=int, help="default: ever new ones")
    parser.add_argument("--label-maps", type=Path)
    return parser.parse_args()


def parts(args: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and figures of each part."""
    # a CPU that computes in bfloat16 is further from float32 than a GPU is
    kind = inference_format(CPU) if device.type == "cpu" else torch.float32
    half = kind != torch.float32
    with patch.object(number_formats, "computes_bf16", return_value=half):
        reference = hetseg_bids.segment(args.t1w, model=args.model, device="cpu")
    found = hetseg_bids.segment(args.t1w, model=args.model, device=str(device))
    compared = [f"cpu, {kind}", f"{device}, {inference_format(device)}"]
    yield "agreement", agreement(reference, found, compared)
    model = load_model(args.model, device)
    timed = steps(args, model)
    yield "steps", timed
    yield "network", network(args.t1w, model, timed["by_step"])
    for count in args.workers:
        yield f"{count}_workers", throughput(args, device, count, timed["scan_wall_s"])
    maps = args.label_maps or label_map(found, args.out / "maps")
    yield "training", training(args, device, maps)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    facts: dict[str, Any] = {
        "hetseg": hetseg_bids.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": device_name(device),
        "format": str(inference_format(device)),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }
    if device.type != "cuda":
        return facts
    card = torch.cuda.get_device_properties(device)
    memory = round(card.total_memory / 2**30, 1)
    versions = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {**facts, "card": card.name, "card_memory_gib": memory, **versions, "driver": driver()}


def driver() -> str | None:
    """Version of NVIDIA's driver; None where its tool is missing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter(done.stdout.splitlines()), None)


def agreement(reference: Segmented, found: Segmented, devices: list[str]) -> dict[str, Any]:
    """How far labels, flip probabilities and volumes of a device are from the CPU's.

    Judged are Dice of all labelled voxels together and the volumes of structures that aren't small.
    """
    one, other = (np.asarray(result.dseg.dataobj) for result in (reference, found))
    volumes = (result.volumes.set_index("name")["volume_mm3"] for result in (reference, found))
    change = 100 * (pd.concat(volumes, axis=1, keys=["here", "there"]).pipe(relative))
    numbers = reference.volumes.set_index("name")["index"]
    numbers = numbers[numbers.isin(np.unique(one[one > 0]))]
    overlap = pd.Series({name: dice(one == i, other == i) for name, i in numbers.items()})
    same = 2 * int(((one == other) & (one > 0)).sum()) / int((one > 0).sum() + (other > 0).sum())
    volume = change[overlap.index].abs()
    large = reference.volumes.set_index("name")["volume_mm3"][overlap.index] >= JUDGED_MM3
    return {
        "compared": devices,
        "dice_of_all_labels": same,
        "dice_mean": overlap.mean(),
        "dice_least": overlap.min(),
        "dice_least_of": overlap.idxmin(),
        "volume_mean_percent": volume.mean(),
        "volume_most_percent": volume.max(),
        "volume_most_of": volume.idxmax(),
        **flip_difference(reference, found),
        "limits": {
            "dice_of_all_labels": LEAST_DICE,
            "volume_percent": MOST_VOLUME_PERCENT,
            "of_structures_from_mm3": JUDGED_MM3,
        },
        "passed": bool(same >= LEAST_DICE and (volume[large] <= MOST_VOLUME_PERCENT).all()),
        "dice": overlap.to_dict(),
        "volume_percent": change[overlap.index].to_dict(),
    }


def relative(table: pd.DataFrame) -> pd.Series:
    """Change from here to there, as a share of here."""
    return (table["there"] - table["here"]) / table["here"]


def flip_difference(reference: Segmented, found: Segmented) -> dict[str, float]:
    """Largest difference of the flip probabilities, and its mean where they aren't both 0."""
    if reference.flip_probability is None or found.flip_probability is None:
        return {}
    most, total, count = 0.0, 0.0, 0
    for i in range(reference.flip_probability.shape[-1]):  # all at once are 2 GB
        one, other = (
            np.asarray(result.flip_probability.dataobj[..., i], np.float32)
            for result in (reference, found)
        )
        somewhere = (one > 0) | (other > 0)
        difference = np.abs(one - other)[somewhere]
        most = max(most, float(difference.max(initial=0)))
        total, count = total + float(difference.sum(dtype=float)), count + len(difference)
    return {"flip_probability_most": most, "flip_probability_mean": total / max(1, count)}


def steps(args: argparse.Namespace, model: Model) -> dict[str, Any]:
    """Time and memory of each step; the first scan, which starts the GPU, is told apart."""
    first, clock = Clock(), Clock()
    one_scan(args.t1w, args.out / "scan", model, first)
    for _ in range(args.repeats):
        one_scan(args.t1w, args.out / "scan", model, clock)
    table = summarise(pd.DataFrame(clock.rows or first.rows))
    print("", *table_lines(table), sep="\n")
    return {
        "repeats": args.repeats,
        "first_scan_wall_s": sum(float(row["wall_s"]) for row in first.rows),
        "scan_wall_s": float(table["wall_s"].sum()),
        "gpu_peak_mib": float(table["gpu_peak_mib"].max()) if "gpu_peak_mib" in table else None,
        "by_step": table.round(4).reset_index().to_dict("records"),
    }


def network(t1w: Path, model: Model, by_step: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of the device's matrix product rate that the network reaches."""
    seconds = sum(row["wall_s"] for row in by_step if row["step"].startswith("network, "))
    work, machine_rate = 2 * multiply_adds(model, t1w), matmul_rate(model.device)
    return {
        "network_wall_s": seconds,
        "network_tera_multiply_adds": work / 2e12,
        "network_gflop_per_s": work / seconds / 1e9,
        "matmul_gflop_per_s": machine_rate / 1e9,
        "matmul_size": SIZE.get(model.device.type, SIZE["cpu"]),
        "share_of_matmul_percent": 100 * work / seconds / machine_rate,
    }


def throughput(
    args: argparse.Namespace, device: torch.device, workers: int, scan_s: float
) -> dict[str, Any]:
    """A run of the command line, start and pages included."""
    scans = args.scans or int(np.clip(_BUSY_S / scan_s, *_SCANS))
    # a device with a number is shared by the workers; without one, each has a GPU of its own
    where = f"cuda:{device.index or 0}" if device.type == "cuda" else str(device)
    folder = args.out / "run"
    names = (f"sub-{i + 1:03d}_T1w.nii.gz" for i in range(scans))
    links = [link(args.t1w, folder / "links" / name) for name in names]
    options = ["--model", args.model, "--device", where, args.workers_option, str(workers)]
    used = watched_scans(links, folder, [*options, "--skip-bids-validation"])
    return {
        "scans": scans,
        "wall_s": used.seconds,
        "scans_per_hour": 3600 * scans / used.seconds,
        "peak_mib_of_largest_process": used.peak_mib,
    }


def label_map(found: Segmented, folder: Path) -> Path:
    """The labels of a scan at 1 mm, to make synthetic scans from."""
    native = grid_of(found.dseg)
    working = working_grid(native)
    labels = nearest(np.asarray(found.dseg.dataobj, np.uint8), native, working)
    save_image(folder / "sub-check_dseg.nii.gz", labels, working, intent="label")
    return folder


def training(args: argparse.Namespace, device: torch.device, maps: Path) -> dict[str, Any]:
    """Stacks a second of a training run, the making of its scans included."""
    recipe = args.recipe or ("wide" if device.type == "cuda" else "fast")
    config = RECIPES[recipe]("label-flip")
    where = device if device.type == "cuda" else CPU
    source: Any = SyntheticSource(sorted(maps.glob("*_dseg.nii.gz")), device=where)
    if args.synthetic_scans:
        source = SyntheticScans(source, args.synthetic_scans, seed=0)
    options = RunOptions(args.out / "train", device, workers=args.train_workers)
    started = time.perf_counter()
    trainer = Trainer(config, source, options)
    reports: list[tuple[float, StepReport]] = []
    with closing(trainer.run()) as run:
        for report in run:
            reports.append((time.perf_counter(), report))
            if reports[-1][0] - reports[0][0] >= args.train_seconds and len(reports) > 1:
                break
    (first, earlier), (last, later) = reports[0], reports[-1]
    slices, (rows, columns) = config.network.depth.slices, config.sampling.patch
    return {
        "recipe": recipe,
        "workers": args.train_workers,
        "batch": config.batch,
        "stack": [slices, rows, columns],
        "first_step_wall_s": first - started,
        "wall_s": last - first,
        "stacks": later.samples - earlier.samples,
        "stacks_per_s": (later.samples - earlier.samples) / (last - first),
        "loss": later.loss,
    }


def lines_of(part: dict[str, Any]) -> list[str]:
    """Figures for people; tables are in the file."""
    shown = {k: v for k, v in part.items() if not isinstance(v, dict | list) or k == "compared"}
    return [f"  {k}: {v:.5g}" if isinstance(v, float) else f"  {k}: {v}" for k, v in shown.items()]


if __name__ == "__main__":
    sys.exit(main())
