"""Rotary encoding: queries and keys are rotated by angles that grow with their place, so scores depend on offsets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.errors import UserError
from vitbench.pe.base import Geometry, PositionEncoding


class RoPE(PositionEncoding):
    """The axial rotation of RoPE-ViT (Heo et al. 2024, arXiv 2403.13298, `compute_axial_cis`).

    It extends RoFormer (Su et al. 2021, arXiv 2104.09864, section 3.2) to two dimensions. EVA-02 (arXiv 2303.11331) and
    DINOv3 (arXiv 2508.10104) have it, too. The E numbers of a head are E/2 pairs; half of the pairs are rotated by the
    column x, and half by the row y:

        [a_0 .. a_(E/2-1) | b_0 .. b_(E/2-1)]     pair i is (a_i, b_i), rotated by
        [ x w_0 .. x w_(E/4-1)  y w_0 .. y w_(E/4-1) ]     w_i = theta^(-i / (E/4))

    theta = 100 is RoPE-ViT's and DINOv3's choice for images (RoFormer's 10,000 is for long texts). RoPE-ViT pairs
    neighbours (2i, 2i+1) instead, which is a fixed permutation of a head that the weights absorb. Places are counted in
    patches, as in RoPE-ViT, so another grid continues the same angles; DINOv3 scales the image to [-1, 1]. Prefix
    tokens and values are not rotated.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, geometry: Geometry, *, theta: float = 100.0) -> None:
        super().__init__(geometry)
        self.theta = theta
        cos, sin = self.turns(geometry.grid)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def rotate(self, q: Tensor, k: Tensor, grid: tuple[int, int], layer: int) -> tuple[Tensor, Tensor]:
        cos, sin = self.cos, self.sin
        if grid != self.geometry.grid:
            cos, sin = (table.to(self.cos) for table in self.turns(grid))
        return turned(q, cos, sin), turned(k, cos, sin)

    def turns(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns cosine and sine (N,E/2) of every token's angles."""
        x, y = places(grid, self.geometry.prefix_tokens)
        w = frequencies("rope", self.geometry, self.theta)  # E/4
        angle = torch.cat([x * w, y * w], 1)  # (N,E/2)
        return angle.cos().to(torch.get_default_dtype()), angle.sin().to(torch.get_default_dtype())


def frequencies(name: str, geometry: Geometry, theta: float) -> Tensor:
    """Returns the frequencies w_i of one axis, (E/4), in float64. UserError if the width of a head does not fit."""
    head = geometry.width // geometry.heads
    if head % 4:
        raise UserError(
            f"pe={name} model.width={geometry.width} model.heads={geometry.heads}: the width of a head, "
            f"{head}, must be a multiple of 4"
        )
    if not theta > 0:
        raise UserError(f"pe.theta={theta}: must be greater than 0")
    return theta ** -(torch.arange(head // 4, dtype=torch.float64) / (head // 4))


def places(grid: tuple[int, int], prefix_tokens: int) -> tuple[Tensor, Tensor]:
    """Returns column x and row y of every token, (N,1) each, in float64. Prefix tokens are at 0, without rotation."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid)
    y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))
    return F.pad(x, (prefix_tokens, 0))[:, None], F.pad(y, (prefix_tokens, 0))[:, None]


def turned(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs of vectors (B,A,N,E) by angles with these cosines and sines, (N,E/2) or (A,N,E/2)."""
    a, b = vectors.chunk(2, -1)  # (B,A,N,E/2) each
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(vectors.dtype)  # back to bfloat16 under autocast
