"""The base class of position encodings. Its four hooks do nothing, so the class itself is `pe=none`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Geometry:
    """The shape of the transformer that an encoding is built for.

    Prefix tokens, such as the class token, come before the patches and have no place on the grid.
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
    """No encoding: attention and mean pooling then treat the patches as a set.

    The transformer calls each hook as its docstring says, with the `grid` of the present images, so that other
    resolutions work. Each encoding documents what it does with a grid that it was not built for. Tokens are the prefix
    tokens, then the patches row by row. `layer` counts the blocks from 0. Parameters of an encoding have no weight
    decay.
    """

    # Whether the encoding of a token depends on the image. If so, the similarity of two positions is not defined
    # without an image, and probes of the encoding alone do not apply.
    depends_on_image = False

    def __init__(self, geometry: Geometry) -> None:
        super().__init__()
        self.geometry = geometry

    @classmethod
    def acts_in_blocks(cls) -> bool:
        """Returns whether the encoding acts within blocks, so that blocks with another grid need their own encoding."""
        hooks = ("rotate", "bias", "between")
        return any(getattr(cls, hook) is not getattr(PositionEncoding, hook) for hook in hooks)

    def embed(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Is called once, after the patch embedding, and changes the tokens: (B,N,D) -> (B,N,D)."""
        return tokens

    def rotate(self, q: Tensor, k: Tensor, grid: tuple[int, int], layer: int) -> tuple[Tensor, Tensor]:
        """Is called in every attention and changes queries and keys, (B,A,N,E) each."""
        return q, k

    def bias(self, grid: tuple[int, int], layer: int) -> Tensor | None:
        """Is called in every attention and returns a bias for its scores, (A,N,N), a row per query; None: no bias."""
        return None

    def between(self, tokens: Tensor, grid: tuple[int, int], layer: int) -> Tensor:
        """Is called after every block, the last one included, and changes the tokens: (B,N,D) -> (B,N,D)."""
        return tokens

    def carried(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Converts weights that were trained on another grid to this grid, before they are loaded.

        Tensors that cannot come from this encoding stay as they are; loading refuses them.
        """
        return dict(tables)
