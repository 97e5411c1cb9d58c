"""``hetseg T1W [T1W ...] OUT`` and ``hetseg FOLDER OUT --no-bids``: images without a dataset."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hetseg_bids.cli.arguments import path
from hetseg_bids.dataset.files import ENDINGS, is_folder, is_image_name

LEVELS = ("participant", "group")
_FLAG = "--no-bids"
_MOST_NAMED, _FIRST = 20, 3


def is_wanted(arguments: Sequence[str]) -> bool:
    """Whether a command line has this form, and not ``BIDS_DIR OUT_DIR {participant,group}``.

    Examples
    --------
    >>> is_wanted(["T1.mgz", "OUT"]), is_wanted(["scans", "OUT", "--no-bids"])
    (True, True)
    >>> is_wanted(["BIDS", "OUT", "participant"]), is_wanted(["--help"])
    (False, False)
    """
    if _FLAG in arguments:
        return True
    words = [path(word) for word in arguments if not word.startswith("-")]
    if any(is_image_name(word) and not is_folder(word) for word in words):
        return True
    # without a level it is a mistake; what is to be said about it depends on what is there
    return not set(LEVELS) & set(arguments) and any(map(os.path.exists, words[:1]))


def build_parser(add_options: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
    """The parser of this form.

    Parameters
    ----------
    add_options : function
        Adds the options that it shares with the form for BIDS datasets.
    """
    parser = argparse.ArgumentParser(
        prog="hetseg",
        usage=f"hetseg T1W [T1W ...] OUT [options]\n       hetseg FOLDER OUT {_FLAG} [options]",
        description="Segment T1w images that are no BIDS dataset. Results are named like the "
        "files, OUT/NAME/NAME_seg-hetseg_dseg.nii.gz and so on.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=path,
        metavar="PATH",
        help=f"T1w images ({', '.join(ENDINGS)}) or folders of them; then the folder for the "
        "results; then, if it isn't participant, the level: group makes the tables and the page "
        "of all finished scans",
    )
    parser.add_argument(
        _FLAG,
        action="store_true",
        help="search folders for images, also below; of a FreeSurfer subject mri/orig.mgz is taken",
    )
    add_options(parser)
    return parser


def parse(
    parser: argparse.ArgumentParser, arguments: Sequence[str], of_datasets: Iterable[str]
) -> argparse.Namespace:
    """Images, output folder, level and options of a command line; a mistake ends the program.

    Parameters
    ----------
    parser : ArgumentParser
        As `build_parser` makes it.
    arguments : sequence of str
    of_datasets : iterable of str
        Options that only the form for BIDS datasets has.
    """
    refused = set(of_datasets)
    for word in arguments:
        if word.split("=")[0] in refused:
            parser.error(
                f"{word.split('=')[0]} is for BIDS datasets (hetseg BIDS_DIR OUT_DIR participant); "
                "here, name the images themselves"
            )
    args = parser.parse_intermixed_args(arguments)
    words: list[Path] = args.paths
    args.analysis_level = LEVELS[0]
    if len(words) > 2 and str(words[-1]) in LEVELS and not is_image_name(words[-2]):
        args.analysis_level = str(words.pop())
    *args.images, args.output_dir = words
    _check(parser, args)
    return args


def shortened(arguments: Sequence[str]) -> list[str]:
    """A command line for provenance: of many images, only the first are named.

    Examples
    --------
    >>> shortened([*(f"{number}.mgz" for number in range(100)), "OUT"])
    ['0.mgz', '1.mgz', '2.mgz', '(97 more images)', 'OUT']
    """
    images = [i for i, word in enumerate(arguments) if is_image_name(Path(word))]
    if len(images) <= _MOST_NAMED:
        return list(arguments)
    named, more = images[:_FIRST], set(images[_FIRST:])
    words = [word for i, word in enumerate(arguments) if i not in more]
    words.insert(named[-1] + 1, f"({len(more)} more images)")
    return words


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    out = args.output_dir
    if is_image_name(out) and not is_folder(out):
        parser.error(f"{out}: named as an image; the last word is the folder for the results")
    folder = next(filter(is_folder, args.images), None)
    if folder is not None and not args.no_bids:
        parser.error(
            f"{folder}: a folder; `hetseg FOLDER OUT {_FLAG}` segments all images in it, "
            "`hetseg BIDS_DIR OUT_DIR participant` those of a BIDS dataset"
        )
    if not args.images:
        parser.error(f"the folder for the results is missing, or the images (given: {out})")
