"""The block of a ViT: attention, then an MLP, each beside the residual stream."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.machine.distributed import WORLD_SIZE, mine
from vitbench.models.attention import Attention
from vitbench.models.gate import GatedAttention, Offsets
from vitbench.models.merge import Merge
from vitbench.models.stem import lecun_normal_
from vitbench.models.window import Window
from vitbench.pe.base import PositionEncoding


class MLP(nn.Module):
    """Two linear layers with a GELU between them, the same for every token.

    With `conv`, a depthwise 3x3 convolution over the grid of patches and a second GELU follow the first GELU: expand,
    activate, convolve, activate, project, the order of LocalViT (Li et al. 2021, arXiv 2104.05707, and its code).
    The convolution is padded with zeros and begins LeCun-normal. Prefix tokens pass by it. LocalViT's class token
    passes by the whole MLP; ours goes through both linear layers. LocalViT also normalises by batches, and has the
    h-swish where we have the GELU of the network without convolution.
    """

    def __init__(self, width: int, hidden: int, conv: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if conv else None
        self.fc2 = nn.Linear(hidden, width)

    def init_weights(self) -> None:
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.xavier_uniform_(self.fc2.weight)
        if self.conv is not None:
            lecun_normal_(self.conv)

    def forward(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Takes tokens (B,N,D), of which the last are the patches of the grid; only the convolution asks for it."""
        hidden = F.gelu(self.fc1(tokens))
        if self.conv is not None:
            assert grid is not None
            prefix, patches = hidden.tensor_split([hidden.shape[1] - grid[0] * grid[1]], 1)
            mixed = self.conv(patches.transpose(1, 2).unflatten(2, grid))  # (B,hidden,h,w)
            hidden = torch.cat([prefix, F.gelu(mixed).flatten(2).transpose(1, 2)], 1)
        return self.fc2(hidden)


class DropPath(nn.Module):
    """A branch that is left out for some of the images in training (Huang et al. 2016, arXiv 1603.09382)."""

    drop_path: float

    def drop(self, branch: Tensor) -> Tensor:
        """Leaves the branch out for some of the images (in training), scaled so that the mean stays."""
        if not self.training or self.drop_path == 0:
            return branch
        # Every process draws for the global batch, so that their number does not matter.
        drawn = torch.rand(WORLD_SIZE * len(branch), 1, 1, device=branch.device)
        kept = mine(drawn) >= self.drop_path
        return branch * (kept / (1 - self.drop_path)).to(branch.dtype)


class Block(DropPath):
    """The block is pre-norm: it normalises the input of each branch, and never the residual stream itself.

    The position encoding's hook `between` comes last in here, so that whoever calls blocks calls it too. `window`,
    `conv`, `offsets` (of gated attention) and `merge` are rungs of the ladder, each in its layer's own file.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        layer: int,
        drop_path: float,
        *,
        window: Window | None = None,
        conv: bool = False,
        offsets: Offsets | None = None,
        merge: Merge | None = None,
    ) -> None:
        super().__init__()
        self.merge = merge
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = (
            Attention(width, heads, layer, window)
            if offsets is None
            else GatedAttention(width, heads, layer, offsets, window)
        )
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, hidden, conv)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        """Gives the grid's tokens (B,N,D), of as many or, where it merges them first, of (B,4N,D/2)."""
        tokens = self.merged(tokens, grid)
        tokens = tokens + self.drop(self.attn(self.norm1(tokens), pe, grid))
        tokens = tokens + self.drop(self.mlp(self.norm2(tokens), grid))
        return pe.between(tokens, grid, self.attn.layer)

    def weights(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        """Gives the attention weights (B,A,N,N) of what `forward` takes."""
        return self.attn.weights(self.norm1(self.merged(tokens, grid)), pe, grid)

    def merged(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens if self.merge is None else self.merge(tokens, grid)
