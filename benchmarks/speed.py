"""Where the time of a scan goes, and what share of the machine the network uses.

    python benchmarks/speed.py T1W OUT [--model NAME] [--device auto] [--threads N] [--repeats 3]

Runs every step of a participant run by itself: wall time, CPU time and peak memory, median over
the repeats with their range; for the network also multiply-adds and the share of the matrix
product rate that this machine reaches in the same number format. Then times whole runs of the
command line. Writes OUT/speed.tsv and OUT/speed.md. For an idle machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import link, write_dataset
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from watched import watched, watched_run

from hetseg_bids.config import Settings
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.images import Grid
from hetseg_bids.network.devices import (
    device_name,
    keep_freed_memory,
    resolve_device,
    set_threads,
)
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.outputs.derivatives import OutputPaths, Provenance, write_images, write_sidecars
from hetseg_bids.outputs.derivatives import write_tables as write_derivative_tables
from hetseg_bids.preprocessing import brain_extraction as strip
from hetseg_bids.preprocessing.conform import nearest, resample, resample_inside, working_grid
from hetseg_bids.preprocessing.headers import T1w, read_t1w
from hetseg_bids.preprocessing.normalisation import standardise
from hetseg_bids.preprocessing.number_formats import inference_format
from hetseg_bids.preprocessing.transfer import to_device, to_host, volume_device
from hetseg_bids.quality.image_quality import measure_image
from hetseg_bids.reports.participant import write_report
from hetseg_bids.segmentation.inference import (
    Logits,
    brain_box,
    mean_of_views_,
    near_mask,
    soften,
    to_logits_,
)
from hetseg_bids.segmentation.labels import segment
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.segmentation.views import add_view_, empty_logits, views_of

# of the matrices whose product is the machine's measure: a GPU needs larger ones to be busy
SIZE = {"cpu": 2048, "cuda": 8192}
_SECONDS = 1.0


@dataclass
class Clock:
    """Rows of (step, wall s, CPU s, peak MiB)."""

    rows: list[dict[str, object]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a block."""
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        row = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        row["peak_mib"] = peak_mib()
        if torch.cuda.is_available():
            row["gpu_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        self.rows.append({"step": name, **row})


def peak_mib() -> float:
    """Largest resident set since the counter was last cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="label-flip")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    set_threads(args.threads)
    device = resolve_device(args.device)
    needs, clock = Clock(), Clock()
    with clock.step("load the model"):
        model = load_model(args.model, device)
    one_scan(args.t1w, args.out / "scan", model, needs)
    keep_freed_memory()  # as a run does: from here on memory tells nothing of a single step
    for _ in range(args.repeats):
        one_scan(args.t1w, args.out / "scan", model, clock)
    steps = summarise(pd.DataFrame(clock.rows))
    peaks = pd.DataFrame(needs.rows).set_index("step")["peak_mib"]
    steps["peak_mib"] = peaks.reindex(steps.index).fillna(steps["peak_mib"])
    network = steps.loc[steps.index.str.startswith("network, "), "wall_s"].sum()
    work = 2 * multiply_adds(model, args.t1w)
    machine, size = matmul_rate(device), SIZE.get(device.type, SIZE["cpu"])
    lines = [
        f"{device_name(device)}, {os.cpu_count()} logical processors, torch {torch.__version__}, "
        f"{inference_format(device)}; {args.t1w.name}, "
        f"{args.repeats} repeats",
        "",
        *table_lines(steps),
        "",
        f"Network, {len(views_of(model))} views: {network:.1f} s, "
        f"{work / 2e12:.2f} T multiply-adds, "
        f"{work / network / 1e9:.0f} GFLOP/s, {work / network / machine:.0%} of the "
        f"{machine / 1e9:.0f} GFLOP/s of a matrix product of {size} x {size}",
        *(f"{name}: {value}" for name, value in whole_runs(args).items()),
    ]
    write_table(steps.reset_index(), args.out / "speed.tsv")
    (args.out / "speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


def one_scan(t1w: Path, folder: Path, model: Model, clock: Clock) -> None:
    """Every step of `runs.scan._make`, by itself."""
    with clock.step("read"):
        scan = read_t1w(t1w)
    native = Grid(scan.data.shape, scan.affine)
    working = working_grid(native)
    with clock.step("conform"):
        image = conformed(scan, native, working, model.device)
    with clock.step("brain extraction"):
        mask, stripped = brain_of(scan, image, working, model.device)
    with clock.step("standardise"):
        scores = standardise(image, torch.from_numpy(mask))
    logits = views(model, scores, torch.from_numpy(mask), clock)
    with clock.step("resample, label"):
        result = segment(logits, working, native)
    with clock.step("volumes"):
        table = measure(result)
    paths = OutputPaths(folder / "anat", "sub-speed", "", folder / "sub-speed.html")
    with clock.step("image quality"):
        labels = nearest(np.asarray(result.full(result.dseg)), native, working)
        image = measure_image(scores.numpy(), mask, labels, result.label_set)
    with clock.step("write"):
        inside = resample(torch.from_numpy(mask).float()[None], working, native)[0] > 0.5
        write_images(paths, result, inside.numpy().astype(np.uint8))
        write_derivative_tables(paths, table, result.label_set)
        provenance = Provenance(
            sources=[""],
            source_sha256="",
            mask_sha256=None,
            plan=model.plan,
            settings=Settings(),
            extraction="skip" if stripped else "deepbet",
            mask_mm3=float(mask.sum()),
            image=image,
            plausibility=Plausibility(),
            turned_deg=0.0,
            warnings=(),
        )
        there = result.flip_probability is not None
        write_sidecars(paths, provenance, result.label_set, flip_probability=there)
    with clock.step("report"):
        write_report(paths, t1w)


def conformed(scan: T1w, native: Grid, working: Grid, device: torch.device) -> Tensor:
    """The image on the working grid, as `pipeline.prepare_image` makes it."""
    volume = to_device(torch.from_numpy(scan.data), volume_device(device))
    return to_host(resample(volume[None], native, working)[0])


def brain_of(
    scan: T1w, image: Tensor, working: Grid, device: torch.device
) -> tuple[np.ndarray, bool]:
    """Brain mask on the working grid as `pipeline.prepare` makes it, and whether it was there."""
    brain = strip.stripped_brain(scan.data, scan.background, scan.grid.zooms)
    if strip.is_stripped(float(brain.sum()) * scan.grid.voxel_volume / 1000):
        how = {"outside": scan.background, "device": volume_device(device)}
        moved = resample_inside(scan.data, brain, scan.grid, working, **how)
        return moved[1].numpy(), True
    return strip.extract_brain(image.numpy(), device), False


def views(model: Model, scores: Tensor, mask: Tensor, clock: Clock) -> Logits:
    """The views one by one, as `inference.predict` does them."""
    box, there = brain_box(mask), volume_device(model.device)
    image = soften(to_device(scores[box], there), model.plan.smoothing)
    chosen = views_of(model)
    near = to_device(near_mask(mask[box]), there)
    total = empty_logits(len(chosen[0].keep), image.shape, there)
    for view in chosen:
        with clock.step(f"network, {view.name}"):
            add_view_(total, image, view, near)
    with clock.step("fusion, detached pieces"):
        mean = mean_of_views_(total, len(chosen), near)
        return to_logits_(mean, model.plan, box)


def multiply_adds(model: Model, t1w: Path) -> float:
    """Of all convolutions over the views of a scan."""
    scan = read_t1w(t1w)
    native = Grid(scan.data.shape, scan.affine)
    working = working_grid(native)
    image = conformed(scan, native, working, model.device)
    mask, _ = brain_of(scan, image, working, model.device)
    scores = standardise(image, torch.from_numpy(mask))
    with FlopCounterMode(display=False) as counter:
        views(model, scores, torch.from_numpy(mask), Clock())
    return counter.get_total_flops() / 2


def matmul_rate(device: torch.device) -> float:
    """Floating point operations a second of a large matrix product in the network's format."""
    kind = inference_format(device)
    size = SIZE.get(device.type, SIZE["cpu"])
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    best, until = np.inf, time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Median, range and peak of each step, in order."""
    groups = rows.groupby("step", sort=False)
    table = groups[["wall_s", "cpu_s"]].median()
    wall = groups["wall_s"]
    peaks = groups[[name for name in rows if name.endswith("peak_mib")]].max()
    return table.assign(low_s=wall.min(), high_s=wall.max()).join(peaks)


def table_lines(steps: pd.DataFrame) -> list[str]:
    """The steps as Markdown."""
    lines = ["| step | wall, s (range) | CPU, s | peak, MiB |", "|---|---|---|---|"]
    for name, row in steps.iterrows():
        wall = f"{row['wall_s']:.2f} ({row['low_s']:.2f}-{row['high_s']:.2f})"
        lines.append(f"| {name} | {wall} | {row['cpu_s']:.2f} | {row['peak_mib']:.0f} |")
    if "gpu_peak_mib" in steps:
        more = ["GPU, MiB |", "---|", *(f"{peak:.0f} |" for peak in steps["gpu_peak_mib"])]
        lines = [f"{line} {cell}" for line, cell in zip(lines, more, strict=True)]
    return lines


def whole_runs(args: argparse.Namespace) -> dict[str, str]:
    """The command line from start to end, its start-up, and its memory."""
    scan = link(args.t1w, args.out / "sub-speed_T1w.nii.gz")
    bids = write_dataset([scan], args.out / "bids")
    options = ("--model", args.model, "--device", args.device)
    totals, without, peaks = [], [], []
    for _ in range(args.repeats):
        used = watched_run(bids, args.out / "run", *options)
        totals.append(used.seconds)
        peaks.append(used.peak_mib)
        record = next((args.out / "run" / "logs").glob("*_run.json"))
        without.append(float(json.loads(record.read_text())["Run time without the report"][:-2]))
    imports = "import hetseg_bids.runs.scan, hetseg_bids.runs.participants"
    start_up = watched([sys.executable, "-c", imports]).seconds
    return {
        "Whole run with start and report": f"{np.median(totals):.1f} s "
        f"({min(totals):.1f}-{max(totals):.1f})",
        "Scan without report": f"{np.median(without):.1f} s",
        "Imports": f"{start_up:.1f} s",
        "Peak memory of the whole run": f"{max(peaks):.0f} MiB",
    }


if __name__ == "__main__":
    main()
