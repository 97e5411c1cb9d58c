"""Synthetic T1w images from label maps.

After SynthSeg (Billot et al. 2023), but with a T1w prior (`tissue_priors`) instead of
random contrast: deform a map, paint it, degrade the picture, strip it, weaken its labels.
TorchIO and cornucopia were several times slower on two cores and don't weaken labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hetseg_bids.preprocessing.normalisation import standardise
from hetseg_bids.preprocessing.transfer import CPU
from hetseg_bids.training.synthesis.label_maps import read_label_map
from hetseg_bids.training.synthesis.label_noise import LabelNoiseConfig, weaken
from hetseg_bids.training.synthesis.protocol import grow
from hetseg_bids.training.synthesis.random_fields import gaussian_blur, smooth_field, white_noise
from hetseg_bids.training.synthesis.sizes import Place, find_places, resize_
from hetseg_bids.training.synthesis.tissue_priors import draw_appearance
from hetseg_bids.training.volumes import FRAME, LabelledVolume, centre_in_frame

_CSF = 24
_FIRST_EXTRACEREBRAL = 200
_GREY = ((3, 42), (8, 47))  # cerebral, cerebellar


@dataclass(frozen=True)
class SynthesisConfig:
    """Ranges from which a synthetic scan is drawn (lengths in voxels of 1 mm).

    Attributes
    ----------
    rotation_deg, shear : float
        Standard deviation and half-range of the affine part.
    scale : tuple of 2 float
        Range, each axis.
    warp : tuple of (spacing, amplitude)
        Smooth deformations: lattice spacing and largest standard deviation.
    grown : tuple of (structure, factor)
        Structures whose labels are larger than in the map, but not in the image (`protocol`).
    sizes : float
        How much larger or smaller deep structures are than in the map (`sizes`): standard
        deviation of the log of their lengths.
    contrast : tuple of 2 float
        Factor on every tissue's distance to white matter.
    pale_rate, pale : float, tuple of 2 float
        How often the deep grey matter is brighter than the prior says, and the factor on its
        distance to white matter then.
    pia : tuple of 2 float
        How similar to cortex the voxels are that touch it from outside, 0-1: pia, vessels, and
        cortex that isn't part of the labels, which end inside its visible border.
    bias : float
        Largest standard deviation of the log bias field; most are far smaller.
    blur : tuple of 2 float
        Gaussian sigma, each axis.
    thick_rate, thick : float, tuple of 2 float
        Share of scans with thick slices along one axis, and the thickness in voxels.
    motion_rate, motion : float, tuple of 2 float
        Share of scans in which the head moved while k-space was filled, and how far.
    noise : tuple of 2 float
        Standard deviation, white matter = 1; mostly near the lower end.
    gamma : tuple of 2 float
        Exponent of the intensities.
    labels : LabelNoiseConfig
    """

    rotation_deg: float = 8.0
    shear: float = 0.04
    scale: tuple[float, float] = (0.86, 1.14)
    warp: tuple[tuple[float, float], ...] = ((48.0, 4.0), (20.0, 1.6))
    grown: tuple[tuple[str, float], ...] = (("accumbens", 1.3), ("pallidum", 1.1))
    sizes: float = 0.0
    contrast: tuple[float, float] = (0.6, 1.5)
    pale_rate: float = 0.3
    pale: tuple[float, float] = (0.1, 1.0)
    pia: tuple[float, float] = (0.0, 0.5)
    bias: float = 0.25
    blur: tuple[float, float] = (0.25, 0.9)
    thick_rate: float = 0.15
    thick: tuple[float, float] = (1.5, 3.0)
    motion_rate: float = 0.1
    motion: tuple[float, float] = (0.5, 3.0)
    noise: tuple[float, float] = (0.0, 0.08)
    gamma: tuple[float, float] = (0.8, 1.25)
    labels: LabelNoiseConfig = field(default_factory=LabelNoiseConfig)


class SyntheticSource:
    """Draws synthetic volumes from a folder of label maps.

    Parameters
    ----------
    maps : sequence of Path
        Label maps that `read_label_map` accepts; read on first use.
    config : SynthesisConfig
    device : torch.device
        Where volumes are made. Those of a GPU differ from a CPU's, but have the same distribution.
    """

    def __init__(
        self,
        maps: Sequence[Path],
        config: SynthesisConfig | None = None,
        device: torch.device = CPU,
    ) -> None:
        if not maps:
            raise ValueError("no label maps to generate from")
        self.maps = tuple(sorted(maps))
        self.config = config or SynthesisConfig()
        self.device = device
        self._cache: dict[Path, tuple[Tensor, dict[int, Place]]] = {}

    def fingerprint(self) -> dict[str, object]:
        """Kind, map names and every range, for plan.json."""
        names = [path.name for path in self.maps]
        made = {} if self.device.type == "cpu" else {"device": self.device.type}
        return {"kind": "synthetic-T1w", "maps": names, "config": asdict(self.config), **made}

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """One synthetic scan with weak labels."""
        path = self.maps[rng.integers(len(self.maps))]
        if path not in self._cache:
            labels = _framed(path).to(self.device)
            maps = torch.stack((labels, grow(labels, self.config.grown)))
            self._cache[path] = maps, find_places(labels) if self.config.sizes else {}
        tissue, truth = deform(rng, *self._cache[path], self.config)
        mask = random_strip_mask(rng, tissue)
        image = standardise(paint(rng, tissue, self.config), mask)
        labels = weaken(rng, truth * mask, self.config.labels)
        return LabelledVolume(image, labels, foreign=(_CSF,))


class SyntheticScans:
    """A fixed set of synthetic scans, which are trained on again and again, like real ones.

    Parameters
    ----------
    source : SyntheticSource
    count : int
    seed : int
        Scan i depends on the source, the seed and i only.
    """

    def __init__(self, source: SyntheticSource, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError("a set of synthetic scans needs at least one")
        self.source = source
        self.count = count
        self.seed = seed
        self._scans: dict[int, LabelledVolume] = {}

    def fingerprint(self) -> dict[str, object]:
        """The source's, with the size and the seed of the set."""
        return {**self.source.fingerprint(), "scans": self.count, "scans_seed": self.seed}

    def volumes(self) -> list[LabelledVolume]:
        """All scans, in a fixed order."""
        return [self._scan(i) for i in range(self.count)]

    def reject(self, masks: list[Tensor]) -> None:
        """Leave labels out of the loss from now on; one mask per scan, see `LabelledVolume`."""
        for i, mask in enumerate(masks):
            self._scans[i] = replace(self._scan(i), rejected=mask)

    def draw(self, rng: np.random.Generator) -> LabelledVolume:
        """One of the scans."""
        return self._scan(int(rng.integers(self.count)))

    def _scan(self, number: int) -> LabelledVolume:
        if number not in self._scans:
            rng = np.random.default_rng((self.seed, number))
            self._scans[number] = self.source.draw(rng)
        return self._scans[number]


