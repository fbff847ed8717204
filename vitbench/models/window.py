"""Local attention: each patch attends only to a window around it (`model.window`)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.pe.base import Geometry


class Window(nn.Module):
    """A mask with which a query attends to the patches in a square of `size` x `size` around it.

    At the border of the grid, the square is cut off. This is the neighbourhood of stand-alone self-attention
    (Ramachandran et al. 2019, arXiv 1906.05909, section 3.1). Neighbourhood attention (Hassani et al. 2023, arXiv
    2204.07143) moves the square inside the border instead, so that all queries have the same number of keys. Swin's
    windows (arXiv 2103.14030) are not neighbourhoods, because they tile the image. Prefix tokens attend to all tokens,
    and all tokens attend to them. A window of size >= 2 side - 1, for the longer side of the grid, hides nothing: it is
    full attention.

    Hidden pairs get -inf added to their scores, so all N x N scores are computed: memory and multiply-adds are those of
    full attention. The mask of the training grid is a buffer, and other masks are made when they are needed. All blocks
    of a grid share one mask.
    """

    mask: Tensor

    def __init__(self, geometry: Geometry, size: int) -> None:
        super().__init__()
        self.size, self.grid, self.prefix_tokens = size, geometry.grid, geometry.prefix_tokens
        self.register_buffer("mask", self.mask_of(geometry.grid), persistent=False)

    def forward(self, bias: Tensor | None, grid: tuple[int, int]) -> Tensor:
        """Returns the mask (1,N,N), added to the bias (A,N,N) of the scores if there is one."""
        mask = self.mask if grid == self.grid else self.mask_of(grid).to(self.mask)
        return mask if bias is None else bias + mask

    def mask_of(self, grid: tuple[int, int]) -> Tensor:
        """Returns the mask of a grid, (1,N,N), a row per query: 0 for keys in the window, and -inf for others."""
        rows, columns = (torch.arange(side) for side in grid)
        reach = min(self.size // 2, max(grid))  # bounded, because a tensor cannot hold any integer
        near_rows, near_columns = ((axis[:, None] - axis).abs() <= reach for axis in (rows, columns))
        seen = (near_rows[:, None, :, None] & near_columns[None, :, None, :]).flatten(2).flatten(0, 1)  # (N,N)
        mask = torch.zeros(seen.shape).masked_fill(~seen, -math.inf)
        return F.pad(mask, (self.prefix_tokens, 0, self.prefix_tokens, 0)).unsqueeze(0)
