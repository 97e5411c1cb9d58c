"""``hetseg-train``: train a network from label maps or from labelled scans."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from hetseg_bids.cli.arguments import (
    folder,
    name_or_path,
    path,
    positive,
    positive_float,
    share,
    whole,
)
from hetseg_bids.config import RECIPE_NAMES, SYSTEM_NAMES
from hetseg_bids.errors import HetsegError, OptionError


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``hetseg-train``."""
    parser = argparse.ArgumentParser(
        prog="hetseg-train",
        description="Train a tri-planar label-flip network. An interrupted run goes on "
        "where its last checkpoint was when the same command is given again.",
    )
    parser.add_argument("out", type=folder, help="folder for checkpoints, logs and the model")
    _add_sources(parser)
    _add_data(parser)
    _add_models(parser)
    _add_recipe(parser)
    _add_execution(parser)
    return parser


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label-maps",
        type=path,
        metavar="DIR",
        help="generate synthetic T1w from the 1 mm label maps (*.nii, *.nii.gz) in DIR",
    )
    parser.add_argument(
        "--scans",
        type=path,
        metavar="DIR",
        help="train on the T1w + dseg pairs of a BIDS-derivatives dataset (skull-stripped T1w)",
    )
    parser.add_argument(
        "--unlabelled",
        type=path,
        metavar="DIR",
        help="train on the T1w in DIR with the maps of --teacher, which are kept in OUT/taught",
    )
    parser.add_argument(
        "--shares",
        type=positive_float,
        nargs="+",
        metavar="X",
        help="how often each of --label-maps, --scans and --unlabelled, of those given and in this "
        "order, is drawn from (default: equally often)",
    )
    parser.add_argument(
        "--average",
        type=name_or_path,
        nargs="+",
        metavar="MODEL",
        help="train nothing: write the mean of the weights of models trained from the same --init",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        type=path,
        default=None,
        metavar="TSV",
        help="the structures to learn: a table with columns index (value in the label images), "
        "name (left_X and right_X for the sides of X) and, if wanted, color and members "
        "(default: those of --init, else hetseg's 28)",
    )
    parser.add_argument(
        "--parts",
        action="store_true",
        help="learn what else FreeSurfer's aseg tells apart, too, where the labels have it: "
        "inferior horns, cerebellar white matter, choroid plexus, vessels, CSF, hypointensities, "
        "chiasm",
    )
    parser.add_argument(
        "--synthetic-scans",
        type=positive,
        default=None,
        metavar="N",
        help="with --label-maps: draw N synthetic scans once and train on those (default: every "
        "scan is new)",
    )
    parser.add_argument(
        "--validate",
        type=path,
        default=None,
        metavar="DIR",
        help="T1w + dseg pairs never trained on; their Dice goes to OUT/validation.tsv",
    )
    parser.add_argument(
        "--validate-every",
        type=positive,
        default=1000,
        metavar="N",
        help="samples from validation to validation (default: %(default)s)",
    )


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--init",
        type=name_or_path,
        default=None,
        metavar="MODEL",
        help="start from a shipped model or a model folder; a --recipe with a larger network "
        "lets it grow",
    )
    parser.add_argument(
        "--teacher",
        type=name_or_path,
        default=None,
        metavar="MODEL",
        help="learn from a label-flip model, too: its mean over the three views of the scans of "
        "--unlabelled; without that option, of every volume",
    )
    parser.add_argument(
        "--teaching-share",
        type=share,
        default=0.5,
        metavar="X",
        help="with --teacher: share of the loss that is the distance from the teacher; 1 leaves "
        "the labels out (default: %(default)s)",
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", choices=SYSTEM_NAMES, default="label-flip")
    parser.add_argument(
        "--recipe",
        choices=RECIPE_NAMES,
        default=None,
        help="fast: for hours on a CPU; wide: a larger network, for minutes on a GPU; small: half "
        "the width, for minutes on a CPU; compact: a network of less than half the work; polish: "
        "more training of the network of --init, in small steps; head: a small network for the "
        "inside of the skull, from whole heads made of --label-maps; paper: McKinley et al., 2 "
        "million stacks (default: fast, with the network of --init where that is given)",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=None,
        help="stacks seen in all; may be changed when a run is resumed (default: the recipe's)",
    )
    parser.add_argument(
        "--batch",
        type=positive,
        default=None,
        metavar="N",
        help="stacks a step (default: the recipe's)",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive_float,
        default=None,
        metavar="X",
        help="its peak (default: the recipe's)",
    )
    parser.add_argument(
        "--minutes",
        type=positive_float,
        default=None,
        metavar="N",
        help="see as many stacks as fit into N minutes of this process, start included; --samples "
        "then only says what is planned before the pace is known",
    )
    parser.add_argument(
        "--reject-sporadic",
        action="store_true",
        help="leave out labels that all three views contradict with confidence (label-flip on "
        "--scans or --synthetic-scans); their masks are written to OUT/rejected",
    )
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument("--name", default=None, help="name of the model (default: the system)")


def _add_execution(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda[:i] or mps")
    parser.add_argument("--workers", type=whole, default=1, help="processes that generate samples")
    parser.add_argument(
        "--threads", type=positive, default=None, help="threads of the network step"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=5.0, metavar="N", help="save every N minutes"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="fuse the step with torch.compile: about twice as fast on a CPU, needs a C++ compiler",
    )
    parser.add_argument(
        "--no-amp", action="store_true", help="float32 even where the device computes in bfloat16"
    )
    parser.add_argument(
        "--stop-after", type=positive, default=None, metavar="STEPS", help="end this process early"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.synthetic_scans is not None and args.label_maps is None:
        parser.error("--synthetic-scans needs --label-maps")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _check(args)
        return _train(args)
    except (HetsegError, ValueError, OSError) as error:
        print(f"hetseg-train: {error}", file=sys.stderr)
        return 2


def _check(args: argparse.Namespace) -> None:
    """Refuse what the parser can't.

    Raises
    ------
    OptionError
    """
    sources = ("label_maps", "scans", "unlabelled")
    given = [name for name in sources if getattr(args, name) is not None]
    if bool(given) == (args.average is not None):
        raise OptionError("give --label-maps, --scans or --unlabelled, or --average alone")
    if args.shares is not None and len(args.shares) != len(given):
        numbers = "1 number" if len(given) == 1 else f"{len(given)} numbers"
        raise OptionError(f"{numbers}, one for each source", option="--shares")
    if args.unlabelled is not None and args.teacher is None:
        raise OptionError("who labels them?", "name a model with --teacher", option="--unlabelled")


def _train(args: argparse.Namespace) -> int:
    if args.average is not None:
        from hetseg_bids.training.averaging import average_models

        average_models(args.average, args.out / "model", args.name)
        return 0
    from hetseg_bids.training.session import TrainingRequest, train  # torch is slow to import

    train(
        TrainingRequest(
            out=args.out,
            label_maps=args.label_maps,
            synthetic_scans=args.synthetic_scans,
            scans=args.scans,
            unlabelled=args.unlabelled,
            shares=tuple(args.shares or ()),
            labels=args.labels,
            parts=args.parts,
            validate=args.validate,
            validate_every=args.validate_every,
            init=args.init,
            teacher=args.teacher,
            teaching_share=args.teaching_share,
            system=args.system,
            recipe=args.recipe,
            reject_sporadic=args.reject_sporadic,
            samples=args.samples,
            batch=args.batch,
            learning_rate=args.learning_rate,
            minutes=args.minutes,
            seed=args.seed,
            device=args.device,
            workers=args.workers,
            threads=args.threads,
            checkpoint_minutes=args.checkpoint_minutes,
            compile=args.compile,
            amp=not args.no_amp,
            stop_after=args.stop_after,
            name=args.name or args.system,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
