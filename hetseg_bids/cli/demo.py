"""``hetseg demo OUT``: segment the MNI152 T1w that comes with nilearn."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from hetseg_bids.cli.arguments import folder
from hetseg_bids.cli.imports import imported_for_good
from hetseg_bids.config import RunConfig
from hetseg_bids.errors import HetsegError


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="hetseg demo",
        description="Write the MNI152 2009a T1w of nilearn as a one-subject BIDS dataset "
        "to OUT/bids and segment it to OUT/derivatives.",
    )
    parser.add_argument("out", type=folder)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda[:i] or mps")
    parser.add_argument("--overwrite", action="store_true", help="segment again")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    with imported_for_good():
        from hetseg_bids.dataset.demo import write_demo_dataset
        from hetseg_bids.runs.participants import run_participants

    try:
        bids_dir = write_demo_dataset(args.out / "bids")
        config = RunConfig(
            bids_dir=bids_dir,
            out_dir=args.out / "derivatives",
            device=args.device,
            overwrite=args.overwrite,
            command="hetseg demo",
        )
        return run_participants(config)
    except HetsegError as error:
        print(f"hetseg demo: {error}", file=sys.stderr)
        return 2
