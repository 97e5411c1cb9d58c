"""``hetseg BIDS_DIR OUT_DIR {participant,group}`` and ``hetseg demo OUT``."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from hetseg_bids import __version__
from hetseg_bids.cli.arguments import name_or_path, path, positive
from hetseg_bids.config import Execution, RunConfig, Selection, Settings
from hetseg_bids.dataset.names import SUFFIXES, T1W
from hetseg_bids.errors import HetsegError, OptionError
from hetseg_bids.planes import PLANES
from hetseg_bids.preprocessing.brain_extraction import BRAIN_EXTRACTION_CHOICES

_FAILED, _USAGE_ERROR = 1, 2
_LABEL = re.compile(r"[0-9a-zA-Z+]+")
_SIGNALLED = 128  # plus the number of the signal, as shells have it


def _label(prefix: str, text: str) -> str:
    """A BIDS label without its prefix; nothing that could leave the dataset."""
    label = text.removeprefix(prefix)
    if not _LABEL.fullmatch(label):
        raise argparse.ArgumentTypeError(f"{text!r} is not a BIDS label (letters, digits and +)")
    return label


def _participant(text: str) -> str:
    return _label("sub-", text)


def _session(text: str) -> str:
    return _label("ses-", text)


def _run(text: str) -> str:
    return _label("run-", text)


def _views(text: str) -> tuple[str, ...]:
    views = tuple(part.strip() for part in text.split(","))
    unknown = [v for v in views if v not in PLANES]
    if unknown or len(set(views)) != len(views):
        raise argparse.ArgumentTypeError(f"{text!r}: give any of {','.join(PLANES)}, each once")
    return views


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``hetseg``."""
    parser = argparse.ArgumentParser(
        prog="hetseg",
        description="Segment 28 brain structures of every T1w image of a BIDS dataset, with "
        "the probability that each label is wrong. `hetseg demo OUT` tries it on the MNI152 "
        "T1w that nilearn carries.",
        epilog="Exit code: 0 all good, 1 some scan failed (the others' results are whole), "
        "2 the input or the options can't be used.",
    )
    parser.add_argument("bids_dir", type=path, help="BIDS dataset")
    parser.add_argument("output_dir", type=path, help="folder for the derivatives")
    parser.add_argument(
        "analysis_level",
        choices=("participant", "group"),
        help="participant: segment; group: volumes, quality and a page of all finished scans",
    )
    _add_selection(parser.add_argument_group("which images"))
    _add_settings(parser.add_argument_group("how they are segmented"))
    _add_execution(parser.add_argument_group("how the run goes"))
    _add_tables(parser.add_argument_group("tables of the group level"))
    parser.add_argument("--version", action="version", version=f"hetseg {__version__}")
    return parser


def _add_selection(group: argparse._ArgumentGroup) -> None:
    labels = {"nargs": "+", "default": (), "metavar": "LABEL"}
    group.add_argument(
        "--participant-label",
        "--participant_label",
        type=_participant,
        help="participants, with or without sub- (default: all)",
        **labels,  # type: ignore[arg-type]
    )
    group.add_argument(
        "--session-label",
        "--session_label",
        type=_session,
        help="sessions, with or without ses-",
        **labels,  # type: ignore[arg-type]
    )
    group.add_argument("--run-label", type=_run, help="runs", **labels)  # type: ignore[arg-type]
    group.add_argument(
        "--suffix",
        choices=SUFFIXES,
        default=T1W,
        help="suffix of the images: T1w, or UNIT1, the uniform image of an MP2RAGE; results of "
        "UNIT1 images have mod-UNIT1 in their names (default: %(default)s)",
    )
    group.add_argument(
        "--choose",
        choices=("best", "first", "all"),
        default=Selection.choose,
        help="of several images of a session (runs, acq): all; first: only the first by name; "
        "best: all are segmented, and group_volumes.tsv has the one of best quality. Give the "
        "group level the same choice (default: %(default)s)",
    )
    group.add_argument(
        "--bids-filter-file",
        type=path,
        metavar="FILE",
        help='JSON whose entry "t1w" holds further pybids filters, as fMRIPrep reads it',
    )
    group.add_argument(
        "--bids-database-dir",
        type=path,
        metavar="DIR",
        help="keep the pybids index of the dataset there and reuse it; it is made again when "
        "scans were added or removed",
    )
    group.add_argument(
        "--skip-bids-validation",
        "--skip_bids_validation",
        action="store_true",
        help="accept a dataset without a readable dataset_description.json, and don't ask the BIDS "
        "validator (which is asked where bids-validator-deno is installed and no participants "
        "are named; its errors are shown, not fatal)",
    )


