"""A learned number per offset between query and key, added to the attention scores."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.pe.base import Geometry, PositionEncoding


class RelativeBias(PositionEncoding):
    """The relative position bias of Swin (Liu et al. 2021, arXiv 2103.14030, section 3.2, eq. 4).

    Every layer and head has its own table of (2h-1)(2w-1) offsets. It comes from T5 (arXiv 1910.10683), which has one
    dimension and common bins for distant offsets. Swin has no class token. Here each head has three more numbers for
    the pairs prefix to patch, patch to prefix and prefix to prefix, as in BEiT (Bao et al. 2022, arXiv 2106.08254).
    Tables are drawn with standard deviation 0.02, as in Swin. For another grid they are interpolated bicubically, as
    Swin does for another window, so an offset keeps its share of the image.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        h, w = geometry.grid
        self.table = nn.Parameter(torch.empty(geometry.depth, geometry.heads, 2 * h - 1, 2 * w - 1))
        nn.init.normal_(self.table, std=0.02)
        if geometry.prefix_tokens:
            self.prefix = nn.Parameter(torch.empty(geometry.depth, geometry.heads, 3))
            nn.init.normal_(self.prefix, std=0.02)

    def bias(self, grid: tuple[int, int], layer: int) -> Tensor:
        h, w = grid
        table = self.resized(grid, layer)  # (A,2h-1,2w-1); the middle is the offset (0, 0)
        # A query in row r has the offsets -r .. h-1-r to the keys' rows 0 .. h-1. This is a window of h offsets that
        # moves back by one with every row. So the bias of all pairs is the windows of the table in reverse order.
        windows = table.unfold(1, h, 1).unfold(2, w, 1).flip(1, 2)  # (A,h,w,h,w): queries, then keys
        patches = windows.reshape(-1, h * w, h * w)  # (A,N,N)
        prefix = self.geometry.prefix_tokens
        if not prefix:
            return patches
        to_patch, from_patch, among = self.prefix[layer, :, :, None, None].unbind(1)  # (A,1,1) each
        top = torch.cat([among.expand(-1, prefix, prefix), to_patch.expand(-1, prefix, h * w)], 2)
        below = torch.cat([from_patch.expand(-1, h * w, prefix), patches], 2)
        return torch.cat([top, below], 1)

    def resized(self, grid: tuple[int, int], layer: int) -> Tensor:
        """Returns a layer's table (A,2h-1,2w-1) for a grid. For the training grid it is the parameter itself."""
        if grid == self.geometry.grid:
            return self.table[layer]
        return _resized(self.table[layer].unsqueeze(0), grid).squeeze(0)

    def carried(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Interpolates a table of another grid to this one, as for images of another size."""
        table = tables.get("table", self.table)
        if table.ndim != 4 or table.shape == self.table.shape:
            return dict(tables)
        return {**tables, "table": _resized(table, self.geometry.grid)}


def _resized(tables: Tensor, grid: tuple[int, int]) -> Tensor:
    """Interpolates tables (L,A,2h-1,2w-1) of L layers and any grid to the offsets of this grid."""
    return F.interpolate(tables, size=(2 * grid[0] - 1, 2 * grid[1] - 1), mode="bicubic")
