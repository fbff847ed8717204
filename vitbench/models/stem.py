"""The convolutional stem of a ViT (`model.stem=conv`), and the initialisation of patches."""

from __future__ import annotations

from torch import nn

from vitbench.models.convolutions import ChannelNorm


class ConvStem(nn.Sequential):
    """A stem of overlapping 3x3 convolutions: images (B,C,H,W) -> (B,D,h,w).

    It follows "Early Convolutions Help Transformers See Better" (Xiao et al. 2021, arXiv 2106.14881): log2(P) 3x3
    convolutions of stride 2 for a patch of P px, each with a norm, a ReLU and twice the channels of the one before,
    then a 1x1 convolution to the width. We differ in three points. The last 3x3 convolution has half the width, so the
    network costs within 10 % of one with plain patches at the same depth; the paper has wider stems and one block less.
    The norm is over the channels at each place, as in the blocks, because batch norm would mix the images of a batch.
    Convolutions are initialised LeCun-normal, like the patches that they replace; the norms make the scale nearly
    irrelevant.
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
    """Draws the weights with standard deviation 1 / sqrt(number of inputs of a unit) (LeCun et al. 1998)."""
    nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
