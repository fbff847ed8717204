"""Masked autoencoders: learns without labels by reconstructing masked patches. For vision transformers only."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.models.block import Block
from vitbench.models.vit import ViT
from vitbench.objectives.base import Objective
from vitbench.pe.base import Geometry, PositionEncoding
from vitbench.pe.sincos2d import SinCos2D


class MAE(Objective):
    """The masked autoencoder of He et al. 2022 (arXiv 2111.06377, section 3).

    A random share `mask` of each image's patches is dropped. The encoder, our ViT, sees only the visible patches. A
    small decoder (`width`, `depth`) takes their states and a mask token at each masked place, and predicts the pixels
    of the masked patches. The loss is the mean squared error over masked patches, whose pixels are normalised by the
    mean and the standard deviation of the patch.

    If `width` is None, the decoder has half the width of the model (the paper: 512 for 1,024). By default it has one
    block, which is as good for fine-tuning as more blocks (the paper's table 1a; its default is 8). The decoder's
    positions are encoded by fixed sines and cosines, as in the paper. The encoder uses the encoding of the run, for
    visible patches only (see `Visible`).
    """

    def __init__(self, model: nn.Module, *, mask: float = 0.75, width: int | None = None, depth: int = 1) -> None:
        super().__init__()
        assert isinstance(model, ViT)
        if model.needs_whole_grid:
            raise UserError(
                "objective=mae: shows the network only some of the patches, but a layer of it needs the whole grid"
            )
        assert isinstance(model.patch_embed, nn.Conv2d)
        geometry = model.pe.geometry
        patches = geometry.grid[0] * geometry.grid[1]
        self.prefix, self.patches, self.seen = geometry.prefix_tokens, patches, int(patches * (1 - mask))
        if not 0 < self.seen < patches:
            raise UserError(
                f"objective.mask={mask}: leaves {self.seen} of an image's {patches} patches visible; at least one must "
                "be visible and one masked"
            )
        unit = math.lcm(4, geometry.heads)  # the encoding needs a multiple of 4, and attention one of the heads
        width = max(8, unit * math.ceil(geometry.width / 2 / unit)) if width is None else width
        if width % unit or width < 8:
            raise UserError(f"objective.width={width}: must be a multiple of {unit}, at least 8")
        self.patch_size = model.patch_size
        self.enter = nn.Linear(geometry.width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        inner = Geometry(geometry.grid, width, geometry.heads, depth, self.prefix)
        self.places, self.unplaced = SinCos2D(inner), PositionEncoding(inner)
        self.blocks = nn.ModuleList(Block(width, geometry.heads, 4 * width, layer, 0.0) for layer in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.paint = nn.Linear(width, model.patch_embed.weight[0].numel())
        nn.init.normal_(self.mask_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def views(self, images: Tensor, labels: Tensor, augment: Augment, normalise: Normalise) -> tuple[Tensor, ...]:
        """Returns images (B,C,H,W) and a random order of each image's patches (B,h w); the last ones are masked."""
        views = normalise(augment.pixels(images))
        return views, torch.rand(len(images), self.patches, device=images.device).argsort(1)

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        images, order = views
        tokens, grid = model.embed(images)  # (B,N,D), with positions already added
        B, N, _ = tokens.shape
        order = order + self.prefix
        prefix = torch.arange(self.prefix, device=images.device).expand(B, -1)
        seen = torch.cat([prefix, order[:, : self.seen]], 1)  # (B,n), indices of the N tokens
        states = encode(model, tokens, grid, seen)  # (B,n,D)
        errors = (self.painted(states, seen, N, grid) - self.targets(images)).square().mean(2)  # (B,N), without prefix
        hidden = torch.ones_like(errors).scatter(1, order[:, : self.seen] - self.prefix, 0.0)
        return (errors * hidden).sum() / hidden.sum()

    def painted(self, states: Tensor, seen: Tensor, N: int, grid: tuple[int, int]) -> Tensor:
        """Predicts the normalised pixels of every patch, (B,N,P P C), in float32."""
        states = self.enter(states)
        masked = self.mask_token.to(states.dtype).expand(len(states), N, -1)
        tokens = masked.scatter(1, _token_index(seen, states), states)
        tokens = self.places.embed(tokens, grid)
        for block in self.blocks:
            tokens = block(tokens, self.unplaced, grid)
        return self.paint(self.norm(tokens))[:, self.prefix :].float()

    def targets(self, images: Tensor) -> Tensor:
        """Returns the pixels of every patch with mean 0 and standard deviation 1, (B,N,P P C)."""
        pixels = F.pixel_unshuffle(images.float(), self.patch_size).flatten(2).transpose(1, 2)
        variance, mean = torch.var_mean(pixels, 2, keepdim=True)
        return (pixels - mean) / (variance + 1e-6).sqrt()


def encode(model: ViT, tokens: Tensor, grid: tuple[int, int], seen: Tensor) -> Tensor:
    """Encodes the tokens with indices `seen` (B,n), which attend only to each other; returns (B,n,D)."""
    encoding = Visible(model.pe, seen, tokens.shape[1])
    tokens = tokens.gather(1, _token_index(seen, tokens))
    for block in model.blocks:
        tokens = block(tokens, encoding, grid)
    return model.norm(tokens)


class Visible(PositionEncoding):
    """Applies a position encoding to visible tokens, which differ between images and keep their places on the grid.

    It works for every encoding of the menu. An encoding that adds to tokens has done so before tokens were dropped. For
    `rotate` and `between`, the tokens are laid out on the full grid with 0 for masked tokens, as a convolution has
    zeros beyond the border. Of a bias, only the rows and columns of visible tokens are kept. So masked tokens have no
    effect.
    """

    def __init__(self, pe: PositionEncoding, seen: Tensor, N: int) -> None:
        super().__init__(pe.geometry)
        self.pe, self.seen, self.N = pe, seen, N  # seen: (B,n), indices of the N tokens

    def rotate(self, q: Tensor, k: Tensor, grid: tuple[int, int], layer: int) -> tuple[Tensor, Tensor]:
        if type(self.pe).rotate is PositionEncoding.rotate:
            return q, k
        index = self.seen[:, None, :, None].expand_as(q)  # (B,A,n,E)
        B, A, _, E = q.shape
        q, k = (x.new_zeros(B, A, self.N, E).scatter(2, index, x) for x in (q, k))
        q, k = self.pe.rotate(q, k, grid, layer)
        return q.gather(2, index), k.gather(2, index)

    def bias(self, grid: tuple[int, int], layer: int) -> Tensor | None:
        """Returns a bias for each image, (B,A,n,n)."""
        full_bias = self.pe.bias(grid, layer)  # (A,N,N)
        if full_bias is None:
            return None
        return full_bias[:, self.seen[:, :, None], self.seen[:, None, :]].transpose(0, 1)

    def between(self, tokens: Tensor, grid: tuple[int, int], layer: int) -> Tensor:
        if type(self.pe).between is PositionEncoding.between:
            return tokens
        index = _token_index(self.seen, tokens)  # (B,n,D)
        B, _, D = tokens.shape
        full_grid = tokens.new_zeros(B, self.N, D).scatter(1, index, tokens)
        return self.pe.between(full_grid, grid, layer).gather(1, index)


def _token_index(seen: Tensor, tokens: Tensor) -> Tensor:
    """Expands indices of tokens (B,n) to (B,n,D), the form that `gather` and `scatter` need for tokens (B,N,D)."""
    return seen[:, :, None].expand(-1, -1, tokens.shape[2])
