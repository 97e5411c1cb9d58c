"""The DeepSCAN-style 2.5-D network.

Source: McKinley et al., "Few-shot brain segmentation from weakly labeled data
with deep heteroscedastic multi-task networks", section 2; see also McKinley et
al. 2020 (DeepSCAN).  3-D convolutions, three in the paper, take a stack of 7 slices to 1, a
two-level encoder/decoder with densely connected dilated convolutions at the
bottom labels the middle slice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hetseg_bids.network.devices import autocast, trains_conv3d_in_bf16

_DOWNSAMPLING = 4  # of the features, in-plane
_INPUT_OFFSET = 3.0
_INPUT_SCALE = 0.5


@dataclass(frozen=True)
class StackDepth:
    """Slices of a stack, and how many in its middle are labelled: both odd numbers."""

    slices: int = 7
    labelled: int = 1


@dataclass(frozen=True)
class NetworkConfig:
    """Everything needed to rebuild a network before its weights are loaded.

    Attributes
    ----------
    n_outputs : int
        Logit maps per slice: one per task, or two for heteroscedastic systems.
    stem : tuple of int
        Channels of the 3-D convolutions; each needs one more neighbouring slice on either side.
    levels : tuple of 3 int
        Channels at full, half and quarter resolution.
    dilations : tuple of int
        One dense block each, at quarter resolution.
    growth : int
        Channels each dense block adds.
    labelled : int
        Slices in the middle of a stack that get logits, an odd number. Where neighbouring stacks
        label the same slice, their logits are averaged.
    deep_supervision : bool
        Whether training has heads at half and quarter resolution, too.
    fold : int
        Side of the blocks of pixels that become channels of one pixel before the first
        convolution, in-plane; the head gives the logits of a whole block ("sub-pixel convolution",
        Shi et al. 2016).  Then "full resolution" above means that of the blocks.
    added_skips : bool
        Whether what the encoder found is added in the decoder, which halves the work there,
        instead of put beside.

    Raises
    ------
    ValueError
        If `labelled` is even, or more than there are, or `fold` isn't positive.

    Examples
    --------
    >>> config = NetworkConfig(n_outputs=62)  # label and flip logits of 31 tasks
    >>> config.depth, config.reach
    (StackDepth(slices=7, labelled=1), 3)
    """

    n_outputs: int
    stem: tuple[int, ...] = (16, 16, 32)
    levels: tuple[int, int, int] = (32, 64, 96)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1)
    growth: int = 32
    labelled: int = 1
    deep_supervision: bool = False
    fold: int = 1
    added_skips: bool = False

    def __post_init__(self) -> None:
        if self.fold < 1:
            raise ValueError(f"fold={self.fold}: a positive number")
        slices = self.depth.slices
        if self.labelled not in range(1, slices + 1, 2):
            raise ValueError(f"labelled={self.labelled}: an odd number up to {slices} slices")

    @property
    def depth(self) -> StackDepth:
        """Slices of the stacks that the network takes."""
        return StackDepth(2 * len(self.stem) + 1, self.labelled)

    @property
    def multiple(self) -> int:
        """Rows and columns of a stack must be multiples of this number."""
        return _DOWNSAMPLING * self.fold

    @property
    def reach(self) -> int:
        """Slices on either side that a slice's logits depend on."""
        return len(self.stem) + self.labelled // 2


class _InstanceNorm(nn.Module):
    """Instance norm with affine, written so that channels_last stays fast on CPU."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean, deviation = self._statistics(x)
        scale = self.weight.view(1, -1, 1, 1) * deviation
        shift = self.bias.view(1, -1, 1, 1) - mean * scale
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation in float32: bf16 has too few digits for 30,000 pixels."""
        if not torch.is_grad_enabled():
            # one kernel, four times faster in all; only its statistics are used
            parts = [self._kernel_statistics(part) for part in _shared_out(x)]
            mean, deviation = (torch.cat(found)[: len(x)] for found in zip(*parts, strict=True))
            return mean, deviation
        mean = x.mean(dim=(2, 3), keepdim=True, dtype=torch.float32)
        square = (x * x).mean(dim=(2, 3), keepdim=True, dtype=torch.float32)
        var = (square - mean * mean).clamp_min(0)
        return mean, torch.rsqrt(var + self.eps)

    def _kernel_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, c, h, w = x.shape
        found = torch.native_group_norm(x, self.weight, self.bias, n, c, h * w, c, self.eps)
        return found[1].view(n, c, 1, 1), found[2].view(n, c, 1, 1)


def _shared_out(x: Tensor) -> tuple[Tensor, ...]:
    """Slices in batches that are multiples of the number of threads, the last filled with zeros.

    Each thread sums a part of a batch, and a sum in two parts is rounded differently. When every
    thread gets the same number of whole slices, results don't depend on the number of threads.
    """
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    rest = len(x) % threads
    if not rest:
        return (x,)
    missing = (*(0,) * 7, threads - rest)
    filled = functional.pad(x[len(x) - rest :], missing)
    return (x[: len(x) - rest], filled) if len(x) > rest else (filled,)


