"""Convolutions with weaker inductive biases: their kernels differ from place to place, or their taps lie apart.

A convolution assumes that neighbouring pixels belong together (locality) and that patterns mean the same everywhere
(weight sharing). Each assumption can be dropped here at exactly equal multiply-adds. Without sharing, each place has
its own kernel, so the number of parameters grows with the map. Without locality, it stays the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitbench.errors import UserError

PADDINGS = ("zero", "circular", "reflect")


class Taps(nn.Module):
    """Computes which pixels a kernel reads at each place.

    The taps form a square around the place, `spacing` pixels apart. If they are `random`, each tap has its own offset,
    which is the same at every place and wraps around at the border. The offsets are drawn from torch's generator among
    all offsets of a map of `side` x `side`, without repeats if the map has enough places.
    """

    offsets: Tensor  # (k k, 2), rows and columns

    def __init__(self, kernel: int, stride: int, padding: str, *, side: int, spacing: int, random: bool) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.padding = "circular" if random else padding
        taps = kernel * kernel
        if random:
            drawn = torch.randperm(max(side * side, taps))[:taps] % (side * side)
            offsets = torch.stack([drawn // side, drawn % side], 1)
        else:
            first = 0 if kernel == stride else -(kernel // 2)
            steps = spacing * torch.arange(first, first + kernel)
            offsets = torch.cartesian_prod(steps, steps)
        self.register_buffer("offsets", offsets, persistent=random)

    def side(self, side: int) -> int:
        """Returns the side of the output map for an input map with this side."""
        return -(-side // self.stride)

    def pixels(self, height: int, width: int) -> Tensor:
        """Returns the pixel that each tap reads at each place, (h, w, k k), counted row by row.

        With zero padding, everything beyond the border is pixel `height * width`.
        """
        places = (torch.arange(0, side, self.stride, device=self.offsets.device) for side in (height, width))
        (rows, out), (columns, out_too) = (
            self._inside(at[:, None] + offsets, side)  # (h, k k), (w, k k)
            for at, offsets, side in zip(places, self.offsets.T, (height, width), strict=True)
        )
        pixels = rows[:, None] * width + columns
        return torch.where(out[:, None] | out_too, height * width, pixels)

    def _inside(self, at: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Returns the rows or columns after padding, and a mask of those that still lie beyond the border."""
        beyond = (at < 0) | (at >= side)
        if self.padding == "circular":
            return at % side, torch.zeros_like(beyond)
        if self.padding == "reflect":
            return (side - 1) - ((side - 1) - at.abs()).abs(), torch.zeros_like(beyond)
        return at, beyond


class RandomConv2d(nn.Conv2d):
    """A convolution whose taps lie at random offsets, which are the same for all channels, places and images.

    Weights, initialisation and multiply-adds are those of the convolution that it replaces. It has no bias.
    """

    def __init__(self, inputs: int, outputs: int, taps: Taps) -> None:
        super().__init__(inputs, outputs, taps.kernel, taps.stride, bias=False)
        self.taps = taps

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.taps.pixels(x.shape[2], x.shape[3]).permute(2, 0, 1)  # (k k, h, w)
        flat = x.permute(1, 2, 3, 0).flatten(1, 2)  # (C, H W, B): a pixel of all images is contiguous in memory
        seen = flat.index_select(1, pixels.flatten()).unflatten(1, (pixels.shape[0], -1))  # (C, k k, h w, B)
        maps = self.weight.flatten(1) @ seen.flatten(0, 1).flatten(1)  # (D, h w B)
        return maps.unflatten(1, (*pixels.shape[1:], -1)).permute(3, 0, 1, 2)


class LocallyConnected2d(nn.Module):
    """A convolution without weight sharing: each place of the output has its own kernel. It has no bias.

    `weight` is (h w, D, k k C), place by place, with the taps row by row. Each kernel is initialised like that of the
    convolution that it replaces (He et al. 2015, arXiv 1502.01852, fan-out), and decays like it. The layer takes maps
    of `side` x `side` only.

    The gradient of a shared kernel is a sum over places; here each kernel gets the gradient of its own place. In a
    residual network a norm follows every convolution, so the effect of a step depends on its length relative to the
    kernel's, which weight decay controls (van Laarhoven 2017, arXiv 1706.05350). Steps that were h w or sqrt(h w) times
    as long trained no better, so gradients are not scaled.
    """

    decays_weight = True

    def __init__(self, inputs: int, outputs: int, taps: Taps, side: int) -> None:
        super().__init__()
        self.taps, self.side, self.to_side = taps, side, taps.side(side)
        self.weight = nn.Parameter(torch.empty(self.to_side**2, outputs, taps.kernel**2 * inputs))
        fan_out = outputs * taps.kernel**2
        nn.init.normal_(self.weight, std=math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.side, self.side):
            raise UserError(
                f"model.sharing=false: takes only images of the size that it was built for; a map has {x.shape[2]} x "
                f"{x.shape[3]} places, and there are kernels for {self.side} x {self.side}"
            )
        flat = x.permute(2, 3, 1, 0).flatten(0, 1)  # (H W, C, B)
        if self.taps.padding == "zero":
            flat = torch.cat([flat, flat.new_zeros(1, *flat.shape[1:])])
        pixels = self.taps.pixels(self.side, self.side)  # (h, w, k k)
        seen = flat.index_select(0, pixels.flatten()).unflatten(0, (len(self.weight), -1))  # (h w, k k, C, B)
        maps = self.weight @ seen.flatten(1, 2)  # (h w, D, B)
        return maps.permute(2, 1, 0).unflatten(2, (self.to_side, self.to_side))
