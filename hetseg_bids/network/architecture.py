"""The DeepSCAN-style 2.5-D network.

Source: McKinley et al., "Few-shot brain segmentation from weakly labeled data
with deep heteroscedastic multi-task networks", section 2; see also McKinley et
al. 2020 (DeepSCAN).  3-D convolutions, three in the paper, take a stack of 7 slices to 1, a
two-level encoder/decoder with densely connected dilated convolutions at the
bottom labels the middle slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hetseg_bids.network.layers import (
    DenseBlock,
    InstanceNorm,
    Join,
    Positive,
    Stem,
    conv_block,
    upsample_twice,
)

DOWNSAMPLING = 4  # of the features, in-plane
_ROWS = 1024  # pixels: oneDNN makes a kernel for each size and keeps it, half a MiB


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
    added_skips : bool
        Whether what the encoder found is added in the decoder, after a 1x1 convolution, instead of
        put beside: half the work there.

    Raises
    ------
    ValueError
        If `labelled` is even, or more than there are.

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
    added_skips: bool = False

    def __post_init__(self) -> None:
        slices = self.depth.slices
        if self.labelled not in range(1, slices + 1, 2):
            raise ValueError(f"labelled={self.labelled}: an odd number up to {slices} slices")

    @property
    def depth(self) -> StackDepth:
        """Slices of the stacks that the network takes."""
        return StackDepth(2 * len(self.stem) + 1, self.labelled)

    @property
    def reach(self) -> int:
        """Slices on either side that a slice's logits depend on."""
        return len(self.stem) + self.labelled // 2

    def build(self) -> HetsegNet:
        """A new network with random weights."""
        return HetsegNet(self)


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
        seen = config.stem[-1]
        self.stem = Stem(config.stem)
        self.stem_norm = nn.Sequential(InstanceNorm(seen), Positive())
        self.encode0 = conv_block(seen, c0)
        self.encode1 = nn.Sequential(conv_block(c0, c1, stride=2), conv_block(c1, c1))
        self.encode2 = conv_block(c1, c2, stride=2)
        width = c2
        blocks = []
        for dilation in config.dilations:
            blocks.append(DenseBlock(width, config.growth, dilation))
            width += config.growth
        self.bottleneck = nn.Sequential(*blocks)
        # 1x1 convolutions come before the upsampling: the same map at a quarter of the cost
        self.reduce1 = nn.Conv2d(width, c1, 1, bias=False)
        self.join1 = Join(c1, added=config.added_skips)
        self.decode1 = conv_block(self.join1.channels, c1)
        self.reduce0 = nn.Conv2d(c1, c0, 1, bias=False)
        self.join0 = Join(c0, added=config.added_skips)
        self.decode0 = conv_block(self.join0.channels, c0)
        rows = config.n_outputs * config.labelled
        self.head = nn.Conv2d(c0, rows, 1)
        coarse = (c1, width) if config.deep_supervision else ()
        self.coarse_heads = nn.ModuleList(nn.Conv2d(c, rows, 1) for c in coarse)
        self.apply(_initialise)

    def forward(self, stacks: Tensor) -> Tensor:
        """Logits of the middle slice of each stack.

        Parameters
        ----------
        stacks : (B, 1, D, H, W) float tensor
            D as `NetworkConfig.depth` says, H and W multiples of 4.

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
        x, *coarse = self._decoded(self.stem(stacks))
        heads = zip(self.coarse_heads, coarse, strict=False)
        levels = (self.head(x), *(head(y) for head, y in heads))
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

        Examples
        --------
        >>> config = NetworkConfig(n_outputs=62, stem=(4, 4, 4), levels=(4, 4, 4), growth=4)
        >>> HetsegNet(config).forward_block(torch.zeros(10, 12, 16)).shape  # 3 lost at either end
        torch.Size([4, 62, 12, 16])
        """
        x, *_ = self._decoded(self.stem(block[None, None]))
        depth, labelled = len(block) - 2 * self.config.reach, self.config.labelled
        said = [functional.conv2d(x, weight, bias) for weight, bias in self._heads(outputs)]
        of_each = [y[labelled - 1 - i :][:depth] for i, y in enumerate(said)]
        return sum(of_each[1:], of_each[0]) / labelled

    def forward_pixels(
        self, block: Tensor, pixels: Sequence[Tensor], outputs: Tensor | None = None
    ) -> Iterator[Tensor]:
        """The logits of `forward_block` for some pixels, slice by slice: all are much memory.

        Parameters
        ----------
        block, outputs
            As in `forward_block`.
        pixels : sequence of (N,) int64 tensor
            Of each interior slice; the number of a pixel is W times its row plus its column.

        Yields
        ------
        logits : (N, C) tensor

        Examples
        --------
        >>> config = NetworkConfig(n_outputs=62, stem=(4, 4, 4), levels=(4, 4, 4), growth=4)
        >>> pixels = [torch.tensor([0, 17]), torch.tensor([5])]
        >>> [len(said) for said in HetsegNet(config).forward_pixels(torch.zeros(8, 12, 16), pixels)]
        [2, 1]
        """
        x, *_ = self._decoded(self.stem(block[None, None]))
        features = x.permute(0, 2, 3, 1).flatten(1, 2)
        heads = [(weight.flatten(1), bias) for weight, bias in self._heads(outputs)]
        labelled = self.config.labelled
        for place, numbers in enumerate(pixels):
            stacks = range(place + labelled - 1, place - 1, -1)
            filled = functional.pad(numbers, (0, -len(numbers) % _ROWS))
            said = [
                functional.linear(features[k].index_select(0, filled), *head)[: len(numbers)]
                for k, head in zip(stacks, heads, strict=True)
            ]
            yield said[0] if labelled == 1 else sum(said[1:], said[0]) / labelled

    def _heads(self, outputs: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases for the slice in each place of those that a stack labels."""
        assert self.head.bias is not None  # noqa: S101
        weight, bias = (
            p.unflatten(0, (self.config.labelled, -1)) for p in (self.head.weight, self.head.bias)
        )
        places = zip(weight, bias, strict=True)
        return [(w, b) if outputs is None else (w[outputs], b[outputs]) for w, b in places]

    def encoded(self, stacks: Tensor) -> Tensor:
        """What the encoder finds at half resolution: (B, 1, D, H, W) -> (B, C, H/2, W/2)."""
        return self._encoded(self.stem(stacks))[1]

    def _encoded(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What is found at full and at half resolution."""
        finest = self.encode0(self.stem_norm(features))
        return finest, self.encode1(finest)

    def _decoded(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the heads at full, half and quarter resolution, from (B, C, H, W) features."""
        finest, skip = self._encoded(features)
        quarter = self.bottleneck(self.encode2(skip))
        half = self.decode1(self.join1(upsample_twice(self.reduce1(quarter)), skip))
        full = self.decode0(self.join0(upsample_twice(self.reduce0(half)), finest))
        return full, half, quarter


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
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
