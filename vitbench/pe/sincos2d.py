"""Fixed sines and cosines of column and row, which are added to the tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.errors import UserError
from vitbench.pe.base import Geometry, PositionEncoding


class SinCos2D(PositionEncoding):
    """The encoding of the plain-ViT baseline (Beyer et al. 2022, arXiv 2205.01580), after MoCo v3 (arXiv 2104.02057).

    The four quarters of the width hold sin(x w_i), cos(x w_i), sin(y w_i) and cos(y w_i), where x is the column, y the
    row, and w_i = theta^(-i / (D/4 - 1)) for i = 0 .. D/4 - 1. So the lowest frequency is exactly 1/theta, as in the
    baseline's code (big_vision, `posemb_sincos_2d`); the code of MoCo v3 and timm divides by D/4. For another grid the
    table is computed again in the same unit, a patch. Nothing is added to prefix tokens.
    """

    table: Tensor

    def __init__(self, geometry: Geometry, *, theta: float = 10000.0) -> None:
        super().__init__(geometry)
        if geometry.width % 4 or geometry.width < 8:
            raise UserError(f"pe=sincos2d model.width={geometry.width}: the width must be a multiple of 4, at least 8")
        if not theta > 0:
            raise UserError(f"pe.theta={theta}: must be greater than 0")
        self.theta = theta
        self.register_buffer("table", self.waves(geometry.grid), persistent=False)

    def embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens + (self.table if grid == self.geometry.grid else self.waves(grid).to(self.table))

    def waves(self, grid: tuple[int, int]) -> Tensor:
        """Returns the table of a grid, (N,D)."""
        rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid)
        y, x = (axis.flatten()[:, None] for axis in torch.meshgrid(rows, columns, indexing="ij"))  # (N,1)
        quarter = self.geometry.width // 4
        frequency = self.theta ** -(torch.arange(quarter, dtype=torch.float64) / (quarter - 1))  # D/4
        x, y = x * frequency, y * frequency  # (N,D/4)
        waves = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], 1)  # (N,D)
        return F.pad(waves, (0, 0, self.geometry.prefix_tokens, 0)).to(torch.get_default_dtype())
