"""What a position encoding is: four hooks, none of which does anything here, so that this class is `pe=none`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Geometry:
    """The transformer that an encoding is built for. Prefix tokens (class token and the like) precede the patches and
    have no place on the grid.
    """

    grid: tuple[int, int]  # rows and columns of patches at the training resolution
    width: int
    heads: int
    depth: int
    prefix_tokens: int

    @property
    def tokens(self) -> int:
        return self.prefix_tokens + self.grid[0] * self.grid[1]


class PositionEncoding(nn.Module):
    """No encoding: attention and mean pooling then see a bag of patches.

    The transformer calls each hook where its docstring says, with the `grid` of the images at hand, so that another
    resolution just works; each encoding says what it does with a grid it was not built for. Tokens are the prefix
    tokens, then the patches row by row. `layer` counts the blocks from 0. No parameter of an encoding is decayed.
    """

    # Whether what the encoding tells a token of its place follows from the image. Two places have no similarity of
    # their own then, so that a probe of the encoding alone does not apply.
    depends_on_image = False

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    @classmethod
    def acts_in_blocks(cls) -> bool:
        """Whether blocks meet the encoding, too, so that blocks of another grid need one of their own."""
        hooks = ("rotate", "bias", "between")
        return any(getattr(cls, hook) is not getattr(PositionEncoding, hook) for hook in hooks)

    def embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Takes the tokens once, after the patch embedding: (B,N,D) -> (B,N,D)."""
        return tokens

    def rotate(self, q: Tensor, k: Tensor, grid: tuple[int, int], layer: int) -> tuple[Tensor, Tensor]:
        """Takes queries and keys in every attention, (B,A,N,E) each."""
        return q, k

    def bias(self, grid: tuple[int, int], layer: int) -> Tensor | None:
        """Gives what every attention adds to its scores, (A,N,N), a row per query."""
        return None

    def between(self, tokens: Tensor, grid: tuple[int, int], layer: int) -> Tensor:
        """Takes the tokens after every block, the last one included: (B,N,D) -> (B,N,D)."""
        return tokens

    def carried(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Makes weights that were trained on any grid into weights for this one, once, before they are loaded.

        Tensors that cannot be of another grid of this encoding stay as they are, to be refused with the others.
        """
        return dict(tables)
