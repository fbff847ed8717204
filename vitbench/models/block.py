"""The block of a ViT: attention and an MLP, each on a residual branch."""

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

    With `conv`, a depthwise 3x3 convolution over the grid of patches and a second GELU follow the first GELU. The order
    is that of LocalViT (Li et al. 2021, arXiv 2104.05707, and its code): expand, activate, convolve, activate, project.
    The convolution is padded with zeros and initialised LeCun-normal. Prefix tokens skip it. We differ from LocalViT in
    three points: its class token skips the whole MLP, and ours goes through both linear layers; it has batch norm; and
    it has h-swish where we keep GELU.
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
        """Takes tokens (B,N,D), of which the last are the patches of the grid. Only the convolution needs the grid."""
        hidden = F.gelu(self.fc1(tokens))
        if self.conv is not None:
            assert grid is not None
            prefix, patches = hidden.tensor_split([hidden.shape[1] - grid[0] * grid[1]], 1)
            mixed = self.conv(patches.transpose(1, 2).unflatten(2, grid))  # (B,hidden,h,w)
            hidden = torch.cat([prefix, F.gelu(mixed).flatten(2).transpose(1, 2)], 1)
        return self.fc2(hidden)


class DropPath(nn.Module):
    """A module whose branches are skipped for random images in training (Huang et al. 2016, arXiv 1603.09382)."""

    drop_path: float

    def drop(self, branch: Tensor) -> Tensor:
        """Sets a branch (B, ...) to 0 for random images in training, and scales it so that its expected value stays."""
        if not self.training or self.drop_path == 0:
            return branch
        # Each process draws for the global batch, so the result does not depend on the number of processes.
        drawn = torch.rand(WORLD_SIZE * len(branch), 1, 1, device=branch.device)
        kept = mine(drawn) >= self.drop_path
        return branch * (kept / (1 - self.drop_path)).to(branch.dtype)


class Block(DropPath):
    """A pre-norm block: it normalises the input of each branch, and never the residual stream itself.

    The position encoding's hook `between` is called at the end of the block, so that everything that calls blocks also
    calls it. `window`, `conv`, `offsets` (of gated attention) and `merge` are rungs of the ladder; each has its own
    file.
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
        """Returns tokens (B,N,D) from tokens (B,N,D), or from (B,4N,D/2) if the block merges them first."""
        tokens = self.merged(tokens, grid)
        tokens = tokens + self.drop(self.attn(self.norm1(tokens), pe, grid))
        tokens = tokens + self.drop(self.mlp(self.norm2(tokens), grid))
        return pe.between(tokens, grid, self.attn.layer)

    def weights(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        """Returns the attention weights (B,A,N,N) for the arguments of `forward`."""
        return self.attn.weights(self.norm1(self.merged(tokens, grid)), pe, grid)

    def merged(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens if self.merge is None else self.merge(tokens, grid)
