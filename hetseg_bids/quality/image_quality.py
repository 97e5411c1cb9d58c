"""Noise, blur, motion and other properties of the image that the flip map doesn't show.

The network learned to forecast its errors on images like those of training. Noise, blur and a
brain that is cut off make labels worse, but the forecast hardly changes (docs/qc.md). Everything
is measured on the working grid, on which the network sees the scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from hetseg_bids.images import Grid
from hetseg_bids.preprocessing.conform import nearest
from hetseg_bids.preprocessing.pipeline import PreparedImage
from hetseg_bids.quality.robust import robust_sd
from hetseg_bids.segmentation.labels import Segmentation
from hetseg_bids.structures.alignment import centroids
from hetseg_bids.structures.aseg import ASEG, WHOLE_ASEG
from hetseg_bids.structures.label_sets import MAX_ASEG_ID, LabelSet, hemisphere_of, partner_of

WHITE, GREY, FLUID = "cerebral_white_matter", "cerebral_cortex", "lateral_ventricle"
_DEEP = 2  # voxels by which white matter is eroded
_LEAST_VOXELS = 1000
_LEAST_FLUID = 200
_NEIGHBOURS = 6
_BAND = (1.0, 3.0)  # voxels: ripples are wider than noise, narrower than the remaining bias
_LEAST_WEIGHT = 1e-3
_MM2_PER_CM2 = 100.0


@dataclass(frozen=True)
class ImageQuality:
    """Six numbers of a scan.

    Attributes
    ----------
    noise : float
        Standard deviation of the noise in deep white matter, contrast of white matter to
        cortex = 1; NaN where a model doesn't label both.
    edge : float
        Step from white matter to cortex between neighbouring voxels, of the same contrast:
        small where the image is blurred. NaN like `noise`.
    ripple : float
        Standard deviation of deep white matter between the scales of 1 and 3 mm, without the
        share of noise, of the same contrast: motion leaves ripples. NaN like `noise`.
    cut_cm2 : float
        Largest area in which the brain mask meets a face of the image.
    turn_deg : float
        Angle between the left-right axis of the structures and that of the image, degrees: how
        far the head is turned or tilted to the side. NaN without structures on both sides.
    contrast : float
        White matter minus cortex, as a share of white matter minus lateral ventricles: small in
        children and with some sequences; 0 or less means that the image isn't T1w. NaN where a
        model doesn't label all three.
    """

    noise: float = float("nan")
    edge: float = float("nan")
    ripple: float = float("nan")
    cut_cm2: float = float("nan")
    turn_deg: float = float("nan")
    contrast: float = float("nan")

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> ImageQuality:
        """From a sidecar; NaN for values that it doesn't have.

        Raises
        ------
        ValueError
            If its values aren't numbers.

        Examples
        --------
        >>> ImageQuality.of_record({"HetsegImageQuality": {"noise": 0.12}}).noise
        0.12
        """
        found = record.get("HetsegImageQuality", {})
        try:
            numbers = {name: found.get(name) for name in cls.__dataclass_fields__}
            return cls(**{k: float("nan") if v is None else float(v) for k, v in numbers.items()})
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"HetsegImageQuality {found!r:.80}: no numbers") from None

    def for_record(self) -> dict[str, float | None]:
        """As JSON values for a sidecar; None for NaN.

        Examples
        --------
        >>> ImageQuality(noise=0.12).for_record()["noise"], ImageQuality().for_record()["noise"]
        (0.12, None)
        """
        return {k: None if np.isnan(v) else round(v, 4) for k, v in asdict(self).items()}


def quality_of(prepared: PreparedImage, result: Segmentation) -> ImageQuality:
    """Measure a scan on its working grid.

    Parameters
    ----------
    prepared : PreparedImage
    result : Segmentation
        On any grid; its labels are moved to the working grid.
    """
    label_set, dseg = result.label_set, result.dseg
    if label_set == WHOLE_ASEG:  # what is usual is known of whole structures
        label_set, dseg = ASEG, ASEG.collapse(dseg)
    labels = nearest(np.asarray(result.full(dseg)), result.grid, prepared.working)
    if prepared.lesion is not None:
        labels[prepared.lesion.on(prepared.working)] = 0  # the image is filled in there
    image, mask = prepared.image.numpy(), prepared.mask.numpy()
    measured = measure_image(image, mask, labels, label_set)
    return replace(measured, cut_cm2=prepared.cut_cm2)  # of the scan itself, without padding


def measure_image(
    image: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    dseg: npt.NDArray[np.uint8],
    label_set: LabelSet,
) -> ImageQuality:
    """Measure a scan.

    Parameters
    ----------
    image : (X, Y, Z) float array
        1 mm, RAS; any intensity scale that is linear.
    mask : (X, Y, Z) bool array
        Brain.
    dseg : (X, Y, Z) uint8 array
        `Structure.label` values.
    label_set : LabelSet
    """
    faces = [mask.take(place, axis).sum() for axis in range(3) for place in (0, -1)]
    labelled = ndimage.find_objects((dseg > 0).view(np.uint8))
    if labelled:
        image, dseg = image[labelled[0]], dseg[labelled[0]]
    placed = ImageQuality(cut_cm2=float(max(faces)) / _MM2_PER_CM2, turn_deg=_turn(dseg, label_set))
    white, grey = (tissue(dseg, label_set, name) for name in (WHITE, GREY))
    fluid = image[tissue(dseg, label_set, FLUID)]
    inside = ndimage.find_objects((white | grey).astype(np.uint8))
    if not inside:
        return placed
    image, white, grey = image[inside[0]], white[inside[0]], grey[inside[0]]
    deep = ndimage.binary_erosion(white, iterations=_DEEP)
    if min(np.count_nonzero(deep), np.count_nonzero(grey)) < _LEAST_VOXELS:
        return placed
    bright = np.median(image[deep])
    contrast = float(bright - np.median(image[grey]))
    if len(fluid) >= _LEAST_FLUID:
        depth = abs(float(bright - np.median(fluid)))
        placed = replace(placed, contrast=contrast / depth if depth else float("nan"))
    if contrast <= 0:  # not a T1w image, or the labels are wrong
        return placed
    noise = _local_deviation(image, deep) / contrast
    ripple = _band_deviation(image, white) / contrast
    return replace(
        placed,
        noise=noise,
        edge=_step(image, white, grey) / contrast,
        ripple=float(np.sqrt(max(0.0, ripple**2 - (_NOISE_IN_BAND * noise) ** 2))),
    )


def _turn(dseg: npt.NDArray[np.uint8], label_set: LabelSet) -> float:
    """Angle of the line from the left to the right structures to the first axis, degrees."""
    voxels = Grid(dseg.shape, np.eye(4))
    places = centroids(dseg, voxels, [s for s in label_set.structures if s.hemisphere])
    lines = [
        places[partner_of(name)] - place
        for name, place in places.items()
        if hemisphere_of(name) == "L" and partner_of(name) in places
    ]
    if not lines:
        return float("nan")
    line = np.mean(lines, axis=0)
    return float(np.rad2deg(np.arctan2(np.linalg.norm(line[1:]), line[0])))


def tissue(dseg: npt.NDArray[np.uint8], label_set: LabelSet, name: str) -> npt.NDArray[np.bool_]:
    """Voxels of a structure, of both sides if it has two.

    Parameters
    ----------
    dseg : (X, Y, Z) uint8 array
        `Structure.label` values.
    label_set : LabelSet
    name : str
        `Structure.bare_name`, without the side.

    Returns
    -------
    mask : (X, Y, Z) bool array

    Examples
    --------
    >>> from hetseg_bids.structures.aseg import ASEG
    >>> tissue(np.array([2, 41, 10], np.uint8), ASEG, "cerebral_white_matter")
    array([ True,  True, False])
    """
    wanted = np.zeros(MAX_ASEG_ID + 1, bool)  # looked up: several times faster than np.isin
    wanted[[s.label for s in label_set.structures if s.bare_name == name]] = True
    return wanted[dseg]


def _local_deviation(image: npt.NDArray[np.float32], where: npt.NDArray[np.bool_]) -> float:
    """Noise, from the difference between a voxel and the mean of its six neighbours."""
    around = np.zeros(int(where.sum()), np.float32)
    places = np.nonzero(where)  # eroded, so no neighbour is beyond the border
    for axis in range(3):
        for step in (-1, 1):
            moved = [p + step if i == axis else p for i, p in enumerate(places)]
            around += image[tuple(moved)]
    rest = image[where] - around / _NEIGHBOURS
    return float(robust_sd(rest) / np.sqrt(1 + 1 / _NEIGHBOURS))


def _band_deviation(image: npt.NDArray[np.float32], white: npt.NDArray[np.bool_]) -> float:
    """Deviation of white matter between two scales, smoothed within white matter only."""
    inside = white.astype(np.float32)
    parts = (image * inside, inside)
    pairs = [(part, sigma) for sigma in _BAND for part in parts]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # filters let other threads run
        smooth = list(pool.map(lambda pair: ndimage.gaussian_filter(*pair), pairs))
    fine, coarse = (
        values / np.maximum(weight, _LEAST_WEIGHT) for values, weight in (smooth[:2], smooth[2:])
    )
    return float(robust_sd((fine - coarse)[ndimage.binary_erosion(white, iterations=_DEEP)]))


def _noise_in_band(sigmas: tuple[float, float]) -> float:
    """Standard deviation of white noise (1 before) between two Gaussian scales in 3-D."""
    a, b = sigmas
    overlap = [(2 * np.pi * (s**2 + t**2)) ** -1.5 for s, t in ((a, a), (b, b), (a, b))]
    return float(np.sqrt(overlap[0] + overlap[1] - 2 * overlap[2]))


_NOISE_IN_BAND = _noise_in_band(_BAND)


def _step(
    image: npt.NDArray[np.float32], white: npt.NDArray[np.bool_], grey: npt.NDArray[np.bool_]
) -> float:
    """Median difference between voxels of white and grey matter that share a face."""
    steps = []
    for axis, size in enumerate(image.shape):
        low, high = (
            tuple(slice(a, size - 1 + a) if i == axis else slice(None) for i in range(3))
            for a in (0, 1)
        )
        rise = image[high] - image[low]
        steps += [rise[grey[low] & white[high]], -rise[white[low] & grey[high]]]
    found = np.concatenate(steps)
    return float(np.median(found)) if len(found) else float("nan")
