"""The vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929), in one read.

Where we differ from the paper: the position encoding is chosen apart (`vitbench.pe`); the mean of the tokens is
classified unless `pool=cls`, as in the plain-ViT baseline (Beyer et al. 2022, arXiv 2205.01580), which has no class
token then; GELU is the exact one (timm's and DeiT's; the JAX original's is the tanh approximation); no dropout, but
drop path (Huang et al. 2016, arXiv 1603.09382). Parameters are called as in timm's `VisionTransformer`, except for
the two that are modules there and here: `patch_embed.proj` is our `patch_embed`, `pos_embed` is `pe.table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.errors import UserError, did_you_mean
from vitbench.machine.distributed import WORLD_SIZE, mine
from vitbench.menu import look_up
from vitbench.models.menu import SIZES
from vitbench.pe.base import Geometry, PositionEncoding
from vitbench.pe.menu import MENU as ENCODINGS

POOLS = ("mean", "cls")


class Attention(nn.Module):
    """Multi-head self-attention calls the two hooks of a position encoding that act on queries, keys and scores."""

    def __init__(self, width: int, heads: int, layer: int) -> None:
        super().__init__()
        self.heads = heads
        self.layer = layer
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        q, k, v, bias = self.inputs(tokens, pe, grid)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B,A,N,E)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (B,N,D)

    def inputs(
        self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Gives queries, keys and values (B,A,N,E), and what is added to the scores, (1,A,N,N), (B,A,N,N) or None."""
        # Three parts (B,N,D) were 7 % faster on a CPU than one permuted tensor of all.
        parts = self.qkv(tokens).chunk(3, -1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        q, k = pe.rotate(q, k, grid, self.layer)
        bias = pe.bias(grid, self.layer)
        if bias is not None and bias.dim() == 3:
            bias = bias.unsqueeze(0)  # The fused kernel on CPU takes four dimensions only.
        return q, k, v, bias

    def weights(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        """Gives the attention weights (B,A,N,N), a row per query, which the fused kernel of `forward` never shows."""
        q, k, _, bias = self.inputs(tokens, pe, grid)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return (scores if bias is None else scores + bias).softmax(-1)


class MLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """The block is pre-norm: it normalises the input of each branch, and never the residual stream itself.

    The position encoding's hook `between` comes last in here, so that whoever calls blocks calls it too.
    """

    def __init__(self, width: int, heads: int, hidden: int, layer: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, layer)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, hidden)
        self.drop_path = drop_path

    def forward(self, tokens: Tensor, pe: PositionEncoding, grid: tuple[int, int]) -> Tensor:
        tokens = tokens + self.drop(self.attn(self.norm1(tokens), pe, grid))
        tokens = tokens + self.drop(self.mlp(self.norm2(tokens)))
        return pe.between(tokens, grid, self.attn.layer)

    def drop(self, branch: Tensor) -> Tensor:
        """Leaves the branch out for some of the images (in training), scaled so that the mean stays."""
        if not self.training or self.drop_path == 0:
            return branch
        # Every process draws for the global batch, so that their number does not matter.
        drawn = torch.rand(WORLD_SIZE * len(branch), 1, 1, device=branch.device)
        kept = mine(drawn) >= self.drop_path
        return branch * (kept / (1 - self.drop_path)).to(branch.dtype)


class TwoHeads(nn.Linear):
    """DeiT's heads make logits of the pooled feature and, by a layer of its own, of the distillation token: (B,D) each
    -> (B,K). Both leave in training, and their mean in evaluation, as in DeiT's code.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.dist = nn.Linear(width, classes)

    def forward(self, pooled: Tensor, token: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        logits, taught = super().forward(pooled), self.dist(token)
        return (logits, taught) if self.training else (logits + taught) / 2


class ViT(nn.Module):
    """A vision transformer; images of other sizes than `image_size` may come at call time.

    `size` gives width, depth and heads (`vitbench ls models`) where they are not set. `drop_path` is the rate of the
    last block, from 0 at the first in equal steps. `pool` is `mean` (no class token) or `cls`. `distill_token` adds
    DeiT's distillation token, after the class token if there is one, with a head of its own (Touvron et al. 2021, arXiv
    2012.12877): the model then gives both heads' logits in training, and their mean in evaluation.

    Weights begin as in the authors' code and big_vision: Xavier-uniform matrices (queries, keys and values each for
    themselves), LeCun-normal patches, biases and class token 0. The head is drawn with deviation 0.02 where theirs is
    0, so that every weight learns from the first step. timm's default, 0.02 for every matrix, suits a width of 768
    (1/sqrt(768) = 0.036) but is small for ours: 300 steps of a nano ViT on 5,000 images of CIFAR-10 then end at a
    training loss of 1.83 in place of 1.71.
    """

    channels_last = False

    def __init__(
        self,
        image_size: int,
        channels: int,
        num_classes: int,
        pe: Mapping[str, Any] | None,
        *,
        size: str = "nano",
        patch_size: int = 4,
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        mlp_ratio: float = 4.0,
        pool: str = "mean",
        drop_path: float = 0.0,
        distill_token: bool = False,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise UserError(f"model.size={size}: {did_you_mean(size, SIZES)}")
        preset = SIZES[size]["vit"].options
        width = preset["width"] if width is None else width
        depth = preset["depth"] if depth is None else depth
        heads = preset["heads"] if heads is None else heads
        _check(image_size, patch_size, width, depth, heads, mlp_ratio, pool, drop_path)

        side = image_size // patch_size
        self.patch_size = patch_size
        self.pool = pool
        self.prefix_tokens = (pool == "cls") + distill_token
        options = dict(pe or {"name": "none"})
        encoding = look_up("pe", options.pop("name"), ENCODINGS)

        self.patch_embed = nn.Conv2d(channels, width, patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if pool == "cls" else None
        self.dist_token = nn.Parameter(torch.empty(1, 1, width)) if distill_token else None
        self.pe = encoding(Geometry((side, side), width, heads, depth, self.prefix_tokens), **options)
        rates = [drop_path * layer / max(depth - 1, 1) for layer in range(depth)]
        self.blocks = nn.ModuleList(
            Block(width, heads, int(mlp_ratio * width), layer, rate) for layer, rate in enumerate(rates)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = (TwoHeads if distill_token else nn.Linear)(width, num_classes)
        self.init_weights()

    def init_weights(self) -> None:
        for module in self.blocks.modules():
            if isinstance(module, Attention):
                for matrix in module.qkv.weight.chunk(3):
                    nn.init.xavier_uniform_(matrix)
                nn.init.xavier_uniform_(module.proj.weight)
            elif isinstance(module, MLP):
                nn.init.xavier_uniform_(module.fc1.weight)
                nn.init.xavier_uniform_(module.fc2.weight)
        nn.init.normal_(self.patch_embed.weight, std=self.patch_embed.weight[0].numel() ** -0.5)
        nn.init.normal_(self.head.weight, std=0.02)
        if self.dist_token is not None and isinstance(self.head, TwoHeads):
            nn.init.normal_(self.dist_token, std=0.02)  # DeiT draws both with this deviation.
            nn.init.normal_(self.head.dist.weight, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        tokens = self.states(images)  # (B,N,D)
        token = () if self.dist_token is None else (tokens[:, self.prefix_tokens - 1],)
        logits: Tensor | tuple[Tensor, Tensor] = self.head(self.pooled(tokens), *token)  # (B,K)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Gives what the head takes, (B,D)."""
        return self.pooled(self.states(images))

    def states(self, images: Tensor) -> Tensor:
        """Gives the tokens after the last block, normalised, (B,N,D)."""
        tokens, grid = self.embed(images)
        for block in self.blocks:
            tokens = block(tokens, self.pe, grid)
        return self.norm(tokens)

    def pooled(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self.pool == "cls" else tokens[:, self.prefix_tokens :].mean(1)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Gives what enters the first block: tokens (B,N,D) with their positions, and the grid (h, w) of patches."""
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise UserError(
                f"images of {height} x {width} px are no whole number of patches of model.patch_size={self.patch_size}"
            )
        patches = self.patch_embed(images)  # (B,D,h,w)
        tokens = patches.flatten(2).transpose(1, 2).contiguous()  # (B,N,D); one copy makes all blocks faster
        if self.prefix_tokens:
            prefix = [token for token in (self.cls_token, self.dist_token) if token is not None]
            tokens = torch.cat([*(token.expand(len(tokens), -1, -1) for token in prefix), tokens], 1)
        grid = (height // self.patch_size, width // self.patch_size)
        return self.pe.embed(tokens, grid), grid

    def attention(self, images: Tensor) -> list[Tensor]:
        """Gives the attention weights (B,A,N,N) of every block, prefix tokens included."""
        tokens, grid = self.embed(images)
        weights = []
        for block in self.blocks:
            assert isinstance(block, Block)
            weights.append(block.attn.weights(block.norm1(tokens), self.pe, grid))
            tokens = block(tokens, self.pe, grid)
        return weights

    @property
    def taps(self) -> dict[str, nn.Module]:
        """Says where to look, in depth order: the outputs are a map (B,D,h,w), tokens (B,N,D), logits (B,K)."""
        blocks = {f"block{layer}": block for layer, block in enumerate(self.blocks, start=1)}
        return {"patch_embed": self.patch_embed, **blocks, "norm": self.norm, "head": self.head}


def _check(
    image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_ratio: float, pool: str, drop_path: float
) -> None:
    """Refuses settings that make no network, in the words of the command line."""
    for setting, value in {
        "data.image_size": image_size,
        "model.patch_size": patch_size,
        "model.width": width,
        "model.depth": depth,
        "model.heads": heads,
        "model.mlp_ratio": mlp_ratio,
    }.items():
        if not value > 0:
            raise UserError(f"{setting}={value}: must be greater than 0")
    if pool not in POOLS:
        raise UserError(f"model.pool={pool}: {did_you_mean(pool, POOLS)}")
    if not 0 <= drop_path < 1:
        raise UserError(f"model.drop_path={drop_path}: must be at least 0 and less than 1")
    if image_size % patch_size:
        below = image_size - image_size % patch_size
        larger = below + patch_size
        sizes = f"{below} or {larger}" if below else f"{larger}"
        raise UserError(
            f"data.image_size={image_size} model.patch_size={patch_size}: an image must be a whole number of patches; "
            f"data.image_size={sizes} works, or model.patch_size={_nearest_divisor(image_size, patch_size)}"
        )
    if width % heads:
        raise UserError(
            f"model.width={width} model.heads={heads}: the width must be divisible by the number of heads; "
            f"model.heads={_nearest_divisor(width, heads)} works"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    divisors = (d for d in range(1, number + 1) if number % d == 0)
    return min(divisors, key=lambda d: abs(d - wanted))
