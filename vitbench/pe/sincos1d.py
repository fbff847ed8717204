"""Fixed sines and cosines of the index of a patch in raster order, which are added to the tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.errors import UserError
from vitbench.pe.base import Geometry, PositionEncoding


class SinCos1D(PositionEncoding):
    """The Transformer's encoding (Vaswani et al. 2017, arXiv 1706.03762, section 3.5).

    The patches are treated as a sentence that is read row by row, and p is the index of a patch:

        PE(p, 2i)     = sin(p / theta^(2i/D))
        PE(p, 2i + 1) = cos(p / theta^(2i/D))

    Vertical neighbours are one row length apart. For another grid the table is computed again, and this length changes.
    Nothing is added to prefix tokens.
    """

    table: Tensor

    def __init__(self, geometry: Geometry, *, theta: float = 10000.0) -> None:
        super().__init__(geometry)
        if geometry.width % 2:
            raise UserError(f"pe=sincos1d model.width={geometry.width}: the width must be even")
        if not theta > 0:
            raise UserError(f"pe.theta={theta}: must be greater than 0")
        self.theta = theta
        self.register_buffer("table", self.waves(geometry.grid), persistent=False)

    def embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens + (self.table if grid == self.geometry.grid else self.waves(grid).to(self.table))

    def waves(self, grid: tuple[int, int]) -> Tensor:
        """Returns the table of a grid, (N,D)."""
        place = torch.arange(grid[0] * grid[1], dtype=torch.float64)  # N
        exponent = torch.arange(0, self.geometry.width, 2, dtype=torch.float64) / self.geometry.width  # D/2
        angle = place[:, None] * self.theta**-exponent  # (N,D/2)
        waves = torch.stack([angle.sin(), angle.cos()], 2).flatten(1)  # (N,D), sine and cosine alternate
        return F.pad(waves, (0, 0, self.geometry.prefix_tokens, 0)).to(torch.get_default_dtype())