def _conv_block(inp: int, out: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    conv = nn.Conv2d(inp, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, _InstanceNorm(out), nn.ReLU(inplace=True))


class _DenseBlock(nn.Module):
    """1x1 squeeze, then a dilated 3x3; the result is appended to the input."""

    def __init__(self, inp: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.squeeze = _conv_block(inp, growth, kernel=1)
        self.dilated = nn.Sequential(
            nn.Conv2d(growth, growth, 3, padding=dilation, dilation=dilation, bias=False),
            _InstanceNorm(growth),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.dilated(self.squeeze(x))), dim=1)


def upsample_twice(x: Tensor) -> Tensor:
    """Bilinear upsampling by 2, ``align_corners=False``: (B, C, H, W) -> (B, C, 2 H, 2 W).

    Written out because torch 2.13's inductor returns zero gradients for the bfloat16
    `interpolate` on CPU (tests/network/test_network.py compares compiled and eager gradients).
    Where no gradients are wanted the kernel is right, and several times faster.

    Examples
    --------
    >>> upsample_twice(torch.tensor([[[[0.0, 4.0]]]]))
    tensor([[[[0., 1., 3., 4.],
              [0., 1., 3., 4.]]]])
    """
    if not torch.is_grad_enabled():
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    for dim in (2, 3):
        size = x.shape[dim]
        before = torch.cat((x.narrow(dim, 0, 1), x.narrow(dim, 0, size - 1)), dim)
        after = torch.cat((x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)), dim)
        pair = torch.stack((0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after), dim + 1)
        x = pair.flatten(dim, dim + 1)
    return x.contiguous(memory_format=torch.channels_last)


class Stem(nn.Sequential):
    """3-D convolutions, unpadded across slices: (B, 1, D, H, W) -> (B, C, D - 2 N, H/f, W/f).

    There is no normalisation inside, so the features of a block of slices are those of its
    overlapping stacks, and are computed only once.

    Parameters
    ----------
    channels : tuple of N int
        Of each convolution.
    fold : int
        f of `NetworkConfig`.

    Examples
    --------
    >>> Stem((8, 8, 16))(torch.zeros(2, 1, 7, 12, 16)).shape
    torch.Size([2, 16, 1, 12, 16])
    """

    def __init__(self, channels: tuple[int, ...], fold: int = 1) -> None:
        convs = (
            # no bias in the last one: a norm follows
            nn.Conv3d(a, b, 3, padding=(0, 1, 1), bias=i < len(channels))
            for i, (a, b) in enumerate(pairwise((fold * fold, *channels)), 1)
        )
        super().__init__(OrderedDict((f"conv{i}", conv) for i, conv in enumerate(convs, 1)))
        self._fold = fold
        self._trains_in_bf16 = trains_conv3d_in_bf16()  # asked here: it can't be traced

    def forward(self, x: Tensor) -> Tensor:
        """Features of the slices with N neighbours on either side, in float32 where needed."""
        # oneDNN's bfloat16 gradients of 3-D convolutions write beyond their memory with AMX
        if torch.is_grad_enabled() and x.device.type == "cpu" and not self._trains_in_bf16:
            with autocast(x.device, enabled=False):
                return self._features(x)
        return self._features(x)

    def _features(self, x: Tensor) -> Tensor:
        # background becomes 0, so that zero padding continues it instead of framing it
        x = (x + _INPUT_OFFSET) * _INPUT_SCALE
        if self._fold > 1:
            # pixel_unshuffle takes the two last axes: slices go with the batch meanwhile
            x = functional.pixel_unshuffle(x.transpose(1, 2), self._fold).transpose(1, 2)
        *first, last = self
        for conv in first:
            x = torch.relu(conv(x))
        out: Tensor = last(x)
        return out


