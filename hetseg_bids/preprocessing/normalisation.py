"""Standard scores of the brain, the intensity scale of both training and inference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

# standard scores. Darker than CSF: where the mask is too loose or too tight, its edge then looks
# like CSF and not like tissue. The paper's value is 0
BACKGROUND = -3.0
CLIP = 4.0


def standardise(image: Tensor, mask: Tensor, left_out: Tensor | None = None) -> Tensor:
    """Standard scores over the mask, clipped to +-`CLIP`, `BACKGROUND` outside it.

    Parameters
    ----------
    image : (X, Y, Z) float32 tensor
    mask : (X, Y, Z) bool tensor
    left_out : (X, Y, Z) bool tensor, optional
        Voxels that count neither for the mean nor for the standard deviation: a lesion.

    Returns
    -------
    scores : (X, Y, Z) float32 tensor

    Raises
    ------
    ValueError
        If the mask is empty or the image is constant inside it.

    Examples
    --------
    >>> image = torch.tensor([0.0, 90, 110]).view(3, 1, 1)
    >>> standardise(image, image > 0).flatten()
    tensor([-3., -1.,  1.])
    """
    box = _box_of(mask)
    part, brain = image[box], mask[box]
    inside = part[brain if left_out is None else brain & ~left_out[box]].cpu().numpy()
    if not len(inside):
        raise ValueError("brain mask is empty")
    # numpy: torch's sums depend on the number of threads, and the training samples would, too
    mean, spread = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
    if not spread > 0:
        raise ValueError("image is constant inside the brain mask")
    scores = ((part - mean) / spread).clamp_(-CLIP, CLIP)
    whole = torch.full_like(image, BACKGROUND)
    whole[box] = torch.where(brain, scores, torch.tensor(BACKGROUND))
    return whole


def _box_of(mask: Tensor) -> tuple[slice, ...]:
    """The bounding box of a mask: what is outside costs time and nothing comes of it."""
    found = ndimage.find_objects(mask.cpu().numpy().view(np.uint8))
    return found[0] if found else (slice(0, 0),) * mask.ndim


def typical_high(values: npt.NDArray[np.float32]) -> float:
    """The 99th percentile of the values that aren't zero; 0 if all are.

    Examples
    --------
    >>> typical_high(np.array([0, 0, 100, 100], np.float32))
    100.0
    """
    values = values.ravel(order="K")  # in the order of memory, which is several times faster
    some = values[values != 0]
    return float(np.percentile(some, 99, overwrite_input=True)) if some.size else 0.0
