"""How pixels become patches: one convolution that cuts them out, or a stem of several, `model.stem`."""

from __future__ import annotations

from torch import nn

from vitbench.models.convolutions import ChannelNorm


class ConvStem(nn.Sequential):
    """Overlapping 3x3 convolutions of stride 2, each with a norm and a ReLU, then a 1x1 convolution to the width:
    images (B,C,H,W) -> (B,D,h,w), as "Early Convolutions Help Transformers See Better" has it (Xiao et al. 2021, arXiv
    2106.14881).

    A patch of P px takes log2(P) of them. As there, each has twice the channels of the one before; here the last has
    half the width, so that the network costs within 10 % of one with plain patches at the same depth, where the paper
    has wider stems and one block less. The norm is that of the blocks, over the channels at each place, in place of
    batch norm, which would let the images of a batch see each other. Convolutions begin LeCun-normal, as the patches
    that they replace; the norm after each 3x3 makes its scale matter little.
    """

    def __init__(self, channels: int, width: int, patch_size: int) -> None:
        halvings = patch_size.bit_length() - 1
        layers: list[nn.Module] = []
        for left in range(halvings, 0, -1):
            outputs = max(1, width // 2**left)
            layers += [
                nn.Conv2d(channels, outputs, 3, stride=2, padding=1, bias=False),
                ChannelNorm(outputs),
                nn.ReLU(),
            ]
            channels = outputs
        super().__init__(*layers, nn.Conv2d(channels, width, 1))


def lecun_normal_(layer: nn.Conv2d) -> None:
    """Draws the weights with deviation 1 / sqrt(inputs of a unit) (LeCun et al. 1998)."""
    nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
