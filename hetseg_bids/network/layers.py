"""Parts of the network, written so that CPU and GPU kernels are fast."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

_INPUT_OFFSET = 3.0
_INPUT_SCALE = 0.5


class InstanceNorm(nn.Module):
    """Instance norm with affine, written so that channels_last stays fast on CPU."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape; each channel of a slice by itself."""
        if not torch.is_grad_enabled() and x.device.type == "cpu":
            done = [self._kernel(part) for part in _shared_out(x)]
            return done[0] if len(done[0]) == len(x) else torch.cat(done)[: len(x)]
        mean, deviation = self._statistics(x)
        scale = self.weight.view(1, -1, 1, 1) * deviation
        shift = self.bias.view(1, -1, 1, 1) - mean * scale
        return torch.addcmul(shift.to(x.dtype), x, scale.to(x.dtype))

    def _kernel(self, x: Tensor) -> Tensor:
        """One pass over the image, also of half precision beside weights of full precision."""
        n, c, h, w = x.shape
        return torch.native_group_norm(x, self.weight, self.bias, n, c, h * w, c, self.eps)[0]

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation in float32: bf16 has too few digits for 30,000 pixels."""
        if not torch.is_grad_enabled():
            # CUDA's kernel refuses half precision beside weights of full precision
            variance, mean = torch.var_mean(x.float(), dim=(2, 3), correction=0, keepdim=True)
            return mean, torch.rsqrt(variance + self.eps)
        mean = x.mean(dim=(2, 3), keepdim=True, dtype=torch.float32)
        square = (x * x).mean(dim=(2, 3), keepdim=True, dtype=torch.float32)
        var = (square - mean * mean).clamp_min(0)
        return mean, torch.rsqrt(var + self.eps)


def _shared_out(x: Tensor) -> tuple[Tensor, ...]:
    """Slices in batches that are multiples of the number of threads, the last filled with zeros.

    Each thread sums a part of a batch, and a sum in two parts is rounded differently. When every
    thread gets the same number of whole slices, results don't depend on the number of threads.
    """
    threads = torch.get_num_threads()
    rest = len(x) % threads
    if not rest:
        return (x,)
    missing = (*(0,) * 7, threads - rest)
    filled = functional.pad(x[len(x) - rest :], missing)
    return (x[: len(x) - rest], filled) if len(x) > rest else (filled,)


class Positive(nn.Module):
    """ReLU in place, written so that it is fast in bfloat16 on a CPU.

    The bits of a bfloat16 below 0 are those of a whole number below 0, and PyTorch compares whole
    numbers of 16 bits five times as fast.

    Examples
    --------
    >>> with torch.no_grad():
    ...     Positive()(torch.tensor([-1.5, 0, 2], dtype=torch.bfloat16))
    tensor([0., 0., 2.], dtype=torch.bfloat16)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        if x.dtype != torch.bfloat16 or x.device.type != "cpu" or torch.is_grad_enabled():
            return torch.relu_(x)
        x.view(torch.int16).clamp_min_(0)
        return x


def conv_block(inp: int, out: int, *, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution, instance norm, ReLU."""
    conv = nn.Conv2d(inp, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, InstanceNorm(out), Positive())


class DenseBlock(nn.Module):
    """1x1 squeeze, then a dilated 3x3; the result is appended to the input."""

    def __init__(self, inp: int, growth: int, dilation: int) -> None:
        super().__init__()
        self.squeeze = conv_block(inp, growth, kernel=1)
        self.dilated = nn.Sequential(
            nn.Conv2d(growth, growth, 3, padding=dilation, dilation=dilation, bias=False),
            InstanceNorm(growth),
            Positive(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + growth, H, W)."""
        return torch.cat((x, self.dilated(self.squeeze(x))), dim=1)


class Join(nn.Module):
    """Decoder features with those of the encoder: added after a 1x1 convolution, or beside."""

    def __init__(self, channels: int, *, added: bool) -> None:
        super().__init__()
        self.channels = channels if added else 2 * channels
        self.project = nn.Conv2d(channels, channels, 1, bias=False) if added else None

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        """Two (B, C, H, W) -> (B, C or 2 C, H, W)."""
        if self.project is None:
            return torch.cat((decoded, encoded), dim=1)
        added: Tensor = self.project(encoded)
        return added.add_(decoded)


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
    """3-D convolutions, unpadded across slices: (B, 1, D, H, W) -> (B (D - 2 N), C, H, W).

    There is no normalisation inside, so the features of a block of slices are those of its
    overlapping stacks, and are computed only once.

    Parameters
    ----------
    channels : tuple of N int
        Of each convolution.

    Examples
    --------
    >>> Stem((8, 8, 16))(torch.zeros(2, 1, 7, 12, 16)).shape
    torch.Size([2, 16, 12, 16])
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        convs = (
            # no bias in the last one: a norm follows
            nn.Conv3d(a, b, 3, padding=(0, 1, 1), bias=i < len(channels))
            for i, (a, b) in enumerate(pairwise((1, *channels)), 1)
        )
        super().__init__(OrderedDict((f"conv{i}", conv) for i, conv in enumerate(convs, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the slices with N neighbours on either side."""
        count = len(x)
        # the background becomes 0, so that zero padding continues it instead of framing it
        x = (x.transpose(1, 2).flatten(0, 1) + _INPUT_OFFSET) * _INPUT_SCALE
        for number, conv in enumerate(self, 1):
            assert isinstance(conv, nn.Conv3d)  # noqa: S101
            x = _over_slices(x, count, conv)
            if number < len(self):
                x = torch.relu(x)
        return x


def _over_slices(x: Tensor, count: int, conv: nn.Conv3d) -> Tensor:
    """A 3-D convolution, unpadded across slices: (B D, C, H, W) -> (B (D - 2), C', H, W).

    As a 2-D convolution of three slices side by side: for B stacks PyTorch has no fast 3-D
    convolution in float32, and with AMX the gradients of oneDNN's in bfloat16 write beyond their
    memory.

    Examples
    --------
    >>> conv = nn.Conv3d(2, 4, 3, padding=(0, 1, 1))
    >>> stacks = torch.randn(3, 2, 5, 8, 6)
    >>> said = _over_slices(stacks.transpose(1, 2).flatten(0, 1), 3, conv)
    >>> torch.allclose(said, conv(stacks).transpose(1, 2).flatten(0, 1), atol=1e-5)
    True
    """
    stacks = x.unflatten(0, (count, -1))
    depth = stacks.shape[1] - 2
    beside = torch.cat([stacks.narrow(1, i, depth).flatten(0, 1) for i in range(3)], dim=1)
    kernel = conv.weight.transpose(1, 2).flatten(1, 2)
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    return functional.conv2d(beside, kernel, conv.bias, padding=1)
