"""Rotary encoding with angles that mix column and row by learned frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitbench.pe.base import Geometry, PositionEncoding
from vitbench.pe.rope import frequencies, places, turned


class RoPEMixed(PositionEncoding):
    """RoPE-Mixed of RoPE-ViT (Heo et al. 2024, arXiv 2403.13298, "mixed learnable frequency").

    It works like `rope`, but a pair is rotated by x u + y v, where x is the column and y the row, so a head can look
    along diagonals. Both frequencies u and v are learned for every layer, head and pair.

    They are initialised as in the authors' code (`init_random_2d_freqs`): each head of each layer draws an angle phi,
    uniform in [0, 2 pi), which rotates the axial frequencies w_i of `rope`. Half of the pairs have (u, v) = w_i (cos
    phi, sin phi), and the other half w_i (-sin phi, cos phi); phi = 0 gives `rope`. theta = 10 is their choice for this
    encoding. As there, frequencies do not decay and prefix tokens are not rotated. We differ in two points: pairs are
    those of `rope` and not neighbours, which the weights absorb, and all angles come from one draw.
    """

    places: Tensor

    def __init__(self, geometry: Geometry, *, theta: float = 10.0) -> None:
        super().__init__(geometry)
        w = frequencies("rope_mixed", geometry, theta)  # E/4
        phi = 2 * math.pi * torch.rand(geometry.depth, geometry.heads, 1, dtype=torch.float64)
        u = torch.cat([w * phi.cos(), -w * phi.sin()], 2)  # (L,A,E/2), with L layers
        v = torch.cat([w * phi.sin(), w * phi.cos()], 2)
        self.frequencies = nn.Parameter(torch.stack([u, v], 2).to(torch.get_default_dtype()))  # (L,A,2,E/2)
        self.register_buffer("places", self.places_on(geometry.grid), persistent=False)

    def rotate(self, q: Tensor, k: Tensor, grid: tuple[int, int], layer: int) -> tuple[Tensor, Tensor]:
        x, y = self.places if grid == self.geometry.grid else self.places_on(grid).to(self.places)
        u, v = self.frequencies[layer].unsqueeze(2).unbind(1)  # (A,1,E/2) each
        angle = x * u + y * v  # (A,N,E/2)
        cos, sin = angle.cos(), angle.sin()
        return turned(q, cos, sin), turned(k, cos, sin)

    def places_on(self, grid: tuple[int, int]) -> Tensor:
        """Returns column and row of every token, (2,N,1), in patches, so another grid continues the same angles."""
        return torch.stack(places(grid, self.geometry.prefix_tokens)).to(torch.get_default_dtype())
