"""Makes the layers of a residual network. Each spatial inductive bias of these layers is a setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.errors import UserError
from vitbench.models.local import LocallyConnected2d, RandomConv2d, Taps

REACHES = ("near", "spread", "random")
DOWNSAMPLES = ("stride", "max", "blur")
NORMS = ("batch", "layer")
TORCH_PADDINGS = {"zero": "constant", "circular": "circular", "reflect": "reflect"}  # the modes of torch's pad


@dataclass(frozen=True)
class Convolutions:
    """The inductive biases of a network's layers. All its convolutions, norms and poolings are made here.

    `sharing` says whether one kernel is used at all places. `reach` says where the taps of a kernel lie: `near` next to
    each other, `spread` a third of the map apart (at least 1 pixel), `random` at offsets that are drawn once per layer
    (`local.Taps`). It has no effect on kernels of 1x1 and of patches. `padding` says what lies beyond the border;
    random taps wrap around. `downsample` says how a map is halved. `norm` is `batch`, over the batch and all places for
    each channel (Ioffe and Szegedy 2015, arXiv 1502.03167), or `layer`, over the channels at each place, as in a ViT
    and in ConvNeXt (Liu et al. 2022, arXiv 2201.03545).
    """

    sharing: bool = True
    reach: str = "near"
    padding: str = "zero"
    downsample: str = "stride"
    norm: str = "batch"

    def conv(self, inputs: int, outputs: int, kernel: int, side: int, stride: int = 1) -> nn.Module:
        """Makes a convolution without bias for maps of `side` x `side`. A kernel as wide as its stride cuts patches.

        Raises UserError if the map is too small for circular or reflected padding.
        """
        reaches = 1 < kernel != stride
        spacing = max(1, side // 3) if self.reach == "spread" and reaches else 1
        random = self.reach == "random" and reaches
        border = spacing * (kernel // 2) if reaches else 0
        least = {"zero": 0, "circular": border, "reflect": border + 1}[self.padding]  # pixels that the padding needs
        if not random and side < least:
            raise UserError(
                f"model.padding={self.padding}: needs maps of at least {least} x {least}, and a map of this network is "
                f"{side} x {side}; model.padding=zero works"
            )
        if self.sharing and not random:
            mode: Any = "zeros" if self.padding == "zero" else self.padding
            return nn.Conv2d(inputs, outputs, kernel, stride, border, dilation=spacing, bias=False, padding_mode=mode)
        taps = Taps(kernel, stride, self.padding, side=side, spacing=spacing, random=random)
        if self.sharing:
            return RandomConv2d(inputs, outputs, taps)
        return LocallyConnected2d(inputs, outputs, taps, side)

    def normalise(self, width: int) -> nn.Module:
        return nn.BatchNorm2d(width) if self.norm == "batch" else ChannelNorm(width)

    def halve(self) -> nn.Module | None:
        """Makes the layer that halves a map before the first convolution of a stage; None if its stride does it."""
        if self.downsample == "stride":
            return None
        return nn.MaxPool2d(2, ceil_mode=True) if self.downsample == "max" else Blur(self.padding)

    def pool(self) -> nn.Module:
        """Makes the max-pooling of 3x3 with stride 2 that ends the stem of ImageNet."""
        if self.padding == "zero" and self.downsample != "blur":
            return nn.MaxPool2d(3, stride=2, padding=1)
        border = {"zero": nn.ZeroPad2d, "circular": nn.CircularPad2d, "reflect": nn.ReflectionPad2d}[self.padding](1)
        if self.downsample == "blur":
            return nn.Sequential(border, nn.MaxPool2d(3, stride=1), Blur(self.padding))
        return nn.Sequential(border, nn.MaxPool2d(3, stride=2))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels at each place of a map (B,D,h,w)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Blur(nn.Module):
    """Filters a map by 1 2 1 along both axes and takes every second pixel (Zhang 2019, arXiv 1904.11486).

    The filter removes the highest frequency completely, which every second pixel cannot represent. We differ from
    Zhang's networks, which pad by reflection and blur after the first convolution of a stage. Here the blur comes
    before it, so that the convolution costs no more.
    """

    def __init__(self, padding: str) -> None:
        super().__init__()
        self.padding = TORCH_PADDINGS[padding]

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode=self.padding)
        rows = x[:, :, :-2:2] + 2 * x[:, :, 1:-1:2] + x[:, :, 2::2]
        return (rows[..., :-2:2] + 2 * rows[..., 1:-1:2] + rows[..., 2::2]) / 16
