"""Whether p and q mean what they say on real scans.

    python benchmarks/calibration.py DATA OUT [--model NAME]

DATA holds sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids) in one folder. Writes
OUT/calibration.tsv: expected calibration error of p (is the voxel this structure?) and q (is the
label wrong?) a structure, over the brain and within 2 voxels of the structure's true boundary, as
they come and after a logistic correction fitted on the other scans; and OUT/reliability.png, .svg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from accuracy import read_reference, scans_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage, optimize, special

from hetseg_bids import segment
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.figures import save_figure
from hetseg_bids.evaluation.metrics import boundary_band
from hetseg_bids.structures.aseg import STRUCTURES

REGIONS = ("brain", "boundary")
_REACH = 2  # voxels
_LOGITS = np.linspace(-12, 12, 481)  # fine bins, from which any correction can be judged
_BINS = 20
_HIGHEST = {"p": 1.0, "q": 0.5}


def main() -> None:
    """Count, correct, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="label-flip")
    args = parser.parse_args()
    counts = pd.concat([count(path, args.model) for path in scans_of(args.data)])
    table = pd.concat([errors(counts), errors(cross_corrected(counts), "other scans")])
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(table, args.out / "calibration.tsv")
    save_figure(diagram(counts), args.out / "reliability")
    print(table[table["name"] == "all"].to_string(index=False))


def count(t1w: Path, model: str) -> pd.DataFrame:
    """Voxels and events of one scan in fine bins of the forecast's logit."""
    result = segment(t1w, model=model)
    labels = np.asarray(result.dseg.dataobj)
    truth = read_reference(t1w)
    brain = ndimage.binary_dilation(truth > 0, iterations=_REACH)
    tables = []
    for i, structure in enumerate(STRUCTURES):
        here = truth == structure.label
        box, band = boundary_band(here, _REACH)
        wrong = here != (labels == structure.label)
        for kind, image, event in (
            ("p", result.probability, here),
            ("q", result.flip_probability, wrong),
        ):
            forecast = np.asarray(image.dataobj[..., i])
            for region, f, e in (
                ("brain", forecast[brain], event[brain]),
                ("boundary", forecast[box][band], event[box][band]),
            ):
                table = binned(f, e)
                tables.append(table.assign(name=structure.name, kind=kind, region=region))
    return pd.concat(tables).assign(scan=t1w.name.split("_")[0])


def binned(forecast: np.ndarray, event: np.ndarray) -> pd.DataFrame:
    """Voxels, events and summed forecast by bin of the logit."""
    logit = special.logit(np.clip(forecast.astype(float), 1e-6, 1 - 1e-6))
    index = np.digitize(logit, _LOGITS)
    size = len(_LOGITS) + 1
    sums = [np.bincount(index, w, size) for w in (None, event, forecast)]
    table = pd.DataFrame(dict(zip(("voxels", "events", "forecast"), sums, strict=True)))
    return table[table["voxels"] > 0].reset_index(drop=True)


def cross_corrected(counts: pd.DataFrame) -> pd.DataFrame:
    """The counts with forecasts corrected by what the other scans say, kind by kind."""
    parts = []
    for (scan, kind), rows in counts.groupby(["scan", "kind"], sort=False):
        others = counts[(counts["scan"] != scan) & (counts["kind"] == kind)]
        others = others[others["region"] == "brain"]
        mean = rows["forecast"] / rows["voxels"]
        corrected = correct(mean.to_numpy(), *fit(others)) if len(others) else mean
        parts.append(rows.assign(forecast=corrected * rows["voxels"]))
    return pd.concat(parts)


def fit(counts: pd.DataFrame) -> tuple[float, float]:
    """Slope and offset on the logit scale with the greatest likelihood (Platt 1999)."""
    n, events = counts["voxels"].to_numpy(), counts["events"].to_numpy()
    logit = special.logit(np.clip(counts["forecast"] / n, 1e-6, 1 - 1e-6)).to_numpy()

    def loss(values: np.ndarray) -> float:
        z = values[0] * logit + values[1]
        return float((n * np.logaddexp(0, z) - events * z).sum() / n.sum())

    found = optimize.minimize(loss, (1.0, 0.0), method="Nelder-Mead")
    return float(found.x[0]), float(found.x[1])


def correct(forecast: np.ndarray, slope: float, offset: float) -> np.ndarray:
    """Apply what `fit` found."""
    return special.expit(slope * special.logit(np.clip(forecast, 1e-6, 1 - 1e-6)) + offset)


def errors(counts: pd.DataFrame, corrected: str = "no") -> pd.DataFrame:
    """Expected calibration error, one row per kind, region and structure, and one for all."""
    whole = counts.assign(name="all")
    rows = []
    for (kind, region, name), group in pd.concat([whole, counts]).groupby(
        ["kind", "region", "name"], sort=False
    ):
        bins = coarse(group, kind)
        gap = (bins["forecast"] - bins["events"]).abs().sum() / bins["voxels"].sum()
        total = group[["voxels", "events", "forecast"]].sum()
        rows.append(
            {
                "kind": kind,
                "region": region,
                "name": name,
                "corrected_on": corrected,
                "voxels": int(total["voxels"]),
                "mean_forecast": total["forecast"] / total["voxels"],
                "true_rate": total["events"] / total["voxels"],
                "ece": gap,
            }
        )
    return pd.DataFrame(rows)


def coarse(counts: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Sums in `_BINS` equal bins of the forecast."""
    mean = counts["forecast"] / counts["voxels"]
    index = np.minimum((mean / _HIGHEST[kind] * _BINS).astype(int), _BINS - 1)
    return counts.groupby(index)[["voxels", "events", "forecast"]].sum()


def diagram(counts: pd.DataFrame) -> Figure:
    """True rate against forecast of p and q, a line a scan."""
    figure = Figure(figsize=(8.5, 4.2))
    FigureCanvasAgg(figure)
    for place, (kind, highest) in enumerate(_HIGHEST.items(), start=1):
        axes = figure.add_subplot(1, 2, place)
        axes.plot([0, highest], [0, highest], color="0.6", linewidth=1)
        for region, style in zip(REGIONS, ("-", "--"), strict=True):
            chosen = counts[(counts["kind"] == kind) & (counts["region"] == region)]
            for number, (scan, rows) in enumerate(chosen.groupby("scan", sort=False)):
                bins = coarse(rows, kind)
                bins = bins[bins["voxels"] >= 100]
                axes.plot(
                    bins["forecast"] / bins["voxels"],
                    bins["events"] / bins["voxels"],
                    style,
                    color=f"C{number}",
                    marker="o",
                    markersize=3,
                    label=f"{scan}, {region}",
                )
        axes.set(xlabel=f"forecast {kind}", ylabel="true rate")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main()
