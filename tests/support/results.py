"""Results as a run writes them, without a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from hetseg_bids.config import Settings
from hetseg_bids.images import Grid
from hetseg_bids.outputs.derivatives import (
    OutputPaths,
    Provenance,
    write_images,
    write_sidecars,
    write_tables,
)
from hetseg_bids.outputs.intracranial import head_facts
from hetseg_bids.quality.image_quality import ImageQuality
from hetseg_bids.segmentation.intracranial import Intracranial
from hetseg_bids.segmentation.labels import LevelMaps, Segmentation, to_levels
from hetseg_bids.segmentation.morphometry import measure
from hetseg_bids.segmentation.plausibility import Plausibility
from hetseg_bids.segmentation.uncertainty import FlipSums, StructureUncertainty
from hetseg_bids.segmentation.wholes import whole_rows, with_wholes
from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES, STRUCTURES
from support.phantoms import centred_affine, phantom_t1w
from support.tiny_model import plan_of


def level_maps(values: np.ndarray, highest: float) -> LevelMaps:
    """(S, x, y, z) probabilities as a result holds them."""
    return LevelMaps(to_levels(torch.from_numpy(values), highest).numpy(), highest)


def uncertainty_of(dseg: np.ndarray, q: np.ndarray) -> tuple[StructureUncertainty, ...]:
    """What a result holds of an aseg image and its (S, x, y, z) flip maps."""
    number = np.zeros(256, np.uint8)
    number[[s.label for s in STRUCTURES]] = np.arange(1, N_STRUCTURES + 1)
    return FlipSums.of(number[dseg], q).summaries()


def write_results(
    out: Path,
    stem: str,
    dseg: np.ndarray,
    *,
    hostile: str = "",
    flip: bool = True,
    icv_mm3: float | None = None,
    no_icv: str = "",
) -> tuple[OutputPaths, Path]:
    """Derivatives of a 2 mm scan as a run writes them; returns their paths and the T1w.

    With an intracranial volume, or why there is none; without both, as older versions.
    """
    affine = centred_affine(dseg.shape, 2)
    source = out / "sources" / f"{stem}_T1w.nii.gz"
    source.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(phantom_t1w(dseg), affine), source)
    q = np.zeros((N_STRUCTURES, *dseg.shape), np.float32)
    for i, structure in enumerate(STRUCTURES):
        q[i][dseg == structure.label] = 0.4 if structure.name == "left_putamen" else 0.1
    whole = tuple(slice(0, n) for n in dseg.shape)
    grid = Grid(dseg.shape, affine)
    result = Segmentation(grid, whole, dseg, None, None, ASEG)
    if flip:
        p = np.stack([np.where(dseg == s.label, 1 - q[i], q[i]) for i, s in enumerate(STRUCTURES)])
        result = replace(
            result,
            flip_probability=level_maps(q, 0.5),
            uncertainty=uncertainty_of(dseg, q),
            probability_sums=p.sum(axis=(1, 2, 3), dtype=np.float64),
        )
    head, table = None, measure(result)
    if icv_mm3 is not None:
        u = StructureUncertainty(round(icv_mm3 / 8), 0.02, 0.98, icv_mm3 / 8, 3000.0)
        head = Intracranial(dseg > 0, icv_mm3, u, None)
    elif no_icv:
        head = Intracranial.unknown(no_icv)
    if head is not None:
        table = with_wholes(table, whole_rows(table, head))
    paths = OutputPaths(out / stem.split("_")[0] / "anat", stem, "", out / f"{stem}.html")
    provenance = Provenance(
        sources=[f"bids:raw:{stem}/{hostile}"],
        source_sha256="0" * 64 + hostile,
        mask_sha256=hostile or None,
        plan=plan_of(f"label-flip{hostile}", "1" * 64),
        settings=Settings(model=hostile or "label-flip"),
        extraction="deepbet",
        mask_mm3=float((dseg > 0).sum()) * grid.voxel_volume,
        image=ImageQuality(0.05, 0.3, 0.02, 0.0, 4.0, 0.5),
        plausibility=Plausibility(),
        turned_deg=0.0,
        warnings=(f"something {hostile}",) if hostile else (),
        head={} if head is None else head_facts(head, plan_of("head", "3" * 64)),
    )
    write_images(paths, result, (dseg > 0).astype(np.uint8))
    write_tables(paths, table, ASEG)
    write_sidecars(paths, provenance, ASEG, flip_probability=flip)
    return paths, source
