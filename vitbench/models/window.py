"""A window around each patch, beyond which its attention sees nothing: `model.window`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.pe.base import Geometry


class Window(nn.Module):
    """A query attends to the patches in a square of `size` x `size` around it, cut at the border of the grid.

    This is the neighbourhood of stand-alone self-attention (Ramachandran et al. 2019, arXiv 1906.05909, section 3.1).
    Neighbourhood attention (Hassani et al. 2023, arXiv 2204.07143) moves the square inside at the border, so that all
    queries have as many keys. Swin's windows (arXiv 2103.14030) are no neighbourhoods, because they tile the image.
    Prefix tokens see all tokens, and all see them. A window hides nothing, and this is full attention, where it reaches
    from corner to corner: size >= 2 side - 1 for the longer side of the grid.

    Hidden pairs get the score -inf beside the bias of the encoding, so all N x N scores are computed: memory and
    multiply-adds stay those of full attention. The mask of the training grid is a buffer, and any other is made when it
    is needed; one mask serves all blocks of a grid.
    """

    mask: Tensor

    def __init__(self, geometry: Geometry, size: int) -> None:
        super().__init__()
        self.size, self.grid, self.prefix_tokens = size, geometry.grid, geometry.prefix_tokens
        self.register_buffer("mask", self.mask_of(geometry.grid), persistent=False)

    def forward(self, bias: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """Adds the mask to a bias (A,N,N) of the scores; without one this is the mask (1,N,N)."""
        mask = self.mask if grid == self.grid else self.mask_of(grid).to(self.mask)
        return mask if bias is None else bias + mask

    def mask_of(self, grid: tuple[int, int]) -> Tensor:
        """The mask of a grid, (1,N,N), a row per query: 0 where it sees the key, and -inf elsewhere."""
        rows, columns = (torch.arange(side) for side in grid)
        reach = min(self.size // 2, max(grid))  # a number that a tensor can hold
        near_rows, near_columns = ((axis[:, None] - axis).abs() <= reach for axis in (rows, columns))
        seen = (near_rows[:, None, :, None] & near_columns[None, :, None, :]).flatten(2).flatten(0, 1)  # (N,N)
        mask = torch.zeros(seen.shape).masked_fill(~seen, -math.inf)
        return F.pad(mask, (self.prefix_tokens, 0, self.prefix_tokens, 0)).unsqueeze(0)
