"""Two builds, models or sets of options over the same scan, or a queue of it, in turns.

    python benchmarks/side_by_side.py T1W OUT --builds DIR DIR --models NAME NAME [--rounds 3]
        [--scans 1] [--options "..." "..."] [options of hetseg]

Runs the command line of the first, of the second, of the first again, and so on, start and page
included, so that both see the same machine. Each of --builds is a folder that holds the package
`hetseg_bids`, by default this one. --options are for the first and for the second; options that
aren't named here go to both. With `--scans N`, N subjects are segmented in one call, and a column
has the seconds per scan after the first one: from the first page to the last. Writes
OUT/side_by_side.tsv (one row per run) and OUT/side_by_side.md. For an idle machine only.

What does it save that the scans of a queue overlap? With little memory they don't:

    python benchmarks/side_by_side.py T1W OUT --scans 8 --options "--mem-gb 2.5" ""
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path

import pandas as pd
from accuracy import write_dataset
from watched import completed, copies, watched_run

from hetseg_bids.evaluation.compare import write_table

_HERE = Path(__file__).resolve().parents[1]
_MEASURES = {
    "wall_s": "wall, s",
    "cpu_s": "CPU, s",
    "peak_mib": "peak, MiB",
    "next_s": "a scan after the first, s",
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("t1w", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--builds", type=Path, nargs=2, default=(_HERE, _HERE))
    parser.add_argument("--models", nargs=2, default=("label-flip", "label-flip"))
    parser.add_argument("--options", type=shlex.split, nargs=2, default=([], []))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scans", type=int, default=1)
    args, options = parser.parse_known_args()
    shutil.rmtree(args.out / "bids", ignore_errors=True)  # may have held more scans
    bids = write_dataset(copies(args.t1w, args.out / "links", args.scans), args.out / "bids")
    sides = list(zip(("first", "second"), args.builds, args.models, args.options, strict=True))
    rows = []
    for number in range(args.rounds):
        for which, build, model, own in sides:
            given = ["--model", model, *own, *options]
            used = watched_run(bids, args.out / "run", *given, build=build)
            row = {"wall_s": used.seconds, "cpu_s": used.cpu_seconds, "peak_mib": used.peak_mib}
            if args.scans > 1:
                row["next_s"] = completed(args.out / "run")[-1] / (args.scans - 1)
            rows.append({"round": number, "which": which, **row})
            write_table(pd.DataFrame(rows).round(2), args.out / "side_by_side.tsv")
    text = markdown(pd.DataFrame(rows))
    (args.out / "side_by_side.md").write_text(text, encoding="utf-8")
    print(text)


def markdown(rows: pd.DataFrame) -> str:
    """Median and range of each measure, and of the ratio in each round."""
    measures = [name for name in _MEASURES if name in rows]
    titles = [_MEASURES[name] for name in measures]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (1 + len(titles)) + "|"]
    table = rows.set_index(["round", "which"])[measures]
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