def _framed(path: Path) -> Tensor:
    labels = read_label_map(path)
    brain = (labels > 0) & (labels < _FIRST_EXTRACEREBRAL) & (labels != _CSF)
    corners = np.argwhere(brain)
    centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
    # larger than the frame: scaling and warps pull in what lies beyond its border
    shape = tuple(size + 16 for size in FRAME)
    return torch.from_numpy(centre_in_frame(labels, centre, shape))  # type: ignore[arg-type]


def deform(
    rng: np.random.Generator, maps: Tensor, places: dict[int, Place], config: SynthesisConfig
) -> Tensor:
    """Move maps onto `FRAME` by one random affine and smooth warp.

    Parameters
    ----------
    rng : numpy.random.Generator
    maps : (M, X, Y, Z) uint8 tensor
        Label maps of one brain.
    places : dict of int to Place
        See `find_places`; used where structures are resized.
    config : SynthesisConfig

    Returns
    -------
    deformed : (M, *FRAME) uint8 tensor
    """
    device = maps.device
    matrix = _random_affine(rng, config)
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in FRAME]
    positions = torch.zeros(3, *FRAME, device=device)
    for spacing, amplitude in config.warp:
        strength = rng.uniform(0, amplitude)
        positions.add_(smooth_field(rng, FRAME, spacing, 3, device), alpha=strength)
    middle = (np.array(maps.shape[1:]) - 1) / 2
    for axis in range(3):
        positions[axis] += float(middle[axis])
        for other in range(3):
            view = axes[other].view([-1 if other == j else 1 for j in range(3)])
            positions[axis] += float(matrix[axis, other]) * view
    if config.sizes:
        back = np.linalg.inv(matrix)
        shift = (np.array(FRAME) - 1) / 2 - back @ middle
        resize_(rng, list(positions), places, config.sizes, np.c_[back, shift])
    flat = torch.zeros(FRAME, dtype=torch.int32, device=device)
    for axis, size in enumerate(maps.shape[1:]):
        index = positions[axis].round_().clamp_(0, size - 1).to(torch.int32)
        flat.mul_(size).add_(index)
    return maps.flatten(1)[:, flat.view(-1)].view(-1, *FRAME)


