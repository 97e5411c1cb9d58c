"""Label maps to generate from: reading, merging of ids, corpus callosum.

Source: the 20 maps of SynthSeg (Billot et al. 2023, Apache-2.0), FreeSurfer aseg
ids plus extra-cerebral ids of 500 and above, without a corpus callosum.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from hetseg_bids.preprocessing.field import largest_piece

CORPUS_CALLOSUM = 255
EXTRACEREBRAL_OFFSET = 300  # 502..530 become 202..230, which aseg doesn't use
_LAST_EXTRACEREBRAL = 550  # 251-255 are the corpus callosum
_CHOROID_IN_VENTRICLE = {136: 31, 137: 31, 163: 63, 164: 63}
_CC_HALF_WIDTH_MM = 2.5
_CC_BELOW_THALAMUS_MM = 12.0
_SPLENIUM_MM = 14  # from the back: where the corpus callosum is thick and bends
_MONRO_MM = 4  # in front of the thalamus: the fornix lies behind this plane, the rostrum before it
_THICK = 1.4  # times the usual thickness: where the callosum is thicker, the fornix touches it


def read_label_map(path: Path) -> npt.NDArray[np.uint8]:
    """Read a 1 mm label map in RAS order with a corpus callosum.

    Parameters
    ----------
    path : Path
        NIfTI image of integer labels, 1 mm.

    Returns
    -------
    labels : (X, Y, Z) uint8 array
        aseg ids; extra-cerebral ids of 500 and above are lowered by 300.

    Raises
    ------
    ValueError
        If the voxels aren't 1 mm or an id is neither of aseg nor extra-cerebral.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "map.nii.gz"
    >>> labels = np.array([0, 2, 517], np.int16).reshape(3, 1, 1)  # 517: beyond the brain
    >>> nib.save(nib.Nifti1Image(labels, np.eye(4)), path)
    >>> read_label_map(path).ravel()
    array([  0,   2, 217], dtype=uint8)
    """
    image = nib.as_closest_canonical(nib.load(path))
    if not np.allclose(image.header.get_zooms()[:3], 1, atol=0.02):
        raise ValueError(f"{path}: a label map to generate from must have 1 mm voxels")
    labels = np.rint(np.asarray(image.dataobj)).astype(np.int32)
    known = (labels >= 0) & (labels <= _LAST_EXTRACEREBRAL) & ((labels <= 255) | (labels >= 500))
    if not known.all():
        problem = f"is neither an aseg id nor 500-{_LAST_EXTRACEREBRAL}"
        raise ValueError(f"{path}: label {labels[~known].max()} {problem}")
    labels[labels >= 500] -= EXTRACEREBRAL_OFFSET
    for source, target in _CHOROID_IN_VENTRICLE.items():
        labels[labels == source] = target
    compact = labels.astype(np.uint8)
    if not np.isin(compact, (251, 252, 253, 254, 255)).any():
        compact[derive_corpus_callosum(compact)] = CORPUS_CALLOSUM
    return compact


def derive_corpus_callosum(labels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Guess the corpus callosum of a map that counts it as white matter.

    White matter within 2.5 mm of the plane fitted to the voxels where left and right
    white matter touch, above the thalamus centroid minus 12 mm, largest component, without the
    fornix. A weak label: 2.2-3.9 ml in the SynthSeg maps, FreeSurfer's own is 3.9-4.8 ml.

    Parameters
    ----------
    labels : (X, Y, Z) uint8 array
        aseg ids in RAS order, 1 mm.

    Returns
    -------
    mask : (X, Y, Z) bool array
        Empty if the hemispheres' white matter doesn't touch.
    """
    left, right = labels == 2, labels == 41
    contact = left[:-1] & right[1:]
    mask = np.zeros(labels.shape, dtype=bool)
    thalamus = np.argwhere((labels == 10) | (labels == 49))
    if contact.sum() < 20 or not len(thalamus):
        return mask
    floor = max(0, int(np.ceil(thalamus[:, 2].mean() - _CC_BELOW_THALAMUS_MM)))
    x, y, z = np.argwhere(contact).T
    # x = a y + b z + c: the mid-sagittal plane is never steep in x
    design = np.stack((y, z, np.ones_like(y)), axis=1).astype(float)
    a, b, c = np.linalg.lstsq(design, x + 0.5, rcond=None)[0]
    xx, yy, zz = np.nonzero(left | right)
    distance = np.abs(xx - a * yy - b * zz - c) / np.sqrt(1 + a * a + b * b)
    near = (distance <= _CC_HALF_WIDTH_MM) & (zz >= floor)
    mask[xx[near], yy[near], zz[near]] = True
    mask = largest_piece(mask)
    if not mask.any():
        return mask
    return largest_piece(_without_fornix(mask, int(np.percentile(thalamus[:, 1], 98))))


def _without_fornix(callosum: npt.NDArray[np.bool_], thalamus_front: int) -> npt.NDArray[np.bool_]:
    """Keep the uppermost run of each column, no thicker than usual: what lies below is fornix."""
    y, z = np.arange(callosum.shape[1]), np.arange(callosum.shape[2])
    top = callosum.shape[2] - 1 - np.argmax(callosum[:, :, ::-1], axis=2)[:, :, None]
    gaps = (z < top) & ~callosum
    uppermost = callosum & (np.cumsum(gaps[:, :, ::-1], axis=2)[:, :, ::-1] == 0)
    back = int(np.flatnonzero(callosum.any(axis=(0, 2)))[0])
    behind_monro = (y <= thalamus_front + _MONRO_MM)[:, None]
    body = y >= back + _SPLENIUM_MM
    thickness = uppermost.sum(axis=2)[:, body & (y <= thalamus_front)]
    if thickness.any():
        usual = np.percentile(thickness[thickness > 0], 40)
        thin = z > top - np.ceil(_THICK * usual)
        uppermost &= thin | ~body[:, None]
    return np.where(behind_monro, uppermost, callosum)
