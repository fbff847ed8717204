"""A depthwise convolution over the grid of tokens, so the encoding of a token depends on its neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitbench.pe.base import Geometry, PositionEncoding


class CPE(PositionEncoding):
    """Conditional position encoding (Chu et al. 2021, arXiv 2102.10882, section 3): tokens + convolution(tokens).

    It acts after the first block, which is position 0 of the paper's generator (PEG). The convolution is depthwise,
    3x3, and padded with zeros. Only the padding tells a token where it is: away from the border, the convolution is
    equivariant to shifts of the patches. It works on any grid. Prefix tokens stay unchanged.

    Weights are drawn with standard deviation sqrt(2/9), biases are 0 (as all biases of the ViT), and neither decays, as
    in the authors' code (Twins, `CPVTV2`).
    """

    depends_on_image = True

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.conv = nn.Conv2d(geometry.width, geometry.width, 3, padding=1, groups=geometry.width)
        nn.init.normal_(self.conv.weight, std=math.sqrt(2 / 9))

    def between(self, tokens: Tensor, grid: tuple[int, int], layer: int) -> Tensor:
        if layer > 0:
            return tokens
        prefix, patches = tokens.tensor_split([self.geometry.prefix_tokens], 1)
        told = self.conv(patches.transpose(1, 2).unflatten(2, grid))  # (B,D,h,w)
        return torch.cat([prefix, patches + told.flatten(2).transpose(1, 2)], 1)
