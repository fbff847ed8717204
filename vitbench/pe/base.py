"""What a position encoding is: hooks, none of which does anything here, so that this class is `pe=none`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Geometry:
    """The transformer that an encoding is built for."""

    grid: tuple[int, int]  # rows and columns of patches at the training resolution
    width: int
    heads: int
    depth: int
    prefix_tokens: int  # class token and the like, which precede the patches and have no place on the grid

    @property
    def tokens(self) -> int:
        return self.prefix_tokens + self.grid[0] * self.grid[1]


class PositionEncoding(nn.Module):
    """No encoding: attention and mean pooling then see a bag of patches.

    `grid` comes again at call time, so that another resolution just works; each encoding says what it does with a
    grid it was not built for. Tokens are the prefix tokens, then the patches row by row.
    """

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    def embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Once, after the patch embedding: (B,N,D) -> (B,N,D)."""
        return tokens

    def rotate(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """In every attention: queries and keys, (B,A,N,E) each."""
        return q, k

    def carried(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Once, where weights trained before are put in: what they hold for this encoding, of whatever grid, for this one.

        Tensors that can't be of another grid of this encoding stay as they are, to be refused with the others.
        """
        return dict(tables)

    def bias(self, grid: tuple[int, int], layer: int) -> Tensor | None:
        """In every attention: what is added to the scores, (A,N,N), a row per query; `layer` counts from 0."""
        return None
