"""The self-attention of a ViT's blocks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.models.window import Window
from vitbench.pe.base import PositionEncoding


class Attention(nn.Module):
    """Multi-head self-attention. It calls the hooks of a position encoding that act on queries, keys and scores.

    With a `window`, a query attends only to the keys in its neighbourhood.
    """

    def __init__(self, width: int, heads: int, layer: int, window: Window | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.layer = layer
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.window = window

    def init_weights(self) -> None:
        """Draws Xavier-uniform matrices; queries, keys and values each have their own."""
        for matrix in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(matrix)
        nn.init.xavier_uniform_(self.proj.weight)

    def forward(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        q, k, v, bias = self.inputs(tokens, pe, grid)
        return self.joined(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))

    def inputs(
        self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Returns queries, keys and values (B,A,N,E), and the bias of the scores.

        The bias has four dimensions that broadcast to (B,A,N,N), or is None.
        """
        # Three parts (B,N,D) were 7 % faster on a CPU than one permuted tensor.
        parts = self.qkv(tokens).chunk(3, -1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        q, k = pe.rotate(q, k, grid, self.layer)
        bias = pe.bias(grid, self.layer)
        if self.window is not None:
            bias = self.window(bias, grid)
        if bias is not None and bias.dim() == 3:
            bias = bias.unsqueeze(0)  # the fused kernel on a CPU takes only four dimensions
        return q, k, v, bias

    def joined(self, mixed: Tensor) -> Tensor:
        """Concatenates the outputs of the heads (B,A,N,E) and projects them, (B,N,D)."""
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def weights(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        """Returns the attention weights (B,A,N,N), a row per query. The kernel of `forward` does not return them."""
        q, k, _, bias = self.inputs(tokens, pe, grid)
        return weights_of(q, k, bias)


def weights_of(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Returns the attention weights (B,A,N,N) of queries and keys (B,A,N,E)."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    return (scores if bias is None else scores + bias).softmax(-1)
