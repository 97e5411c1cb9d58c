"""``hetseg BIDS_DIR OUT_DIR {participant,group}``, ``hetseg T1W OUT`` and ``hetseg demo OUT``."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from hetseg_bids import __version__
from hetseg_bids.cli import files, options, stops
from hetseg_bids.cli.arguments import path
from hetseg_bids.cli.imports import imported_for_good
from hetseg_bids.config import Execution, RunConfig, Selection, Settings
from hetseg_bids.errors import HetsegError, OptionError

_FAILED, _USAGE_ERROR = 1, 2
_EXIT_CODES = (
    "Exit code: 0 all good, 1 some scan failed (the others' results are whole), 2 the input or the "
    "options can't be used."
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``hetseg``."""
    parser = argparse.ArgumentParser(
        prog="hetseg",
        description="Segment 28 brain structures of every T1w image of a BIDS dataset, with "
        "the probability that each label is wrong. `hetseg demo OUT` tries it on the MNI152 "
        "T1w that nilearn carries.",
        epilog="Without a BIDS dataset: `hetseg T1W [T1W ...] OUT` or `hetseg FOLDER OUT "
        f"--no-bids` (`hetseg --no-bids --help`). {_EXIT_CODES}",
    )
    parser.add_argument("bids_dir", type=path, help="BIDS dataset")
    parser.add_argument("output_dir", type=path, help="folder for the derivatives")
    parser.add_argument(
        "analysis_level",
        choices=files.LEVELS,
        help="participant: segment; group: volumes, quality and a page of all finished scans",
    )
    options.add_selection(parser.add_argument_group("which images"))
    _add_options(parser)
    return parser


def build_files_parser() -> argparse.ArgumentParser:
    """The parser of ``hetseg T1W [T1W ...] OUT``."""
    parser = files.build_parser(_add_options)
    parser.epilog = _EXIT_CODES
    return parser


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    if not files.is_wanted(arguments):
        return argparse.Namespace(images=(), **vars(build_parser().parse_args(arguments)))
    absent = argparse.ArgumentParser(add_help=False)
    options.add_selection(absent.add_argument_group())
    defaults = vars(absent.parse_args([]))
    args = files.parse(build_files_parser(), arguments, absent._option_string_actions)
    return argparse.Namespace(bids_dir=None, **defaults, **vars(args))


def _add_options(parser: argparse.ArgumentParser) -> None:
    options.add_settings(parser.add_argument_group("how they are segmented"))
    options.add_execution(parser.add_argument_group("how the run goes"))
    options.add_tables(parser.add_argument_group("tables of the group level"))
    parser.add_argument("--version", action="version", version=f"hetseg {__version__}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _ensure_home()
    if arguments[:1] == ["demo"]:
        from hetseg_bids.cli.demo import main as demo

        return demo(arguments[1:])
    args = _parse(arguments)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
    logging.basicConfig(level=level, format="%(message)s")
    try:
        with stops.raised():
            command = shlex.join(["hetseg", *files.shortened(arguments)])
            return _carry_out(_config(args, command), args.analysis_level)
    except HetsegError as error:
        print(f"hetseg: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except Exception as error:  # a bug or a failing machine: users get one line, no traceback
        details = _keep_traceback(args.output_dir)
        print(f"hetseg: {type(error).__name__}: {error} (details: {details})", file=sys.stderr)
        return _FAILED
    except stops.Stop as stop:
        print("hetseg: stopped; the same command goes on from here", file=sys.stderr)
        return stop.code


def _keep_traceback(out_dir: Path) -> str:
    from hetseg_bids.outputs.derivatives import write_crash

    trace = traceback.format_exc()
    try:
        return str(write_crash(out_dir, "hetseg", trace))
    except OSError:
        return trace


def _ensure_home() -> None:
    # a container's user may have neither HOME nor an entry in passwd; pybids asks for both
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def _config(args: argparse.Namespace, command: str) -> RunConfig:
    selection = Selection(
        images=tuple(args.images),
        participants=tuple(dict.fromkeys(args.participant_label)),
        sessions=tuple(args.session_label),
        runs=tuple(args.run_label),
        suffix=args.suffix,
        choose=args.choose,
        filter_file=args.bids_filter_file,
        database=args.bids_database_dir,
        validate=not args.skip_bids_validation,
    )
    settings = Settings(
        model=args.model,
        structures=args.structures,
        views=args.views,
        mirror=not args.no_mirror,
        brain_extraction=args.brain_extraction,
        output_resolution=args.output_resolution,
        write_probseg=args.write_probseg,
        lesion_mask=args.lesion_mask,
        lesion_label=args.lesion_label,
    )
    return RunConfig(
        bids_dir=args.bids_dir,
        out_dir=args.output_dir,
        selection=selection,
        settings=settings,
        execution=_execution(args),
        device=args.device,
        threads=args.omp_nthreads,
        overwrite=args.overwrite,
        stop_on_first_crash=args.stop_on_first_crash,
        dry_run=args.dry_run,
        reports_only=args.reports_only,
        covariates=tuple(args.covariates),
        normalise=args.normalise,
        command=command,
    )


def _execution(args: argparse.Namespace) -> Execution:
    wants_dask = bool(args.dask_scheduler) or args.dask_cluster != Execution.cluster
    several = (args.nprocs or 1) > 1
    if args.work_dir is not None and not args.work_dir.is_dir():
        raise OptionError(
            "no such folder", "make it first", option="--work-dir", path=args.work_dir
        )
    return Execution(
        executor="dask" if wants_dask or several else args.executor,
        nprocs=args.nprocs,
        mem_gb=args.mem_gb,
        scheduler=args.dask_scheduler,
        cluster=args.dask_cluster,
        work_dir=args.work_dir,
    )


def _carry_out(config: RunConfig, level: str) -> int:
    """Carry out a call of ``hetseg``; returns its exit code."""
    if level == "group":
        _check_group(config)
        with imported_for_good():
            from hetseg_bids.runs.group import run_group

        page = run_group(
            config.bids_dir,
            config.out_dir,
            config.selection,
            covariates=config.covariates,
            normalise=config.normalise,
        )
        print(page)
        return 0
    _check_participant(config)
    with imported_for_good():
        from hetseg_bids.runs.participants import run_participants  # torch is slow to import

    return run_participants(config)


def _check_group(config: RunConfig) -> None:
    """Refuse options that say which images are meant, but not to the group level."""
    if config.selection.filter_file is not None:
        problem = "only the participant level reads it"
        remedy = "name participants, sessions or runs"
        raise OptionError(problem, remedy, option="--bids-filter-file")


def _check_participant(config: RunConfig) -> None:
    """Refuse options that would be without effect at the participant level."""
    settings = config.settings
    if config.covariates:
        raise OptionError("only the group level joins them", option="--covariates")
    if config.normalise != RunConfig.normalise:
        raise OptionError("only the group level divides volumes", option="--normalise")
    if settings.lesion_label != Settings.lesion_label and settings.lesion_mask == "none":
        problem = "no lesion mask is looked for"
        raise OptionError(problem, "add --lesion-mask", option="--lesion-label")
    if config.overwrite and config.reports_only:
        raise OptionError("nothing is segmented again", "give one of both", option="--reports-only")


if __name__ == "__main__":
    sys.exit(main())
