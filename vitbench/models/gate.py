"""Attention that starts like a convolution and can learn to attend by content: `model.gate`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vitbench.models.attention import Attention, weights_of
from vitbench.models.window import Window
from vitbench.pe.base import Geometry, PositionEncoding


class Offsets(nn.Module):
    """The offset from each query to each key, (N,N,3): columns, rows, and the squared distance, in patches.

    The table of the training grid is a buffer, which all blocks of a grid share. Other tables are made when needed.
    """

    table: Tensor

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.grid = geometry.grid
        self.register_buffer("table", self.table_of(geometry.grid), persistent=False)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        return self.table if grid == self.grid else self.table_of(grid).to(self.table)

    def table_of(self, grid: tuple[int, int]) -> Tensor:
        rows, columns = (torch.arange(side, dtype=torch.get_default_dtype()) for side in grid)
        y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))
        dx, dy = (axis - axis[:, None] for axis in (x, y))  # (N,N), a row per query
        return torch.stack([dx, dy, dx.square() + dy.square()], 2)


class GatedAttention(Attention):
    """Gated positional self-attention (GPSA) of ConViT (d'Ascoli et al. 2021, arXiv 2103.10697):

        A = (1 - sigmoid(g)) softmax(q k / sqrt(E)) + sigmoid(g) softmax(v r)

    Each head has a gate g and three weights v; r is the offset of a pair (`Offsets`). They are initialised as a
    convolution (after Cordonnier et al. 2020, arXiv 1911.03584, with ConViT's locality strength of 1): the positional
    score of a head is minus the squared distance to the head's own offset, the values are not mixed (their matrix is
    the identity), and g = 1, so 73 % of the attention depends on position. The offsets of the A heads form a square of
    ceil(sqrt(A)) a side, one patch apart, centred on the query (for four heads, 2 x 2 at half a patch along each axis).
    If A is not a square number, the A offsets nearest to the centre are used. The authors' code draws the further heads
    at random.

    All blocks are gated. ConViT leaves the last two of its twelve blocks ungated, and the class token takes part only
    in these. A prefix token has no position, so prefix tokens are refused here. A position encoding acts only on the
    scores of the content, and a window hides pairs from both softmaxes. As in ConViT, gates do not decay and the
    weights v do.

    No fused kernel computes this, so the N x N weights are kept for the gradient. `build.cost` counts only half of the
    positional scores (3 A N^2, which are computed once per batch); the other half is 0.7 % of a nano network at 32 px.
    """

    def __init__(self, width: int, heads: int, layer: int, offsets: Offsets, window: Window | None = None) -> None:
        super().__init__(width, heads, layer, window)
        self.offsets = offsets
        self.positions = nn.Linear(3, heads, bias=False)  # a bias would not change the softmax
        self.gate = nn.Parameter(torch.ones(heads))

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.eye_(self.qkv.weight.chunk(3)[2])
        aims = [[2 * x, 2 * y, -1.0] for x, y in offsets_of_heads(self.heads)]
        with torch.no_grad():
            self.positions.weight.copy_(torch.tensor(aims))
        nn.init.ones_(self.gate)

    def forward(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        q, k, v, bias = self.inputs(tokens, pe, grid)
        return self.joined(self.gated(weights_of(q, k, bias), grid) @ v)

    def weights(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        return self.gated(super().weights(tokens, pe, grid), grid)

    def gated(self, content: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mixes attention by content (B,A,N,N) with attention by position."""
        scores = self.positions(self.offsets(grid)).permute(2, 0, 1)  # (A,N,N)
        if self.window is not None:
            scores = self.window(scores, grid)
        share = self.shares()[:, None, None]
        return (1 - share) * content + share * scores.softmax(-1)

    def shares(self) -> Tensor:
        """Returns the share of each head's attention that depends on position, (A,)."""
        return self.gate.sigmoid()


def offsets_of_heads(heads: int) -> list[tuple[float, float]]:
    """Returns the initial offset (x, y) of each head in patches, in the order of the authors' code, rows first."""
    side = math.ceil(math.sqrt(heads))
    square = [(x - (side - 1) / 2, y - (side - 1) / 2) for x in range(side) for y in range(side)]
    nearest = sorted(square, key=lambda offset: math.hypot(*offset))[:heads]
    return [offset for offset in square if offset in nearest]
