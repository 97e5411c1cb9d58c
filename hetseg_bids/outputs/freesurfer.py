"""Results in the form that FreeSurfer's tools read: aseg.mgz, aseg.stats, a colour table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from hetseg_bids.errors import OutputError
from hetseg_bids.files import atomic_path, write_text
from hetseg_bids.images import open_image, read_labels
from hetseg_bids.outputs.finished import FinishedScan, read_results
from hetseg_bids.outputs.intracranial import reason_of, volume_of
from hetseg_bids.segmentation.wholes import BRAIN, labels_of
from hetseg_bids.structures.aseg import is_aseg, is_whole
from hetseg_bids.structures.label_sets import LabelSet, Structure

COLOR_TABLE = "hetsegColorLUT.txt"
# names that differ from FreeSurfer's by more than hyphens and capitals
_NAMES = {
    "accumbens": "Accumbens-area",
    "ventral_dc": "VentralDC",
    "third_ventricle": "3rd-Ventricle",
    "fourth_ventricle": "4th-Ventricle",
    "brainstem": "Brain-Stem",
    "inferior_lateral_ventricle": "Inf-Lat-Vent",
    "choroid_plexus": "choroid-plexus",
    "vessel": "vessel",
    "csf": "CSF",
    "wm_hypointensities": "WM-hypointensities",
    "cc_posterior": "CC_Posterior",
    "cc_mid_posterior": "CC_Mid_Posterior",
    "cc_central": "CC_Central",
    "cc_mid_anterior": "CC_Mid_Anterior",
    "cc_anterior": "CC_Anterior",
}
_MEASURES = {
    BRAIN: "BrainSeg, BrainSegVol, Brain Segmentation Volume",
    "total_brain": "BrainSegNotVent, BrainSegVolNotVent, "
    "Brain Segmentation Volume Without Ventricles",
    "subcortical_grey": "SubCortGray, SubCortGrayVol, Subcortical gray matter volume",
    "total_grey": "TotalGray, TotalGrayVol, Total gray matter volume",
}
_TOTAL = "EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume"
_CEREBELLUM = "the labels don't tell grey from white matter in the cerebellum"
_MERGED = (
    "the lateral ventricles hold the inferior lateral ones, the cerebellum its white matter, "
    "the corpus callosum all its parts"
)


def freesurfer_name(structure: Structure) -> str:
    """Name of a structure as FreeSurfer spells it, e.g. ``Left-Accumbens-area``.

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import WHOLE_ASEG
    >>> whole = WHOLE_ASEG.structures
    >>> freesurfer_name(whole[0]), freesurfer_name(whole[-1])
    ('Left-Cerebral-White-Matter', 'CC_Anterior')
    """
    bare = structure.bare_name
    name = _NAMES.get(bare) or bare.replace("_", "-").title()
    sides = {"L": "Left-", "R": "Right-", None: ""}
    return sides[structure.hemisphere] + name


def export(out_dir: Path, subjects_dir: Path) -> Iterator[Path]:
    """Write every finished scan as a subject; yields the subjects' folders.

    Parameters
    ----------
    out_dir : Path
        Output folder of hetseg.
    subjects_dir : Path
        Gets ``<scan>/mri/aseg.mgz`` and ``<scan>/stats/aseg.stats``, and a colour table.

    Raises
    ------
    OutputError
        If nothing is finished, its structures aren't FreeSurfer's, or a subject's folder is
        FreeSurfer's own.
    ImageError
        If a dseg can't be read.
    """
    scans = read_results(out_dir).scans
    if not scans:
        raise OutputError("no finished scans", "run the participant level first", path=out_dir)
    if not is_aseg(scans[0].label_set):
        raise OutputError("its model has structures of its own, not FreeSurfer's", path=out_dir)
    write_text(subjects_dir / COLOR_TABLE, color_table(scans[0].label_set))
    for scan in scans:
        folder = subjects_dir / scan.keys["scan"]
        if (folder / "surf").exists() or (folder / "scripts").exists():
            raise OutputError("made by FreeSurfer", "choose another folder", path=folder)
        labels, grid = read_labels(scan.dseg)
        image = nib.MGHImage(labels, grid.affine, open_image(scan.dseg).header)
        image.set_data_dtype(np.int32)  # labels, not float32, which MGHImage takes by itself
        with atomic_path(folder / "mri" / "aseg.mgz") as temporary:
            nib.save(image, temporary)
        write_text(folder / "stats" / "aseg.stats", stats(scan, labels, grid.voxel_volume))
        yield folder


def stats(scan: FinishedScan, labels: np.ndarray, voxel_mm3: float) -> str:
    """The text of an ``aseg.stats`` with the five columns that need no intensities.

    Parameters
    ----------
    scan : FinishedScan
    labels : (X, Y, Z) int array
        Its dseg.
    voxel_mm3 : float
        Volume of a voxel.
    """
    volumes = scan.table["volume_mm3"].astype(float)
    lines = [
        "# Title Segmentation Statistics",
        "# ",
        f"# generating_program hetseg {scan.record.get('HetsegVersion')}",
        f"# subjectname {scan.keys['scan']}",
        *([] if is_whole(scan.label_set.names) else [f"# {_MERGED}"]),
        *_sums(scan),
    ]
    mask = scan.record.get("HetsegBrainMaskVolume")
    if mask is not None:
        lines.append(f"# Measure Mask, MaskVol, Mask Volume, {mask:.6f}, mm^3")
    lines.append(_total(scan))
    lines += [
        f"# VoxelVolume_mm3 {voxel_mm3:g}",
        f"# NRows {len(scan.label_set.structures)}",
        "# NTableCols 5",
        "# ColHeaders  Index SegId NVoxels Volume_mm3 StructName",
    ]
    counts = np.bincount(labels.ravel(), minlength=256)
    for number, (structure, volume) in enumerate(
        zip(scan.label_set.structures, volumes, strict=True), start=1
    ):
        count, name = counts[structure.label], freesurfer_name(structure)
        lines.append(f"{number:3d} {structure.label:3d} {count:9d} {volume:12.1f}  {name}")
    return "\n".join(lines) + "\n"


def _sums(scan: FinishedScan) -> list[str]:
    """Measures that are sums of labels, and why there is no other."""
    volumes = scan.table.set_index("name")["volume_mm3"].astype(float)
    summed = {whole: labels_of(whole, list(volumes.index)) for whole in _MEASURES}
    return [
        f"# Measure {_MEASURES[whole]}, {volumes[names].sum():.6f}, mm^3"
        if names
        else f"# no {_MEASURES[whole].partition(',')[0]}: {_CEREBELLUM}"
        for whole, names in summed.items()
    ]


def _total(scan: FinishedScan) -> str:
    """The intracranial volume, or a comment that says why there is none."""
    why = reason_of(scan.record)
    if why:
        return f"# no EstimatedTotalIntraCranialVol: {why}"
    return f"# Measure {_TOTAL}, {volume_of(scan.record):.6f}, mm^3"


def color_table(label_set: LabelSet) -> str:
    """A colour table of structures for freeview and other readers of FreeSurfer's format."""
    lines = ["#No. Label Name:                            R   G   B   A", "0   Unknown 0 0 0 0"]
    for s in sorted(label_set.structures, key=lambda s: s.label):
        red, green, blue = s.color
        lines.append(f"{s.label:<4d}{freesurfer_name(s):<40s}{red:4d}{green:4d}{blue:4d}   0")
    return "\n".join(lines) + "\n"
