"""How long a run takes, by the number of subjects and by the number of voxels.

    python benchmarks/scaling.py T1W OUT [--subjects 1 2 4 ...] [--nprocs 1 2] [--voxels 2 1.5 ...]

Runs the command line from start to end: over datasets that hold T1W (.nii.gz) as every subject, in
one process and with dask workers (`--nprocs`), and over T1W resampled to isotropic voxels of other
sizes (mm). Options that aren't named here go to hetseg, e.g. `--views axial` for a quick try.
Writes OUT/scaling.tsv and OUT/scaling.png. A row of the table is a run: wall and CPU time, memory
of its largest process, and the seconds per scan in the first and in the second half of its scans.
For an idle machine only.

Does the time of a scan stay the same over 64 of them with two workers?

    python benchmarks/scaling.py T1W OUT --subjects 64 --nprocs 2 --voxels
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from degradations import Scan, regrid
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from watched import completed, copies, watched_scans

from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.images import Grid
from hetseg_bids.outputs.derivatives import save_image

SUBJECTS = (1, 2, 4, 8, 16, 32, 64)
WORKERS = (1, 2)
VOXELS = (2.0, 1.5, 1.0, 0.8, 0.7)


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=int, nargs="+", default=SUBJECTS)
    parser.add_argument("--nprocs", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--voxels", type=float, nargs="*", default=VOXELS)
    args, options = parser.parse_known_args()
    rows = []
    for row in runs(args, options):
        rows.append(row)
        table = pd.DataFrame(rows).round(2)
        write_table(table, args.out / "scaling.tsv")  # hours may pass: keep what is there
    print(table.to_string(index=False))
    draw(table, args.out / "scaling.png")


def runs(args: argparse.Namespace, options: list[str]) -> Iterator[dict[str, object]]:
    """One row per run."""
    voxels = int(np.prod(nib.load(args.t1w).shape))
    for workers in args.nprocs:
        for count in args.subjects:
            scans = copies(args.t1w, args.out / "links", count)
            run = timed_run(scans, args.out, [*options, "--nprocs", str(workers)])
            yield {"kind": processes(workers), "n": count, "voxels": voxels, **run}
    for size in args.voxels:
        scan = resampled(args.t1w, args.out / "resampled", size)
        run = timed_run([scan], args.out, options)
        voxels = int(np.prod(nib.load(scan).shape))
        yield {"kind": f"{size:g} mm", "n": 1, "voxels": voxels, **run}


def processes(count: int) -> str:
    """What the rows of a number of workers are called."""
    return "one process" if count == 1 else f"{count} workers"


def resampled(t1w: Path, folder: Path, size: float) -> Path:
    """The scan with isotropic voxels of a size, mm."""
    scan = Scan.read(t1w)
    zooms = nib.affines.voxel_sizes(scan.affine)
    affine = scan.affine.copy()
    affine[:3, :3] *= size / zooms
    shape = tuple(int(n * zoom / size) for n, zoom in zip(scan.image.shape, zooms, strict=True))
    seen = regrid(scan, scan.image, Grid(shape, affine))
    path = folder / f"sub-{round(1000 * size)}um_T1w.nii.gz"
    save_image(path, seen.image, Grid(seen.image.shape, seen.affine), intent="none")
    return path


def timed_run(scans: list[Path], out: Path, options: list[str]) -> dict[str, float]:
    """Time and peak memory of one run over a fresh dataset; a failure ends the program."""
    used = watched_scans(scans, out, options)
    row = {"wall_s": used.seconds, "cpu_s": used.cpu_seconds, "peak_mib": used.peak_mib}
    return row | halves(completed(out / "run"))


def halves(times: list[float]) -> dict[str, float]:
    """Seconds per scan in both halves of the scans; NaN where there are too few."""
    middle = len(times) // 2
    return {
        "first_half_s": float(np.mean(np.diff(times[: middle + 1]))) if middle else np.nan,
        "second_half_s": float(np.mean(np.diff(times[middle:]))) if len(times) > 2 else np.nan,
    }


def draw(table: pd.DataFrame, path: Path) -> None:
    """Wall time by subjects and by voxels."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    sizes = table["kind"].str.endswith(" mm")
    for kind, rows in table[~sizes].groupby("kind", sort=False):
        left.plot(rows["n"], rows["wall_s"], marker="o", label=kind)
    left.legend(frameon=False)
    left.set_xlabel("subjects")
    rows = table[sizes].sort_values("voxels")
    right.plot(rows["voxels"] / 1e6, rows["wall_s"], marker="o")
    for row in rows.itertuples():
        place = (row.voxels / 1e6, row.wall_s)
        right.annotate(row.kind, place, (5, -12), textcoords="offset points")
    right.set_xlabel("million voxels of one scan")
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("wall time of the run, s")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
