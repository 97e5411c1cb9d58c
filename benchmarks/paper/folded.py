"""A small network for long runs on one core: blocks of 2 x 2 pixels become channels.

Nothing but the logits exists at full resolution, where small networks spend most of their time
(Shi et al. 2016, "sub-pixel convolution"). The rest is `HetsegNet`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from hetseg_bids.network.architecture import DOWNSAMPLING, HetsegNet, NetworkConfig
from hetseg_bids.preprocessing.normalisation import BACKGROUND

FOLD = 2  # side of a block, pixels


@dataclass(frozen=True)
class FoldedConfig(NetworkConfig):
    """A `NetworkConfig` whose full resolution is that of the blocks.

    Examples
    --------
    >>> config = FoldedConfig(62, stem=(4, 4), levels=(4, 4, 4), growth=4, added_skips=True)
    >>> config.build()(torch.zeros(2, 1, 5, 16, 24)).shape
    torch.Size([2, 62, 16, 24])
    """

    fold: int = FOLD  # tells the settings of a run from those of other networks

    def build(self) -> HetsegNet:
        """A new network with random weights."""
        return FoldedNet(self)


class FoldedNet(HetsegNet):
    """See the module. One labelled slice, no coarse heads.

    Parameters
    ----------
    config : FoldedConfig
    """

    def __init__(self, config: FoldedConfig) -> None:
        super().__init__(config)
        block = FOLD * FOLD
        self.stem.conv1 = nn.Conv3d(block, config.stem[0], 3, padding=(0, 1, 1))
        self.head = nn.Conv2d(config.levels[0], block * config.n_outputs, 1)
        for layer in (self.stem.conv1, self.head):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward_training(self, stacks: Tensor) -> tuple[Tensor, ...]:
        """(B, 1, D, H, W) stacks, H and W multiples of 8, to (B, n_outputs, H, W) logits."""
        x, *_ = self._decoded(self.stem(_folded(stacks)))
        return (_unfolded(self.head(x)),)

    def forward_pixels(
        self, block: Tensor, pixels: Sequence[Tensor], outputs: Tensor | None = None
    ) -> Iterator[Tensor]:
        """See `HetsegNet.forward_pixels`; slices of any size."""
        rows, columns = block.shape[1:]
        multiple = FOLD * DOWNSAMPLING
        border = (0, -columns % multiple, 0, -rows % multiple)
        padded = functional.pad(block, border, value=BACKGROUND)
        x, *_ = self._decoded(self.stem(_folded(padded[None, None])))
        for features, wanted in zip(x.split(1), pixels, strict=True):
            logits = _unfolded(self.head(features))[0, :, :rows, :columns].flatten(1)[:, wanted].T
            yield logits if outputs is None else logits[:, outputs]


def _folded(stacks: Tensor) -> Tensor:
    """(B, 1, D, H, W) -> (B, 4, D, H / 2, W / 2)."""
    return functional.pixel_unshuffle(stacks.transpose(1, 2), FOLD).transpose(1, 2)


def _unfolded(logits: Tensor) -> Tensor:
    """(B, 4 C, h, w) -> (B, C, 2 h, 2 w)."""
    blocks = logits.unflatten(1, (FOLD, FOLD, -1)).permute(0, 3, 4, 1, 5, 2)
    # each map by itself in memory: losses are twice as fast as with all of a pixel side by side
    return blocks.flatten(4, 5).flatten(2, 3).contiguous()
