"""Synthetic T1w images of whole heads at 2 mm, from which the head model learns.

The same label maps as in `painting`, whose ids beyond the brain are skull, soft tissue, skin, eyes,
veins and air. They are drawn at places 1 mm apart, whose mean is a voxel of 2 mm with its partial
volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from hetseg_bids.preprocessing.field import largest_piece
from hetseg_bids.preprocessing.head import standardise_head
from hetseg_bids.structures.head import BRAIN, FLUID, OUTSIDE
from hetseg_bids.training.synthesis.label_maps import read_label_map
from hetseg_bids.training.synthesis.random_fields import gaussian_blur, smooth_field, white_noise
from hetseg_bids.training.synthesis.tissue_priors import draw_appearance
from hetseg_bids.training.volumes import LabelledVolume

HEAD_FRAME = (96, 128, 112)  # voxels of 2 mm, RAS
_STEP = 2.0  # mm
_PLACES = 0.5 * np.array(((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)))  # mm from the middle

_CSF, _STEM = 24, 16
_CEREBELLUM = (7, 8, 46, 47)
_VESSELS = (30, 62)
_FIRST_BEYOND = 200  # ids beyond the brain, see `read_label_map`
_AIR, _EYE, _SOFT, _SKIN, _CORD, _VEIN, _BONE, _MARROW = 202, 206, 207, 211, 212, 214, 215, 216
# ids that only this module has
_DIPLOE, _DURA, _SINUS, _CANAL, _LOW_STEM = 240, 241, 242, 243, 244
_BELOW_CEREBELLUM_MM = 3
_INTO_SKULL = 6  # voxels that a field of view which is too small cuts off
_SINUS_MM = 8.0  # veins that lie as near to the brain and the fluid around it are sinuses

# mean and spread over scans of the intensity, cerebral white matter = 1, and spread inside
_BEYOND: dict[int, tuple[float, float, float]] = {
    0: (0.03, 0.03, 0.0),
    _AIR: (0.08, 0.06, 0.05),
    _EYE: (0.25, 0.12, 0.05),
    208: (0.60, 0.20, 0.08),  # muscles of the eye
    209: (0.65, 0.30, 0.15),  # mucosa
    _SOFT: (0.50, 0.18, 0.12),
    _SKIN: (0.75, 0.40, 0.20),
    _CORD: (0.85, 0.12, 0.07),
    _VEIN: (0.55, 0.30, 0.12),
    _BONE: (0.12, 0.06, 0.04),
    _MARROW: (0.70, 0.40, 0.20),
    230: (0.70, 0.15, 0.08),  # optic nerve
    _DIPLOE: (0.50, 0.35, 0.20),
    _DURA: (0.40, 0.20, 0.15),
    _SINUS: (0.50, 0.25, 0.15),
    _CANAL: (0.33, 0.12, 0.08),
    _LOW_STEM: (0.88, 0.08, 0.07),
}


@dataclass(frozen=True)
class HeadConfig:
    """Ranges from which a head is drawn.

    Attributes
    ----------
    rotation_deg, shear : float
        Standard deviation and half-range of the affine part.
    scale, part_scale : tuple of 2 float
        Ranges of the factors on all axes together, and on each by itself.
    shift_mm : float
        Half-range of the place in the frame.
    warp : tuple of (spacing, amplitude)
        Smooth deformations: lattice spacing and largest standard deviation, voxels.
    contrast, rare_contrast : tuple of 2 float
        Factor on every tissue's distance to white matter: of most heads, and of the others.
    rare_rate : float
        Share of these others.
    fat : tuple of 2 float
        Intensity of fat, cerebral white matter = 1: suppressed, or far brighter than the brain.
    bias, falloff : float
        Largest standard deviation of the log bias field; half-range of the log of the change from
        one end of the frame to the other, each axis.
    blur : tuple of 2 float
        Gaussian sigma, voxels, each axis.
    noise : tuple of 2 float
        Standard deviation, white matter = 1; mostly near the lower end.
    gamma : tuple of 2 float
        Exponent of the intensities.
    defaced_rate, zeroed_rate, wrap_rate : float
        Share of heads without a face, with air of one value, and with a folded nose or neck.
    bare_rate, bare : float, and tuple of 2 float
        Share of heads with only what is near the inside of the skull, and how near, voxels.
    cut_rates : tuple of 6 float
        Share of heads that end at each face of the image: left, right, back, front, bottom, top.
    """

    rotation_deg: float = 12.0
    shear: float = 0.05
    scale: tuple[float, float] = (0.84, 1.14)
    part_scale: tuple[float, float] = (0.94, 1.06)
    shift_mm: float = 12.0
    warp: tuple[tuple[float, float], ...] = ((24.0, 2.0), (10.0, 0.8))
    contrast: tuple[float, float] = (0.85, 1.15)
    rare_contrast: tuple[float, float] = (0.6, 1.5)
    rare_rate: float = 0.3
    fat: tuple[float, float] = (0.1, 2.6)
    bias: float = 0.3
    falloff: float = 0.5
    blur: tuple[float, float] = (0.2, 0.7)
    noise: tuple[float, float] = (0.0, 0.08)
    gamma: tuple[float, float] = (0.8, 1.25)
    defaced_rate: float = 0.55
    zeroed_rate: float = 0.5
    wrap_rate: float = 0.1
    bare_rate: float = 0.6
    bare: tuple[float, float] = (3.0, 9.0)
    cut_rates: tuple[float, ...] = (0.06, 0.06, 0.06, 0.12, 0.4, 0.1)


@dataclass(frozen=True)
class Head:
    """A synthetic head.

    Attributes
    ----------
    volume : LabelledVolume
        Voxels of 2 mm, ids as in `structures.head`.
    intracranial_mm3 : float
        Volume inside the skull, counted at four places in each voxel.
    """

    volume: LabelledVolume
    intracranial_mm3: float


class HeadSource:
    """Draws whole heads from a folder of label maps.

    Parameters
    ----------
    maps : sequence of Path
        Label maps that `read_label_map` accepts; read on first use.
    config : HeadConfig
    """

    def __init__(self, maps: Sequence[Path], config: HeadConfig | None = None) -> None:
        if not maps:
            raise ValueError("no label maps to generate from")
        self.maps = tuple(sorted(maps))
        self.config = config or HeadConfig()
        self._cache: dict[Path, Tensor] = {}

    def fingerprint(self) -> dict[str, object]:
        """Kind, map names and every range, for plan.json."""
        names = [path.name for path in self.maps]
        return {"kind": "synthetic-T1w-heads", "maps": names, "config": asdict(self.config)}

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """One synthetic head."""
        return self.draw_head(rng).volume

    def draw_head(self, rng: np.random.Generator) -> Head:
        """One synthetic head, with its volume."""
        path = self.maps[rng.integers(len(self.maps))]
        if path not in self._cache:
            self._cache[path] = torch.from_numpy(read_head(path))
        ids = _deformed(rng, self._cache[path], self.config)
        image = _paint(rng, ids, self.config)
        kinds = torch.from_numpy(_KINDS)
        labels = kinds[ids[0].int()]
        inside = (kinds[ids[1:].int()] % OUTSIDE > 0).float().mean(0)
        image = _spoil(rng, image, labels, inside, self.config)
        volume = LabelledVolume(standardise_head(image), labels)
        return Head(volume, float(inside.double().sum()) * _STEP**3)


def _kinds() -> npt.NDArray[np.uint8]:
    """Id of the training labels for each id of a head."""
    kinds = np.full(256, BRAIN, np.uint8)
    kinds[_FIRST_BEYOND:] = OUTSIDE
    kinds[251:256] = BRAIN  # corpus callosum
    kinds[0] = 0
    kinds[[_CSF, *_VESSELS, _DURA, _SINUS]] = FLUID
    return kinds


_KINDS = _kinds()


def read_head(path: Path) -> npt.NDArray[np.uint8]:
    """Read a label map, and tell apart what the borders of the inside of the skull need.

    The inside ends 3 mm below the cerebellum, about where the spinal canal begins. Sinuses and the
    layer of fluid that touches bone, in which the dura lies, belong to it.

    Parameters
    ----------
    path : Path
        See `read_label_map`.

    Returns
    -------
    ids : (X, Y, Z) uint8 array
        RAS, 1 mm.
    """
    ids = read_label_map(path)
    low = int(np.flatnonzero(np.isin(ids, _CEREBELLUM).any(axis=(0, 1)))[0])
    below = ids[:, :, : max(0, low - _BELOW_CEREBELLUM_MM)]
    below[below == _CSF] = _CANAL
    below[below == _STEM] = _LOW_STEM
    above = ids[:, :, max(0, low - _BELOW_CEREBELLUM_MM) :]
    core = (_KINDS[above] == BRAIN) | (_KINDS[above] == FLUID)
    above[core & ~largest_piece(core)] = 0
    near = ndimage.distance_transform_edt(~core) <= _SINUS_MM
    above[near & (above == _VEIN)] = _SINUS
    above[(above == _CORD) & near] = _STEM
    bone = (ids == _BONE) | (ids == _MARROW)
    ids[ndimage.binary_erosion(ids == _BONE)] = _DIPLOE
    ids[ndimage.binary_dilation(bone, np.ones((3, 3, 3))) & (ids == _CSF)] = _DURA
    ends = np.flatnonzero((ids > 0).any(axis=(0, 1)))
    # no air below: the neck goes on where the map ends
    return np.ascontiguousarray(ids[:, :, ends[0] + 1 :])


def _deformed(rng: np.random.Generator, ids: Tensor, config: HeadConfig) -> Tensor:
    """Ids at the middle of each voxel of the frame, and at four places in it: (5, *frame)."""
    matrix = np.diag(_STEP / (rng.uniform(*config.scale) * rng.uniform(*config.part_scale, 3)))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        angle = np.deg2rad(rng.normal(0, config.rotation_deg))
        turn, shear = np.eye(3), np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        shear[a, b] = rng.uniform(-config.shear, config.shear)
        matrix = matrix @ turn @ shear
    inside = np.argwhere(np.isin(_KINDS[ids[::4, ::4, ::4].numpy()], (FLUID, BRAIN))) * 4
    middle = (inside.min(axis=0) + inside.max(axis=0)) / 2
    middle += rng.uniform(-config.shift_mm, config.shift_mm, 3) - (0, 0, 18)
    positions = torch.zeros(3, *HEAD_FRAME)
    for spacing, amplitude in config.warp:
        positions.add_(
            smooth_field(rng, HEAD_FRAME, spacing, 3), alpha=_STEP * rng.uniform(0, amplitude)
        )
    for axis in range(3):
        positions[axis] += float(middle[axis])
        for other, size in enumerate(HEAD_FRAME):
            line = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
            view = line.view([-1 if other == j else 1 for j in range(3)])
            positions[axis] += float(matrix[axis, other]) * view
    found = []
    for place in (np.zeros(3), *_PLACES):
        offset = matrix @ (place / _STEP)
        flat = torch.zeros(HEAD_FRAME, dtype=torch.int32)
        for axis, size in enumerate(ids.shape):
            index = (positions[axis] + float(offset[axis])).round_().clamp_(0, size - 1)
            flat.mul_(size).add_(index.to(torch.int32))
        found.append(ids.view(-1)[flat.view(-1)].view(HEAD_FRAME))
    return torch.stack(found)


def _paint(rng: np.random.Generator, ids: Tensor, config: HeadConfig) -> Tensor:
    """The image of (5, *frame) ids, still without noise, bias or cuts."""
    rare = rng.random() < config.rare_rate
    look = draw_appearance(rng, config.rare_contrast if rare else config.contrast)
    for label, (value, between, spread) in _BEYOND.items():
        look.mean[label] = abs(rng.normal(value, between))
        look.within[label] = spread * rng.uniform(0.4, 1.3)
    fat = rng.uniform(*config.fat)
    # marrow is fat, skin lies on it
    for label, most in ((_MARROW, 0.5), (_DIPLOE, 0.4), (_SKIN, 0.3)):
        look.mean[label] += rng.uniform(0, most) * (fat - look.mean[label])
    mean, within = torch.from_numpy(look.mean), torch.from_numpy(look.within)
    centre = ids[0].int()
    image = torch.zeros(HEAD_FRAME)
    for part in ids[1:]:
        image += mean[part.int()]
    image /= len(_PLACES)
    texture = smooth_field(rng, HEAD_FRAME, rng.uniform(1.0, 3.0))[0]
    texture += smooth_field(rng, HEAD_FRAME, rng.uniform(4.0, 8.0))[0]
    image.addcmul_(texture, within[centre])
    # soft tissue is fat in some places and muscle in others
    fatty = smooth_field(rng, HEAD_FRAME, rng.uniform(3.0, 10.0))[0]
    fatty = torch.sigmoid(4 * (fatty + rng.normal(0.3, 0.6)))
    share = (ids[1:] == _SOFT).float().mean(0)
    image.addcmul_(fatty.mul_(share), torch.tensor(fat - float(look.mean[_SOFT])))
    sigma = rng.uniform(*config.blur, 3)
    return gaussian_blur(image, (float(sigma[0]), float(sigma[1]), float(sigma[2]))).clamp_(min=0)


def _spoil(
    rng: np.random.Generator, image: Tensor, labels: Tensor, inside: Tensor, config: HeadConfig
) -> Tensor:
    """Bias, noise, faces taken off, folded and cut ends; what is cut loses its labels, too."""
    field = smooth_field(rng, HEAD_FRAME, rng.uniform(25, 60))[0]
    field.mul_(_mostly_low(rng, 0.0, config.bias))
    for axis, size in enumerate(HEAD_FRAME):
        slope = rng.uniform(-config.falloff, config.falloff) * float(rng.uniform())
        ramp = torch.linspace(-slope, slope, size)
        field += ramp.view([-1 if axis == i else 1 for i in range(3)])
    image = image.mul_(field.exp_())
    if rng.random() < config.wrap_rate:
        _fold_(rng, image, labels)
    noise = _mostly_low(rng, *config.noise)
    image.add_(white_noise(rng, HEAD_FRAME, torch.device("cpu")), alpha=noise).abs_()
    image = image.pow_(rng.uniform(*config.gamma))
    if rng.random() < config.zeroed_rate:
        image[labels == 0] = 0
    if rng.random() < config.defaced_rate:
        image[_face(rng, labels)] = 0
    _cut_(rng, image, labels, inside, config.cut_rates)
    if rng.random() < config.bare_rate:
        image[~_near(rng, labels, config.bare)] = 0
    return image


def _mostly_low(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.uniform()) ** 2


def _cranium(labels: Tensor) -> Tensor:
    return (labels == FLUID) | (labels == BRAIN)


def _fold_(rng: np.random.Generator, image: Tensor, labels: Tensor) -> None:
    """Let the nose appear behind the head, or the neck above it, as in a field too small."""
    axis = int(rng.choice((1, 2)))
    low, high = _ends(labels > 0, axis)
    width, faint = int(rng.integers(3, 14)), rng.uniform(0.2, 1.0)
    if axis == 1:  # the front, at the back
        width = min(width, high - _ends(_cranium(labels), 1)[1])
        start = high - width + 1
        moved = image.narrow(1, start, width).clone()
        image.narrow(1, start, width).zero_()
        image.narrow(1, low, width).add_(moved, alpha=faint)
    else:  # the bottom, at the top
        start = high - width + 1
        image.narrow(2, start, width).add_(image.narrow(2, low, width).clone(), alpha=faint)


def _ends(mask: Tensor, axis: int) -> tuple[int, int]:
    """First and last slice along an axis that a mask reaches; the whole axis for an empty mask."""
    first, second = (i for i in (2, 1, 0) if i != axis)
    places = torch.nonzero(mask.any(dim=first).any(dim=second))
    return (int(places[0]), int(places[-1])) if len(places) else (0, mask.shape[axis] - 1)


def _face(rng: np.random.Generator, labels: Tensor) -> Tensor:
    """What a tool for defacing removes: all before and below a plane in front of the skull.

    Half of them leave what is above the brow, and some cut a little into the skull.
    """
    cranium = _cranium(labels)
    angle = np.deg2rad(rng.uniform(15, 80))
    y, z = (torch.arange(n, dtype=torch.float32) for n in labels.shape[1:])
    height = float(np.cos(angle)) * y[:, None] - float(np.sin(angle)) * z
    columns = cranium.any(dim=0)
    if not columns.any():
        return torch.zeros_like(cranium)
    face = height > float(height[columns].max()) + rng.uniform(-1.5, 8.0)
    if rng.random() < 0.5:
        low, high = _ends(cranium, 2)
        face &= z < low + rng.uniform(0.2, 0.7) * (high - low)
    return face.expand(labels.shape)


def _near(rng: np.random.Generator, labels: Tensor, reach: tuple[float, float]) -> Tensor:
    """What is near the inside of the skull, not at one distance, which would show the border."""
    far = smooth_field(rng, HEAD_FRAME, rng.uniform(8.0, 25.0))[0]
    far = rng.uniform(*reach) + rng.uniform(0.5, 2.0) * far
    distance = ndimage.distance_transform_edt(~_cranium(labels).numpy())
    return torch.from_numpy(distance) <= far.clamp_(min=reach[0])


def _cut_(
    rng: np.random.Generator,
    image: Tensor,
    labels: Tensor,
    inside: Tensor,
    rates: Sequence[float],
) -> None:
    """Let the head end at faces of the image: most ends are narrow, the lower one is not."""
    fill = float(rng.choice((0.0, float(image[0, 0, 0]))))
    head, cranium = labels > 0, _cranium(labels)
    for face, rate in enumerate(rates):
        if rng.random() >= rate:
            continue
        axis, upper = divmod(face, 2)
        # from the skin to a little inside the skull
        outer, inner = (_ends(mask, axis)[upper] for mask in (head, cranium))
        low, high = sorted((outer, inner + (-_INTO_SKULL if upper else _INTO_SKULL)))
        size = labels.shape[axis]
        place = int(rng.integers(max(0, low), min(size, high + 1)))
        start, width = (place, size - place) if upper else (0, place)
        image.narrow(axis, start, width).fill_(fill)
        labels.narrow(axis, start, width).zero_()
        inside.narrow(axis, start, width).zero_()