def _add_settings(group: argparse._ArgumentGroup) -> None:
    defaults = Settings()
    group.add_argument(
        "--model",
        type=name_or_path,
        default=defaults.model,
        metavar="NAME|DIR",
        help="a shipped model or a folder that hetseg-train made (default: %(default)s)",
    )
    group.add_argument(
        "--structures",
        choices=("paper", "aseg"),
        default=defaults.structures,
        help="paper: 28 structures; aseg: all 43 labels of FreeSurfer's aseg, inferior horns, "
        "cerebellar white matter, choroid plexus, CSF, vessels, WM hypointensities, chiasm and "
        "fifths of the corpus callosum included, if the model knows them (default: %(default)s)",
    )
    group.add_argument(
        "--views",
        type=_views,
        default=defaults.views,
        metavar="LIST",
        help=f"planes to predict in (default: {','.join(PLANES)})",
    )
    group.add_argument(
        "--no-mirror",
        action="store_true",
        help="don't average over the mirror image, too, which takes the network's time again; the "
        "default model never does",
    )
    group.add_argument(
        "--brain-extraction",
        choices=BRAIN_EXTRACTION_CHOICES,
        default=defaults.brain_extraction,
        help="deepbet; mask: *_desc-brain_mask beside the T1w or under derivatives/; skip: the "
        "image is stripped; auto: deepbet unless the image is stripped to less than 2 litres "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--output-resolution",
        choices=("native", "1mm"),
        default=defaults.output_resolution,
        help="grid of the results (default: %(default)s)",
    )
    group.add_argument(
        "--write-probseg", action="store_true", help="also write each structure's probability"
    )


def _add_execution(group: argparse._ArgumentGroup) -> None:
    defaults = Execution()
    group.add_argument("--device", default="auto", help="auto, cpu, cuda[:i] or mps")
    group.add_argument(
        "--omp-nthreads",
        type=positive,
        metavar="N",
        help="CPU threads of each process (default: all cores, shared by the workers)",
    )
    group.add_argument(
        "--executor",
        choices=("local", "dask"),
        default=defaults.executor,
        help="local: this process, one scan after another; dask: workers, see --nprocs "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--nprocs",
        type=positive,
        metavar="N",
        help="dask workers, or SLURM jobs; more than one implies --executor dask (default with "
        "dask: one per GPU, else as many as processors and --mem-gb allow)",
    )
    group.add_argument(
        "--mem-gb",
        "--mem_gb",
        type=float,
        metavar="GB",
        help="memory of all workers together; each gets 4 or more",
    )
    group.add_argument(
        "--dask-scheduler", metavar="ADDRESS", help="use a dask scheduler that runs already"
    )
    group.add_argument(
        "--dask-cluster",
        choices=("local", "slurm"),
        default=defaults.cluster,
        help="what to start for --executor dask; slurm takes partition, account and time from "
        "dask's jobqueue.yaml (default: %(default)s)",
    )
    group.add_argument(
        "-w",
        "--work-dir",
        type=path,
        metavar="DIR",
        help="for temporary files (default: the system's)",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="redo scans whose results are complete"
    )
    group.add_argument(
        "--stop-on-first-crash", action="store_true", help="don't go on after a failed scan"
    )
    group.add_argument("--dry-run", action="store_true", help="only list the images")
    group.add_argument(
        "--reports-only", action="store_true", help="write the reports of finished scans again"
    )
    group.add_argument("-v", "--verbose", action="count", default=0, help="more messages")


def _add_tables(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--covariates",
        nargs="+",
        default=(),
        metavar="COLUMN",
        help="columns of participants.tsv, e.g. age sex, or all, for group_volumes.tsv and "
        "group_soft_volumes.tsv",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _ensure_home()
    if arguments[:1] == ["demo"]:
        from hetseg_bids.cli.demo import main as demo

        return demo(arguments[1:])
    args = build_parser().parse_args(arguments)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(args.verbose, 2)]
    logging.basicConfig(level=level, format="%(message)s")
    if threading.current_thread() is threading.main_thread():
        # unwinding removes temporary files and ends workers, as for an interrupt from the keyboard
        signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return _carry_out(_config(args, shlex.join(["hetseg", *arguments])), args.analysis_level)
    except HetsegError as error:
        print(f"hetseg: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except Exception as error:  # a bug or a failing machine: users get one line, no traceback
        details = _keep_traceback(args.output_dir)
        print(f"hetseg: {type(error).__name__}: {error} (details: {details})", file=sys.stderr)
        return _FAILED
    except (KeyboardInterrupt, _Terminated) as stop:
        number = signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT
        print("hetseg: stopped; the same command goes on from here", file=sys.stderr)
        return _SIGNALLED + number


class _Terminated(BaseException):
    """SIGTERM arrived."""


def _raise_terminated(*_: object) -> None:
    raise _Terminated


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
        from hetseg_bids.runs.group import run_group

        choose = config.selection.choose
        print(run_group(config.bids_dir, config.out_dir, config.covariates, choose))
        return 0
    if config.covariates:
        raise OptionError("only the group level joins them", option="--covariates")
    from hetseg_bids.runs.participants import run_participants  # torch is slow to import

    return run_participants(config)


if __name__ == "__main__":
    sys.exit(main())
