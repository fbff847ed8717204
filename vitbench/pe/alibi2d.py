"""A fixed penalty on distance, subtracted from the attention scores."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.pe.base import Geometry, PositionEncoding


class ALiBi2D(PositionEncoding):
    """ALiBi (Press et al. 2022, arXiv 2108.12409, section 3) in two dimensions.

    The score of a pair of patches falls by the slope of the head for each patch of distance. The distance is Euclidean,
    as in CROMA (Fuller et al. 2023, arXiv 2311.00566). Nothing is learned. Distances are in patches, so another grid
    continues the same penalties, which is the purpose of ALiBi. The penalty is symmetric, so it does not tell left from
    right. Prefix tokens have no penalty.
    """

    table: Tensor

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry)
        self.register_buffer("table", self.penalties(geometry.grid), persistent=False)

    def bias(self, grid: tuple[int, int], layer: int) -> Tensor:
        return self.table if grid == self.geometry.grid else self.penalties(grid).to(self.table)

    def penalties(self, grid: tuple[int, int]) -> Tensor:
        """Returns the bias of a grid, (A,N,N): minus slope times distance."""
        rows, columns = (torch.arange(side, dtype=torch.float64) for side in grid)
        y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))  # N
        distance = torch.hypot(y[:, None] - y, x[:, None] - x)  # (N,N)
        slope = torch.tensor(slopes(self.geometry.heads), dtype=torch.float64)[:, None, None]  # (A,1,1)
        prefix = self.geometry.prefix_tokens
        return F.pad(-slope * distance, (prefix, 0, prefix, 0)).to(torch.get_default_dtype())


def slopes(heads: int) -> list[float]:
    """Returns the slopes 2^(-8/A), 2^(-16/A) .. 2^-8 for A heads.

    If A is not a power of two, they are those of the next lower power, followed by every other slope of twice that
    power, as in the authors' code.
    """
    power = 2 ** math.floor(math.log2(heads))
    whole = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2 ** (-8 * i / (2 * power)) for i in range(1, 2 * power + 1, 2)]
    return whole + between[: heads - power]