def _random_affine(rng: np.random.Generator, config: SynthesisConfig) -> np.ndarray:
    matrix = np.diag(1 / rng.uniform(*config.scale, 3))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        angle = np.deg2rad(rng.normal(0, config.rotation_deg))
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        shear = np.eye(3)
        shear[a, b] = rng.uniform(-config.shear, config.shear)
        matrix = matrix @ turn @ shear
    return matrix


def paint(rng: np.random.Generator, labels: Tensor, config: SynthesisConfig) -> Tensor:
    """A T1w-like image of a label map.

    Parameters
    ----------
    rng : numpy.random.Generator
    labels : (X, Y, Z) uint8 tensor
        aseg ids; extra-cerebral ids lowered by 300.
    config : SynthesisConfig

    Returns
    -------
    image : (X, Y, Z) float32 tensor
        White matter about 1, not yet stripped.
    """
    deep = rng.uniform(*config.pale) if rng.random() < config.pale_rate else 1.0
    look = draw_appearance(rng, config.contrast, deep)
    device = labels.device
    index = labels.to(torch.int32)
    mean, within, slope = (
        torch.from_numpy(table).to(device) for table in (look.mean, look.within, look.slope)
    )
    image = mean[index]
    shape = tuple(labels.shape)
    for axis, size in enumerate(shape):
        ramp = torch.linspace(-1, 1, size, device=device)
        image.addcmul_(slope[:, axis][index], ramp.view([-1 if axis == i else 1 for i in range(3)]))
    texture = smooth_field(rng, shape, rng.uniform(2.0, 5.0), device=device)[0]
    texture += smooth_field(rng, shape, rng.uniform(8.0, 16.0), device=device)[0]
    image.addcmul_(texture, within[index])
    for grey in _GREY:
        _lay_pia_(image, labels, grey, float(look.mean[grey[0]]), rng.uniform(*config.pia))
    sigma = rng.uniform(*config.blur, 3)
    image = gaussian_blur(image, (float(sigma[0]), float(sigma[1]), float(sigma[2])))
    if rng.random() < config.thick_rate:
        image = _thicken(rng, image, config.thick)
    if rng.random() < config.motion_rate:
        image = _move(rng, image, config.motion)
    bias = smooth_field(rng, shape, rng.uniform(50, 120), device=device)[0]
    image = image * bias.mul_(_mostly_low(rng, 0.0, config.bias)).exp_()
    image.add_(white_noise(rng, shape, device), alpha=_mostly_low(rng, *config.noise)).abs_()
    return image.pow_(rng.uniform(*config.gamma))


def _mostly_low(rng: np.random.Generator, low: float, high: float) -> float:
    # most real scans have little bias and noise
    return low + (high - low) * float(rng.uniform()) ** 2


