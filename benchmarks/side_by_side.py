"""Two builds or two models over the same scan in turns: time, memory, and their ratios.

    python benchmarks/side_by_side.py T1W OUT --builds DIR DIR --models NAME NAME [--rounds 3]
        [options of hetseg]

Runs the command line of the first, of the second, of the first again, and so on, start and page
included, so that both see the same machine. Each of --builds is a folder that holds the package
`hetseg_bids`, by default this one. Options that aren't named here go to both. Writes
OUT/side_by_side.tsv (one row per run) and OUT/side_by_side.md. For an idle machine only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from accuracy import link, write_dataset
from watched import watched_run

from hetseg_bids.evaluation.compare import write_table

_HERE = Path(__file__).resolve().parents[1]
_MEASURES = ("wall_s", "cpu_s", "peak_mib")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--builds", type=Path, nargs=2, default=(_HERE, _HERE))
    parser.add_argument("--models", nargs=2, default=("label-flip", "label-flip"))
    parser.add_argument("--rounds", type=int, default=3)
    args, options = parser.parse_known_args()
    scan = link(args.t1w, args.out / "sub-one_T1w.nii.gz")
    bids = write_dataset([scan], args.out / "bids")
    rows = []
    for number in range(args.rounds):
        for which, build, model in zip(("first", "second"), args.builds, args.models, strict=True):
            used = watched_run(bids, args.out / "run", "--model", model, *options, build=build)
            row = {"wall_s": used.seconds, "cpu_s": used.cpu_seconds, "peak_mib": used.peak_mib}
            rows.append({"round": number, "which": which, **row})
            write_table(pd.DataFrame(rows).round(2), args.out / "side_by_side.tsv")
    text = markdown(pd.DataFrame(rows))
    (args.out / "side_by_side.md").write_text(text, encoding="utf-8")
    print(text)


def markdown(rows: pd.DataFrame) -> str:
    """Median and range of each measure, and of the ratio in each round."""
    lines = ["| | wall, s | CPU, s | peak, MiB |", "|---|---|---|---|"]
    table = rows.set_index(["round", "which"])[[*_MEASURES]]
    first, second = (table.xs(which, level="which") for which in ("first", "second"))
    for name, found, digits in (
        ("first", first, 1),
        ("second", second, 1),
        ("second / first", second / first, 2),
    ):
        cells = [
            f"{column.median():.{digits}f} ({column.min():.{digits}f}-{column.max():.{digits}f})"
            for _, column in found.items()
        ]
        lines.append("| " + " | ".join((name, *cells)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
