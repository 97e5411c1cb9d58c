"""``hetseg-evaluate``: systems against reference segmentations, and against each other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hetseg_bids.cli.arguments import folder, path
from hetseg_bids.errors import COLON, HetsegError, OptionError


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``hetseg-evaluate``."""
    parser = argparse.ArgumentParser(
        prog="hetseg-evaluate",
        description="Compare hetseg's dseg images with references (FreeSurfer aseg ids) on "
        "the same grid, named sub-X[_...]_dseg.nii.gz, and systems with each other.",
    )
    parser.add_argument("references", type=path, help="folder with reference dseg images")
    parser.add_argument(
        "derivatives",
        nargs="+",
        metavar="[NAME=]DIR",
        help="output folders of hetseg; the same NAME again is another run (seed) of that system",
    )
    scored = parser.add_mutually_exclusive_group()
    scored.add_argument(
        "--structures",
        choices=("paper", "aseg"),
        default="paper",
        help="score the 28 structures (labels of a whole aseg are merged), or each label of an "
        "aseg (default: %(default)s)",
    )
    scored.add_argument(
        "--labels",
        type=path,
        metavar="TSV",
        help="the structures of a model with its own (as for hetseg-train)",
    )
    parser.add_argument(
        "--out", type=path, help="TSV with one row per system, run, scan and structure"
    )
    parser.add_argument(
        "--report",
        type=folder,
        metavar="DIR",
        help="write scores, Table 1 (TSV and Markdown), Wilcoxon tests between systems with "
        "Holm's correction, and label-flip overlays of scans whose T1w lies beside the reference",
    )
    parser.add_argument(
        "--curves",
        nargs="+",
        default=[],
        metavar="NAME=RUN",
        help="with --report: draw learning curves from output folders of hetseg-train --validate",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.curves and args.report is None:
        parser.error("--curves needs --report")
    try:
        _evaluate(args)
    except (HetsegError, OSError) as error:
        print(f"hetseg-evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def _evaluate(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from hetseg_bids.evaluation import compare, report
    from hetseg_bids.structures.aseg import ASEG, WHOLE_ASEG
    from hetseg_bids.structures.label_tables import read_label_table

    systems = [compare.System(n, runs) for n, runs in _named_folders(args.derivatives).items()]
    label_set = WHOLE_ASEG if args.structures == "aseg" else ASEG
    if args.labels is not None:
        label_set = read_label_table(args.labels)
    curves = _named_folders(args.curves)
    scores = compare.score_systems(
        args.references, systems, lambda work: tqdm(work, unit="scan", disable=None), label_set
    )
    if args.out is not None:
        compare.write_table(scores, args.out)
    if args.report is not None:
        report.write_report(scores, args.report)
        report.write_overlays(args.references, systems, args.report / "overlays", label_set)
        if curves:
            report.write_curves(curves, args.report)
    print(compare.summary(scores))


def _named_folders(words: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Folders by name, from words ``NAME=DIR``; a word ``DIR`` has the name of the folder."""
    found: dict[str, tuple[Path, ...]] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or path(word).exists():
            name, place = path(word).resolve().name, word
        if not name or not place:
            raise OptionError(word, "give NAME=DIR", form=COLON)
        found[name] = (*found.get(name, ()), path(place))
    return found


if __name__ == "__main__":
    sys.exit(main())
