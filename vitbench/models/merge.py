"""Merges patches halfway through a ViT: `model.hierarchy`."""

from __future__ import annotations

from torch import Tensor, nn

from vitbench.pe.base import PositionEncoding


class Merge(nn.Module):
    """Merges each 2x2 neighbouring tokens into one token of twice the width.

    They are concatenated, normalised and projected without bias, as in Swin's patch merging (Liu et al. 2021, arXiv
    2103.14030, section 3.1, and its code). `pe` is the encoding of the blocks that follow. It is a submodule of this
    one, so that it has the learning rate of the first of these blocks (`optim.layer_decay`).
    """

    def __init__(self, width: int, pe: PositionEncoding) -> None:
        super().__init__()
        self.pe = pe
        self.norm = nn.LayerNorm(4 * width, eps=1e-6)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def init_weights(self) -> None:
        nn.init.xavier_uniform_(self.reduction.weight)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Maps tokens (B,4N,D) to (B,N,2D); `grid` is the grid after the merging."""
        h, w = grid
        squares = tokens.unflatten(1, (h, 2, w, 2)).permute(0, 1, 3, 4, 2, 5)  # (B,h,w,2,2,D), column before row
        return self.reduction(self.norm(squares.flatten(3).flatten(1, 2)))
