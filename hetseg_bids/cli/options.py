"""The options of ``hetseg``, by group of its help."""

from __future__ import annotations

import argparse
import re

from hetseg_bids.cli.arguments import name_or_path, path, positive, positive_float
from hetseg_bids.config import (
    BRAIN_EXTRACTION_CHOICES,
    Execution,
    RunConfig,
    Selection,
    Settings,
)
from hetseg_bids.dataset.names import SUFFIXES, T1W
from hetseg_bids.planes import PLANES, are_planes

_LABEL = re.compile(r"[0-9a-zA-Z+]+")


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
    if not are_planes(views):
        raise argparse.ArgumentTypeError(f"{text!r}: give any of {','.join(PLANES)}, each once")
    return views


def add_selection(group: argparse._ArgumentGroup) -> None:
    """Which images are taken."""
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


def add_settings(group: argparse._ArgumentGroup) -> None:
    """How they are segmented."""
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
    _add_lesion(group)
    group.add_argument(
        "--output-resolution",
        choices=("native", "1mm"),
        default=defaults.output_resolution,
        help="grid of the results (default: %(default)s)",
    )
    group.add_argument(
        "--write-probseg", action="store_true", help="also write each structure's probability"
    )


def _add_lesion(group: argparse._ArgumentGroup) -> None:
    defaults = Settings()
    group.add_argument(
        "--lesion-mask",
        nargs="?",
        const="auto",
        choices=("none", "auto"),
        default=defaults.lesion_mask,
        help="auto, or no value: leave out what the *_label-lesion_mask or *_label-lesion_roi of a "
        "scan covers, beside the T1w or under derivatives/; scans without such a mask are "
        "processed as usual (default: %(default)s)",
    )
    group.add_argument(
        "--lesion-label",
        choices=("background", "surrounding"),
        default=defaults.lesion_label,
        help="background: a lesion gets no label; surrounding: that of the tissue around it, as "
        "far as the network can tell; uncertain either way (default: %(default)s)",
    )


def add_execution(group: argparse._ArgumentGroup) -> None:
    """How the run goes."""
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
        help="local: this process, where a scan is segmented while the one before it is written; "
        "dask: workers, see --nprocs (default: %(default)s)",
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
        type=positive_float,
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


def add_tables(group: argparse._ArgumentGroup) -> None:
    """What the tables of the group level hold."""
    group.add_argument(
        "--covariates",
        nargs="+",
        default=(),
        metavar="COLUMN",
        help="columns of participants.tsv, e.g. age sex, or all, for group_volumes.tsv and "
        "group_soft_volumes.tsv",
    )
    group.add_argument(
        "--normalise",
        "--normalize",
        choices=("none", "icv"),
        default=RunConfig.normalise,
        help="icv: also write group_volumes_icv.tsv and group_soft_volumes_icv.tsv, in which "
        "volumes are divided by the intracranial volume of the scan (default: %(default)s)",
    )
