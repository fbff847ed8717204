"""A learned vector for each position, which is added to the token: the encoding of the original ViT."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.pe.base import Geometry, PositionEncoding


class Learned(PositionEncoding):
    """A "1-D" table, which knows nothing about rows (Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.1, eq. 1).

    The class token has a position, too, as in the paper (eq. 1) and in timm; big_vision, by the same authors, gives it
    none. The table is drawn with standard deviation 0.02, as in the authors' code and timm. For another grid, the part
    of the patches is interpolated bicubically (the paper's section 3.2: "2D interpolation"), with anti-aliasing when it
    shrinks, as in timm's `resample_abs_pos_embed`.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.table = nn.Parameter(torch.empty(1, geometry.tokens, geometry.width))
        nn.init.normal_(self.table, std=0.02)

    def embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens + self.resized(grid)

    def resized(self, grid: tuple[int, int]) -> Tensor:
        """Returns the table (1,N,D) for a grid. For the training grid it is the parameter itself."""
        return self.table if grid == self.geometry.grid else self._resized(self.table, self.geometry.grid, grid)

    def carried(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Interpolates a table of another square grid to this one, as for images of another size."""
        table = tables.get("table", self.table)
        side = math.isqrt(max(0, table.shape[1] - self.geometry.prefix_tokens)) if table.ndim == 3 else 0
        fits = side**2 + self.geometry.prefix_tokens == table.shape[1] if side else False
        if not fits or table.shape == self.table.shape:
            return dict(tables)
        return {**tables, "table": self._resized(table, (side, side), self.geometry.grid)}

    def _resized(self, table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        prefix, patches = table.tensor_split([self.geometry.prefix_tokens], 1)
        patches = patches.unflatten(1, old).permute(0, 3, 1, 2)  # (1,D,h,w)
        patches = F.interpolate(patches, size=new, mode="bicubic", antialias=True)
        return torch.cat([prefix, patches.flatten(2).transpose(1, 2)], 1)  # (1,N,D)
