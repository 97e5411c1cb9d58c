"""What each part of the synthesis is worth on real scans.

    python benchmarks/ablation.py MAPS DATA OUT [--init MODEL] [--samples N] [--only NAME ...]

MAPS holds the label maps, DATA sub-X_T1w.nii.gz and sub-X_dseg.nii.gz (FreeSurfer aseg ids).
Trains a finished model on, from one seed, with one part changed at a time, and
scores it on DATA: what is forgotten again without a part is what the part had taught. A
run from nothing would say the same with more contrast, and takes hours each. Writes
OUT/ablation.tsv (one row per part, scan and structure) and OUT/ablation.md. What exists is not made
again. A part that takes random numbers shifts those of all others: what a difference is worth only
other seeds can tell (an OUT for each).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accuracy import read_reference, scans_of

from hetseg_bids.api import segment
from hetseg_bids.evaluation.compare import write_table
from hetseg_bids.evaluation.metrics import dice
from hetseg_bids.network.devices import set_threads
from hetseg_bids.network.models import Model, load_model
from hetseg_bids.structures.aseg import ASEG
from hetseg_bids.training.recipes import TrainingConfig, fast_recipe
from hetseg_bids.training.session import export
from hetseg_bids.training.synthesis.label_noise import CLEAN, LabelNoiseConfig
from hetseg_bids.training.synthesis.painting import SynthesisConfig, SyntheticSource
from hetseg_bids.training.trainer import RunOptions, Trainer

WHOLE = "everything"
_LARGE = ("cerebral_cortex", "cerebral_white_matter", "cerebellum")
_AS_IS = SynthesisConfig()
PARTS: dict[str, SynthesisConfig] = {
    WHOLE: _AS_IS,
    "no pia": replace(_AS_IS, pia=(0.0, 0.0)),
    "no pale deep grey matter": replace(_AS_IS, pale_rate=0.0),
    "no motion": replace(_AS_IS, motion_rate=0.0),
    "no noise": replace(_AS_IS, noise=(0.0, 0.0)),
    "noise up to twice": replace(_AS_IS, noise=(0.0, 2 * _AS_IS.noise[1])),
    "rotations of twice": replace(_AS_IS, rotation_deg=2 * _AS_IS.rotation_deg),
    "no bias field": replace(_AS_IS, bias=0.0),
    "no blur": replace(_AS_IS, blur=(0.0, 0.0)),
    "no thick slices": replace(_AS_IS, thick_rate=0.0),
    "no gamma": replace(_AS_IS, gamma=(1.0, 1.0)),
    "one contrast": replace(_AS_IS, contrast=(1.0, 1.0)),
    "no warp": replace(_AS_IS, warp=()),
    "accumbens and pallida as in the maps": replace(_AS_IS, grown=()),
    "sizes of deep structures varied": replace(_AS_IS, sizes=0.12),
    "no affine": replace(_AS_IS, rotation_deg=0.0, shear=0.0, scale=(1.0, 1.0)),
    "clean labels": replace(_AS_IS, labels=CLEAN),
    "labels moved by 0.3-0.9": replace(_AS_IS, labels=LabelNoiseConfig(jitter=(0.3, 0.9))),
}


def main() -> None:
    """Train, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--init", default="label-flip")
    parser.add_argument("--samples", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS))
    args = parser.parse_args()
    set_threads(1)
    tables = [score("as shipped", args.init, args)]
    for name in args.only:
        tables.append(score(name, str(train(name, args)), args))
        table = pd.concat(tables)
        write_table(table, args.out / "ablation.tsv")
    text = markdown(table)
    (args.out / "ablation.md").write_text(text, encoding="utf-8")
    print(text)


def train(name: str, args: argparse.Namespace) -> Path:
    """The model that was trained on without a part."""
    initial = load_model(args.init, torch.device("cpu"))
    config = fast_recipe("label-flip", samples=args.samples, seed=args.seed)
    config = replace(
        config, network=initial.plan.network, initial_weights=initial.plan.weights_sha256
    )
    source = SyntheticSource(sorted(args.maps.glob("*.nii*")), PARTS[name])
    return train_to_end(args.out, name, config, source, initial)


def train_to_end(
    out: Path,
    name: str,
    config: TrainingConfig,
    source: SyntheticSource,
    initial: Model | None = None,
    after_step: Callable[[], None] | None = None,
) -> Path:
    """The model of a run under OUT, trained where it isn't there yet; interrupted runs go on."""
    folder = out / name.replace(" ", "-")
    if not (folder / "model" / "plan.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = RunOptions(folder, torch.device("cpu"), workers=0, compile=True)
        trainer = Trainer(config, source, options, initial)
        trainer.resume()
        for _ in trainer.run():
            if after_step is not None:
                after_step()
        export(trainer, folder / "model", name)
    return folder / "model"


def score(name: str, model: str, args: argparse.Namespace, *, mirror: bool = False) -> pd.DataFrame:
    """Dice and volume of each structure of each scan."""
    kept = args.out / f"{name.replace(' ', '-')}.tsv"
    if kept.exists():
        return pd.read_csv(kept, sep="\t", na_values="n/a")
    rows = []
    for t1w in scans_of(args.data):
        found = np.asarray(segment(t1w, model=model, mirror=mirror).dseg.dataobj)
        truth = read_reference(t1w)
        for s in ASEG.structures:
            a, b = found == s.label, truth == s.label
            row = {"part": name, "scan": t1w.name.split("_")[0], "name": s.name}
            rows.append({**row, "dice": dice(a, b), "volume_ratio": a.sum() / max(1, b.sum())})
    table = pd.DataFrame(rows)
    write_table(table, kept)
    return table


def markdown(table: pd.DataFrame) -> str:
    """Mean Dice of each scan, and what changes against training on with everything."""
    large = table["name"].str.replace(r"^(left|right)_", "", regex=True).isin(_LARGE)
    cortex = table["name"].str.endswith("cerebral_cortex")
    columns = {
        **{scan: table["scan"] == scan for scan in table["scan"].unique()},
        "large structures": large,
        "the other 22": ~large,
    }
    means = {
        k: table[rows].groupby("part", sort=False)["dice"].mean() for k, rows in columns.items()
    }
    frame = pd.DataFrame(means)
    frame["volume of cortex"] = table[cortex].groupby("part", sort=False)["volume_ratio"].mean()
    lines = ["| training goes on with | " + " | ".join(frame.columns) + " |"]
    lines.append("|" + "---|" * (1 + len(frame.columns)))
    for part, row in frame.iterrows():
        cells = [f"{row[c]:.3f} ({row[c] - frame.loc[WHOLE, c]:+.3f})" for c in columns]
        lines.append(f"| {part} | " + " | ".join([*cells, f"{row.iloc[-1]:.2f}"]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
