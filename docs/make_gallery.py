"""The examples of qc.md: pictures from the pages of a good scan and of degraded copies of it.

    python benchmarks/robustness.py DATA OUT --only noise20 motion3 turned30 cropped40
    python docs/make_gallery.py OUT SUBJECT

Cuts the middle of the mosaics out of the pages that robustness.py left in OUT, outlines over flip
map, writes them to docs/pictures and prints the table. The pictures are of a person: commit none
that the scan's licence doesn't let you publish.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
from pathlib import Path

import pandas as pd
from PIL import Image

PICTURES = Path(__file__).with_name("pictures")
EXAMPLES = (
    ("clean", "axial"),
    ("clean", "coronal"),
    ("noise20", "coronal"),
    ("motion3", "axial"),
    ("turned30", "axial"),
    ("cropped40", "coronal"),
)
LAYERS = ("outlines of the structures", "probability that the label is wrong")
_COLUMNS, _FIRST, _LAST = 7, 1, 5  # panels of a mosaic, and those that are shown
_GAP = 4  # pixels
_QUALITY = 80


def main() -> None:
    """Write the pictures, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder that robustness.py wrote")
    parser.add_argument("subject", help="with sub-")
    args = parser.parse_args()
    for name, plane in EXAMPLES:
        page = page_of(args.out, args.subject, name).read_text(encoding="utf-8")
        two = [cut_out(page, f"{plane.capitalize()}: {layer}") for layer in LAYERS]
        stacked(two).save(PICTURES / f"qc-{name}-{plane}.jpg", quality=_QUALITY)
    scores = pd.read_csv(args.out / "robustness.tsv", sep="\t", na_values="n/a")
    scores = scores[scores["scan"] == args.subject].set_index("copy")
    print("\n".join(table(scores.loc[list(dict(EXAMPLES))])))


def page_of(out: Path, subject: str, name: str) -> Path:
    """The participant page of an example."""
    if name == "clean":
        return out / "clean" / "derivatives" / f"{subject}.html"
    return out / "degraded" / "derivatives" / f"{subject}{name}.html"


def cut_out(page: str, title: str) -> Image.Image:
    """The middle panels of the first mosaic whose title begins so."""
    pattern = rf'<figcaption>{title}[^<]*</figcaption><img src="data:image/jpeg;base64,([^"]*)"'
    found = re.search(pattern, page)
    if found is None:
        raise ValueError(f"the page has no picture {title!r}")
    mosaic = Image.open(io.BytesIO(base64.b64decode(found[1])))
    left, right = (mosaic.width * end // _COLUMNS for end in (_FIRST, _LAST))
    return mosaic.crop((left, 0, right, mosaic.height))


def stacked(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size, one below the other."""
    width, height = pictures[0].size
    whole = Image.new("RGB", (width, len(pictures) * (height + _GAP) - _GAP))
    for i, picture in enumerate(pictures):
        whole.paste(picture, (0, i * (height + _GAP)))
    return whole


def table(scores: pd.DataFrame) -> list[str]:
    """The verdict and what it rests on, beside the truth, as Markdown."""
    lines = ["| example | Dice | expected Dice | verdict |", "|---|---|---|---|"]
    for row in scores.reset_index().itertuples():
        numbers = f"{row.dice:.3f} | {row.expected_dice:.3f}"
        lines.append(f"| {row.copy} | {numbers} | {row.verdict} |")
    return lines


if __name__ == "__main__":
    main()
