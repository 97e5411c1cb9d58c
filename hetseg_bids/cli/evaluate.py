"""``hetseg-evaluate``: Dice, HD95 and volume error against reference segmentations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hetseg_bids.errors import InputError


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``hetseg-evaluate``."""
    parser = argparse.ArgumentParser(
        prog="hetseg-evaluate",
        description="Compare hetseg's dseg images with references (FreeSurfer aseg ids) on "
        "the same grid, named sub-X[_...]_dseg.nii.gz.",
    )
    parser.add_argument("references", type=Path, help="folder with reference dseg images")
    parser.add_argument("derivatives", type=Path, help="output folder of hetseg")
    parser.add_argument("--out", type=Path, help="TSV with a row a scan and structure")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    import pandas as pd
    from tqdm import tqdm

    from hetseg_bids.evaluation.compare import evaluate, find_matches, summary, write_scores

    try:
        matches = find_matches(args.references, args.derivatives)
        scores = pd.concat([evaluate(m) for m in tqdm(matches, unit="scan", disable=None)])
        if args.out is not None:
            write_scores(scores, args.out)
    except InputError as error:
        print(f"hetseg-evaluate: {error}", file=sys.stderr)
        return 2
    print(summary(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
