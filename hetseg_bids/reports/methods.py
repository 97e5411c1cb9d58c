"""The paragraph and the references for a paper's methods section."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hetseg_bids.preprocessing.mp2rage import is_unit1
from hetseg_bids.segmentation.upright import UPRIGHT_DEG

REFERENCES: dict[str, str] = {
    "McKinley": "McKinley R, Rebsamen M, Meier R, Reyes M, Rummel C, Wiest R. Few-shot brain "
    "segmentation from weakly labeled data with deep heteroscedastic multi-task networks. "
    "arXiv:1904.02436 (2019).",
    "Fisch": "Fisch L, Zumdick S, Barkhau C, et al. deepbet: Fast brain extraction of "
    "T1-weighted MRI using convolutional neural networks. Computers in Biology and Medicine "
    "179:108845 (2024).",
    "Billot": "Billot B, Greve DN, Puonti O, et al. SynthSeg: Segmentation of brain MRI scans of "
    "any contrast and resolution without retraining. Medical Image Analysis 86:102789 (2023).",
    "Marques": "Marques JP, Kober T, Krueger G, et al. MP2RAGE, a self bias-field corrected "
    "sequence for improved segmentation and T1-mapping at high field. NeuroImage 49:1271-1281 "
    "(2010).",
    "Gorgolewski": "Gorgolewski KJ, Auer T, Calhoun VD, et al. The brain imaging data structure, "
    "a format for organizing and describing outputs of neuroimaging experiments. Scientific "
    "Data 3:160044 (2016).",
}


@dataclass(frozen=True)
class Methods:
    """A text for a paper, and the references that it cites."""

    text: str
    references: tuple[str, ...]


def methods_text(record: dict[str, Any], structures: int) -> Methods:
    """How a scan was segmented, in words.

    Parameters
    ----------
    record : dict
        The sidecar of the dseg image.
    structures : int
        How many it has.
    """
    strip = {
        "deepbet": "The brain was extracted with deepbet (Fisch et al., 2024). ",
        "mask": "The brain mask that came with the dataset was used. ",
        "skip": "The image was skull-stripped already. ",
    }[record["HetsegBrainExtraction"]]
    settings = record["HetsegSettings"]
    views = " and ".join(settings["views"])
    mirror = " and of its mirror image" if settings.get("mirror") else ""
    compared = record.get("HetsegPlausibility") or {}
    atlas = (
        "Labels where no brain of an atlas made from SynthSeg's label maps has the structure count "
        "as uncertain. "
        if compared.get("atlas")
        else ""
    )
    dataset = str(record["Sources"][0]).startswith("bids:")
    organised = " organised as BIDS (Gorgolewski et al., 2016)" if dataset else ""
    lesion = (
        "The voxels of a lesion mask were left out of the standardisation and filled from the "
        "tissue around them; their labels count as unknown. "
        if record.get("HetsegLesion")
        else ""
    )
    unit1 = is_unit1(Path(record["Sources"][0]))
    images = "T1-weighted images"
    if unit1:
        images = "Uniform images (UNIT1) of MP2RAGE (Marques et al., 2010)"
    text = (
        f"{images}{organised} were segmented into "
        f"{structures} structures with hetseg {record['HetsegVersion']}, model "
        f"{record['HetsegModel']} (SHA-256 {record['HetsegModelSHA256'][:12]}), a 2.5-D network "
        f"after McKinley et al. (2019) applied to {views} slices of the image at 1 mm{mirror}; its "
        "logits were averaged and smoothed by half a voxel. "
        f"Heads that lay more than {UPRIGHT_DEG:.0f} degrees from upright were turned first. "
        f"{strip}{lesion}"
        "For each voxel and structure it forecasts the probability that its label disagrees with "
        f"a reference; expected Dice and intervals for a reference's volumes follow from it. "
        f"{atlas}"
        "The shipped weights were trained on synthetic T1w images made from the label maps of "
        "SynthSeg (Billot et al., 2023); those of label-flip also learned from 30 real T1w "
        "images, three of them labelled by FreeSurfer."
    )
    cited = [r for name, r in REFERENCES.items() if f"{name} et al." in text]
    return Methods(text, tuple(cited))