class HetsegNet(nn.Module):
    """The 2.5-D network.

    Parameters
    ----------
    config : NetworkConfig
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        c0, c1, c2 = config.levels
        self.stem = Stem(config.stem, config.fold)
        self.stem_norm = nn.Sequential(_InstanceNorm(config.stem[-1]), nn.ReLU(inplace=True))
        self.encode0 = _conv_block(config.stem[-1], c0)
        self.encode1 = nn.Sequential(_conv_block(c0, c1, stride=2), _conv_block(c1, c1))
        self.encode2 = _conv_block(c1, c2, stride=2)
        width = c2
        blocks = []
        for dilation in config.dilations:
            blocks.append(_DenseBlock(width, config.growth, dilation))
            width += config.growth
        self.bottleneck = nn.Sequential(*blocks)
        # 1x1 convolutions come before the upsampling: the same map at a quarter of the cost
        self.reduce1 = nn.Conv2d(width, c1, 1, bias=False)
        beside = 1 if config.added_skips else 2
        self.decode1 = _conv_block(beside * c1, c1)
        self.reduce0 = nn.Conv2d(c1, c0, 1, bias=False)
        self.decode0 = _conv_block(beside * c0, c0)
        rows = config.n_outputs * config.labelled
        # a pixel's rows lie together, as pixel_shuffle wants them
        self.head = nn.Conv2d(c0, rows * config.fold**2, 1)
        coarse = (c1, width) if config.deep_supervision else ()
        self.coarse_heads = nn.ModuleList(nn.Conv2d(c, rows, 1) for c in coarse)
        self.apply(_initialise)

    def forward(self, stacks: Tensor) -> Tensor:
        """Logits of the middle slice of each stack.

        Parameters
        ----------
        stacks : (B, 1, D, H, W) float tensor
            D as `NetworkConfig.depth` says, H and W multiples of `NetworkConfig.multiple`.

        Returns
        -------
        logits : (B, n_outputs, H, W) tensor

        Examples
        --------
        >>> config = NetworkConfig(n_outputs=62, stem=(4, 4, 4), levels=(4, 4, 4), growth=4)
        >>> HetsegNet(config)(torch.zeros(2, 1, 7, 12, 16)).shape
        torch.Size([2, 62, 12, 16])
        """
        labelled = self.forward_training(stacks)[0].unflatten(0, (len(stacks), -1))
        return labelled[:, self.config.labelled // 2]

    def forward_training(self, stacks: Tensor) -> tuple[Tensor, ...]:
        """Logits of all labelled slices, at each resolution that has a head.

        Parameters
        ----------
        stacks : (B, 1, D, H, W) float tensor

        Returns
        -------
        logits : tuple of tensors
            (B labelled, n_outputs, H, W), the labelled slices of a stack one after the other; with
            deep supervision the same at half and at quarter resolution.
        """
        x, *coarse = self._decoded(self.stem(stacks).squeeze(2))
        heads = zip(self.coarse_heads, coarse, strict=False)
        levels = (self._unfold(self.head(x)), *(head(y) for head, y in heads))
        return tuple(y.unflatten(1, (self.config.labelled, -1)).flatten(0, 1) for y in levels)

    def forward_block(self, block: Tensor, outputs: Tensor | None = None) -> Tensor:
        """Logits of every interior slice of one block of consecutive slices.

        Parameters
        ----------
        block : (D, H, W) float tensor
            D consecutive slices, at least 2 reach + 1; H and W as in `forward`.
        outputs : (C,) int64 tensor, optional
            Numbers of the wanted outputs; all n_outputs by default.

        Returns
        -------
        logits : (D - 2 reach, C, H, W) tensor
            The mean over the overlapping stacks that label a slice; the stem runs once.

        Examples
        --------
        >>> config = NetworkConfig(n_outputs=62, stem=(4, 4, 4), levels=(4, 4, 4), growth=4)
        >>> HetsegNet(config).forward_block(torch.zeros(10, 12, 16)).shape  # 3 lost at either end
        torch.Size([4, 62, 12, 16])
        """
        features = self.stem(block[None, None])[0].transpose(0, 1)
        x, *_ = self._decoded(features.contiguous(memory_format=torch.channels_last))
        n, labelled = self.config.n_outputs, self.config.labelled
        if outputs is None:
            outputs = torch.arange(n, device=block.device)
        depth = len(block) - 2 * self.config.reach
        said = []
        for i in range(labelled):  # logits of the slice in place i of those that a stack labels
            rows = outputs + n * i
            if self.config.fold > 1:
                block_rows = torch.arange(self.config.fold**2, device=rows.device)
                rows = (rows[:, None] * len(block_rows) + block_rows).flatten()
            bias = None if self.head.bias is None else self.head.bias[rows]
            stacks = x[labelled - 1 - i :][:depth]
            said.append(functional.conv2d(stacks, self.head.weight[rows], bias))
        return self._unfold(said[0] if labelled == 1 else sum(said[1:], said[0]) / labelled)

    def _unfold(self, logits: Tensor) -> Tensor:
        """Blocks of pixels back in their places."""
        fold = self.config.fold
        return logits if fold == 1 else functional.pixel_shuffle(logits, fold)

    def _decoded(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the heads at full, half and quarter resolution, from (B, C, H, W) features."""
        skip0 = self.encode0(self.stem_norm(features))
        skip1 = self.encode1(skip0)
        quarter = self.bottleneck(self.encode2(skip1))
        half = self.decode1(self._joined(upsample_twice(self.reduce1(quarter)), skip1))
        full = self.decode0(self._joined(upsample_twice(self.reduce0(half)), skip0))
        return full, half, quarter

    def _joined(self, coarse: Tensor, skip: Tensor) -> Tensor:
        return coarse + skip if self.config.added_skips else torch.cat((coarse, skip), dim=1)


def _initialise(module: nn.Module) -> None:
    # He et al. 2015: PyTorch's default shrinks the signal by 6 per layer, and the stem has
    # no norm to bring it back
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def to_channels_last(network: HetsegNet) -> HetsegNet:
    """Put convolution weights in the memory format that CPU and GPU kernels prefer."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        elif isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
