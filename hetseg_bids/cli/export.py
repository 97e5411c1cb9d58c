"""``hetseg-export``: results in the layout of FreeSurfer's SUBJECTS_DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hetseg_bids.cli.arguments import folder, path
from hetseg_bids.errors import HetsegError


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``hetseg-export``."""
    parser = argparse.ArgumentParser(
        prog="hetseg-export",
        description="Give FreeSurfer's tools what hetseg found: SUBJECTS_DIR/<scan>/mri/aseg.mgz, "
        "SUBJECTS_DIR/<scan>/stats/aseg.stats (for asegstats2table), and a colour table for "
        "freeview.",
    )
    parser.add_argument("out_dir", type=path, help="output folder of hetseg")
    parser.add_argument("subjects_dir", type=folder, help="folder to write to")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    from hetseg_bids.outputs.freesurfer import export

    try:
        for subject in export(args.out_dir, args.subjects_dir):
            print(subject)
    except (HetsegError, OSError) as error:
        print(f"hetseg-export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
