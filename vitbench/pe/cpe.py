"""A depthwise convolution over the grid of tokens: what a token is told of its place follows from its neighbours."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitbench.pe.base import Geometry, PositionEncoding


class CPE(PositionEncoding):
    """Conditional position encodings (Chu et al. 2021, arXiv 2102.10882, section 3): after the first block, which is
    position 0 of the paper's generator (PEG), tokens + convolution(tokens).

    The convolution is depthwise, 3x3, and padded with zeros. The padding is what tells a token where it is: away from
    the border, patches that move together change nothing but their place. Any grid has such a convolution, so another
    resolution just works. Prefix tokens pass unchanged.

    Weights begin with deviation sqrt(2/9) and biases at 0 (as all biases of the ViT), and neither is decayed, as in the
    authors' code (Twins, `CPVTV2`).
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
