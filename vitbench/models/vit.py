"""The vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929).

We differ from the paper in four points. The position encoding is a choice of its own (`vitbench.pe`). The head
classifies the mean of the tokens, and there is no class token, as in the plain-ViT baseline (Beyer et al. 2022, arXiv
2205.01580); `pool=cls` restores it. GELU is exact, as in timm and DeiT, and not the tanh approximation of the JAX
original. There is no dropout, but drop path (Huang et al. 2016, arXiv 1603.09382). Parameters have the names of timm's
`VisionTransformer`, apart from two: `patch_embed.proj` is our `patch_embed`, and `pos_embed` is `pe.table`.

The rungs of the ladder from a ViT to a CNN are settings. Each is a layer in its own file, which names its source:
`stem` (stem.py), `window` (window.py), `conv` (block.py), `hierarchy` (merge.py) and `gate` (gate.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.errors import UserError, check_choice
from vitbench.menu import look_up
from vitbench.models.attention import Attention
from vitbench.models.block import MLP, Block
from vitbench.models.gate import Offsets
from vitbench.models.menu import SIZES
from vitbench.models.merge import Merge
from vitbench.models.refusals import nearest_divisor, refuse_patches, refuse_rungs
from vitbench.models.stem import ConvStem, lecun_normal_
from vitbench.models.window import Window
from vitbench.pe.base import Geometry, PositionEncoding
from vitbench.pe.menu import MENU as ENCODINGS

POOLS = ("mean", "cls")


class TwoHeads(nn.Linear):
    """DeiT's two heads, for the pooled feature and for the distillation token, (B,D) each -> (B,K).

    In training it returns the logits of both heads, and in evaluation their mean, as in DeiT's code.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.dist = nn.Linear(width, classes)

    def forward(self, pooled: Tensor, token: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        logits, taught = super().forward(pooled), self.dist(token)
        return (logits, taught) if self.training else (logits + taught) / 2


class ViT(nn.Module):
    """A vision transformer. It also takes images of other sizes than `image_size`.

    `size` gives width, depth and heads (`vitbench ls models`) unless they are set. `drop_path` is the rate of the last
    block; it rises linearly from 0 at the first block. `pool` is `mean` (no class token) or `cls`. `distill_token` adds
    DeiT's distillation token, after the class token if there is one, with its own head (Touvron et al. 2021, arXiv
    2012.12877). The model then returns the logits of both heads in training, and their mean in evaluation.

    Weights are initialised as in the authors' code and big_vision: matrices are Xavier-uniform (queries, keys and
    values separately), patches LeCun-normal, biases and the class token 0. The head is drawn with standard deviation
    0.02; theirs is 0, and then the other weights get no gradient in the first step. timm's default of 0.02 for every
    matrix suits a width of 768 (1/sqrt(768) = 0.036) but is small for our widths: after 300 steps on 5,000 images of
    CIFAR-10, a nano ViT then has a training loss of 1.83 instead of 1.71.

    With `hierarchy` the tokens are merged 2x2 after half of the blocks (the smaller half of an odd depth), and the
    width doubles. The number of heads stays the same, so the width of a head doubles; Swin keeps the width of a head.
    The later blocks have their own encoding for their grid, or none if the encoding only adds to the tokens before the
    first block.
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
        stem: str = "patch",
        window: int | None = None,
        conv: bool = False,
        hierarchy: bool = False,
        gate: bool = False,
    ) -> None:
        super().__init__()
        check_choice("model.size", size, SIZES)
        preset = SIZES[size]["vit"].options
        width = preset["width"] if width is None else width
        depth = preset["depth"] if depth is None else depth
        heads = preset["heads"] if heads is None else heads
        _check(image_size, patch_size, width, depth, heads, mlp_ratio, pool, drop_path)
        rungs = {"stem": stem, "window": window, "hierarchy": hierarchy, "gate": gate}
        refuse_rungs({**rungs, "patch_size": patch_size, "depth": depth, "pool": pool, "distill_token": distill_token})

        self.patch_size = patch_size
        self.pool = pool
        self.prefix_tokens = (pool == "cls") + distill_token
        options = dict(pe or {"name": "none"})
        encoding = look_up("pe", options.pop("name"), ENCODINGS)
        stages = _stages(image_size // patch_size, patch_size, width, heads, depth, self.prefix_tokens, hierarchy)
        last_width = stages[-1].width

        self.patch_embed: nn.Module = (
            nn.Conv2d(channels, width, patch_size, stride=patch_size)
            if stem == "patch"
            else ConvStem(channels, width, patch_size)
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if pool == "cls" else None
        self.dist_token = nn.Parameter(torch.empty(1, 1, width)) if distill_token else None
        self.pe = encoding(stages[0], **options)
        merged_pe = _encoding_of_blocks(encoding, stages[1], options) if hierarchy else None
        rates = iter(drop_path * layer / max(depth - 1, 1) for layer in range(depth))
        self.blocks = nn.ModuleList(
            block
            for number, stage in enumerate(stages)
            for block in _blocks(stage, merged_pe if number else None, mlp_ratio, rates, window, conv, gate)
        )
        self.norm = nn.LayerNorm(last_width, eps=1e-6)
        self.head = (TwoHeads if distill_token else nn.Linear)(last_width, num_classes)
        # Without these rungs, all layers but attention treat tokens one by one, so `objective=mae` can leave some out.
        self.needs_whole_grid = stem == "conv" or window is not None or conv or hierarchy or gate
        self.init_weights()

    def init_weights(self) -> None:
        for module in self.blocks.modules():
            if isinstance(module, Attention | MLP | Merge):
                module.init_weights()
        for module in self.patch_embed.modules():
            if isinstance(module, nn.Conv2d):
                lecun_normal_(module)
        nn.init.normal_(self.head.weight, std=0.02)
        if self.dist_token is not None and isinstance(self.head, TwoHeads):
            nn.init.normal_(self.dist_token, std=0.02)  # DeiT draws both with this standard deviation
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
        """Returns the input of the head, (B,D)."""
        return self.pooled(self.states(images))

    def states(self, images: Tensor) -> Tensor:
        """Returns the normalised tokens after the last block, (B,N,D)."""
        tokens, grid = self.embed(images)
        for layer, block in enumerate(self.blocks):
            tokens = block(tokens, *self.place_of(layer, grid))
        return self.norm(tokens)

    def place_of(self, layer: int, grid: tuple[int, int]) -> tuple[PositionEncoding, tuple[int, int]]:
        """Returns the encoding and the grid of a block's tokens. Layers count from 0; `grid` is that of the patches."""
        if self.merged_pe is None or layer < self.pe.geometry.depth:
            return self.pe, grid
        return self.merged_pe, (grid[0] // 2, grid[1] // 2)

    @property
    def merged_pe(self) -> PositionEncoding | None:
        """The encoding of the blocks after the merging, if there is one."""
        first_half = self.pe.geometry.depth
        if first_half == len(self.blocks):
            return None
        merge = self.blocks[first_half].merge
        assert isinstance(merge, Merge)
        return merge.pe

    def pooled(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0] if self.pool == "cls" else tokens[:, self.prefix_tokens :].mean(1)

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Returns the input of the first block: tokens (B,N,D) with their positions, and the grid (h, w) of patches."""
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise UserError(f"images of {height} x {width} px: must be multiples of model.patch_size={self.patch_size}")
        grid = (height // self.patch_size, width // self.patch_size)
        if self.merged_pe is not None and (grid[0] % 2 or grid[1] % 2):
            raise UserError(
                f"images of {height} x {width} px have {grid[0]} x {grid[1]} patches, and model.hierarchy=true merges "
                "them 2 x 2, so both numbers must be even"
            )
        patches = self.patch_embed(images)  # (B,D,h,w)
        tokens = patches.flatten(2).transpose(1, 2).contiguous()  # (B,N,D); this copy makes all blocks faster
        if self.prefix_tokens:
            prefix = [token for token in (self.cls_token, self.dist_token) if token is not None]
            tokens = torch.cat([*(token.expand(len(tokens), -1, -1) for token in prefix), tokens], 1)
        return self.pe.embed(tokens, grid), grid

    def attention(self, images: Tensor) -> list[Tensor]:
        """Returns the attention weights (B,A,N,N) of every block, prefix tokens included."""
        tokens, grid = self.embed(images)
        weights = []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            place = self.place_of(layer, grid)
            weights.append(block.weights(tokens, *place))
            tokens = block(tokens, *place)
        return weights

    @property
    def patch_sizes(self) -> list[int]:
        """The side in pixels of the part of the image that a token of each block stands for."""
        first_half = self.pe.geometry.depth
        return [self.patch_size if layer < first_half else 2 * self.patch_size for layer in range(len(self.blocks))]

    @property
    def taps(self) -> dict[str, nn.Module]:
        """The modules to observe in depth order; their outputs are a map (B,D,h,w), tokens (B,N,D), logits (B,K)."""
        blocks = {f"block{layer}": block for layer, block in enumerate(self.blocks, start=1)}
        taps: dict[str, nn.Module] = {"patch_embed": self.patch_embed, **blocks, "norm": self.norm, "head": self.head}
        return taps


def _stages(
    side: int, patch_size: int, width: int, heads: int, depth: int, prefix_tokens: int, hierarchy: bool
) -> list[Geometry]:
    """Returns the geometry of all blocks or, with a hierarchy, of the blocks before and after the merging."""
    if not hierarchy:
        return [Geometry((side, side), width, heads, depth, prefix_tokens)]
    if side % 2:
        raise UserError(
            f"data.image_size={side * patch_size} model.patch_size={patch_size}: an image has {side} x {side} patches, "
            "and model.hierarchy=true merges them 2 x 2; "
            f"data.image_size={(side + 1) * patch_size} works"
        )
    first, merged = (side, side), (side // 2, side // 2)
    return [
        Geometry(first, width, heads, depth // 2, prefix_tokens),
        Geometry(merged, 2 * width, heads, depth - depth // 2, prefix_tokens),
    ]


def _encoding_of_blocks(encoding: Any, geometry: Geometry, options: Mapping[str, Any]) -> PositionEncoding:
    """Makes the encoding of the blocks after the merging, whose tokens already have their positions added."""
    its: PositionEncoding = encoding(geometry, **options) if encoding.acts_in_blocks() else PositionEncoding(geometry)
    return its


def _blocks(
    stage: Geometry,
    merged_pe: PositionEncoding | None,
    mlp_ratio: float,
    rates: Iterator[float],
    window: int | None,
    conv: bool,
    gate: bool,
) -> Iterator[Block]:
    """Makes the blocks of one grid, which share a window and offsets. With `merged_pe`, the first block merges.

    `rates` gives the drop-path rate of one block after the other.
    """
    shared = {"window": None if window is None else Window(stage, window), "offsets": Offsets(stage) if gate else None}
    for layer in range(stage.depth):
        merge = Merge(stage.width // 2, merged_pe) if merged_pe is not None and layer == 0 else None
        sizes = (stage.width, stage.heads, int(mlp_ratio * stage.width))
        yield Block(*sizes, layer, next(rates), conv=conv, merge=merge, **shared)  # type: ignore[arg-type]


def _check(
    image_size: int, patch_size: int, width: int, depth: int, heads: int, mlp_ratio: float, pool: str, drop_path: float
) -> None:
    """Raises UserError, with the settings as they are typed, for settings that cannot make a network."""
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
    check_choice("model.pool", pool, POOLS)
    if not 0 <= drop_path < 1:
        raise UserError(f"model.drop_path={drop_path}: must be at least 0 and less than 1")
    refuse_patches(image_size, patch_size)
    if width % heads:
        raise UserError(
            f"model.width={width} model.heads={heads}: the width must be divisible by the number of heads; "
            f"model.heads={nearest_divisor(width, heads)} works"
        )