def _lay_pia_(
    image: Tensor, labels: Tensor, grey: tuple[int, int], value: float, share: float
) -> None:
    """Make the fluid that touches grey matter look a little like it."""
    inside = (labels == grey[0]) | (labels == grey[1])
    touching = torch.zeros_like(inside)
    for axis, size in enumerate(labels.shape):
        for here, there in ((0, 1), (1, 0)):
            near = touching.narrow(axis, here, size - 1)
            near |= inside.narrow(axis, there, size - 1)
    fluid = (labels == 0) | (labels == _CSF) | (labels >= _FIRST_EXTRACEREBRAL)
    image.copy_(torch.where(touching & fluid, image + share * (value - image), image))


def _thicken(rng: np.random.Generator, image: Tensor, thick: tuple[float, float]) -> Tensor:
    """Acquire one axis with thicker slices, then interpolate back to 1 mm."""
    axis = int(rng.integers(3))
    width = rng.uniform(*thick)
    sigma = [0.0, 0.0, 0.0]
    sigma[axis] = 0.4 * width
    blurred = gaussian_blur(image, (sigma[0], sigma[1], sigma[2]))[None, None]
    coarse = list(image.shape)
    coarse[axis] = max(2, round(coarse[axis] / width))
    low = functional.interpolate(blurred, size=coarse, mode="trilinear", align_corners=True)
    shape = list(image.shape)
    return functional.interpolate(low, size=shape, mode="trilinear", align_corners=True)[0, 0]


def _move(rng: np.random.Generator, image: Tensor, motion: tuple[float, float]) -> Tensor:
    """Fill the lines of k-space along one axis while the head is in 2-4 places.

    The places differ by shifts along all axes; the middle of k-space comes from the first one.
    """
    axis = int(rng.integers(3))
    lines = image.shape[axis] // 2 + 1  # of the half that a real image needs, from the middle
    spectrum = torch.fft.rfft(image, dim=axis)
    for start in np.sort(rng.uniform(0.08, 0.7, rng.integers(1, 4))):
        shift = rng.normal(0, rng.uniform(*motion), 3)
        moved = torch.fft.rfft(_shifted(image, shift), dim=axis)
        first = max(1, int(start * lines))
        spectrum.narrow(axis, first, lines - first).copy_(moved.narrow(axis, first, lines - first))
    return torch.fft.irfft(spectrum, n=image.shape[axis], dim=axis)


def _shifted(image: Tensor, shift: np.ndarray) -> Tensor:
    for axis, distance in enumerate(shift):
        whole = int(np.floor(distance))
        share = float(distance - whole)
        near, far = (torch.roll(image, whole + step, dims=axis) for step in (0, 1))
        image = torch.lerp(near, far, share)
    return image


def random_strip_mask(rng: np.random.Generator, labels: Tensor) -> Tensor:
    """A brain mask like those of extraction tools: tight in some places, loose in others.

    Thresholds a blurred brain mask with a smooth random level, at 2 mm for speed.
    Mostly 0-3 voxels outside the brain, sometimes far more, rarely inside it.

    Parameters
    ----------
    rng : numpy.random.Generator
    labels : (X, Y, Z) uint8 tensor
        Sizes are even numbers.

    Returns
    -------
    mask : (X, Y, Z) bool tensor
    """
    brain = (labels > 0) & (labels < _FIRST_EXTRACEREBRAL) & (labels != _CSF)
    low = functional.avg_pool3d(brain[None, None].float(), 2)
    reach = int(rng.choice((3, 5, 9), p=(0.55, 0.32, 0.13)))
    for _ in range(2):
        low = functional.avg_pool3d(low, reach, stride=1, padding=reach // 2)
    level = rng.uniform(0.06, 0.6)
    wobble = smooth_field(rng, tuple(low.shape[2:]), rng.uniform(6, 16), device=labels.device)[0]
    threshold = (level * torch.exp(0.35 * wobble)).clamp_(0.02, 0.65)
    loose = (low[0, 0] - threshold)[None, None]
    full = functional.interpolate(loose, scale_factor=2, mode="trilinear", align_corners=False)
    return full[0, 0] > 0
