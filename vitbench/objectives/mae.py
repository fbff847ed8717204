"""Most patches are hidden, and painted from the others: learning without labels, for vision transformers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.models.vit import Block, ViT
from vitbench.objectives.base import Objective
from vitbench.pe.base import Geometry, PositionEncoding
from vitbench.pe.sincos2d import SinCos2D


class MAE(Objective):
    """He et al. 2022, arXiv 2111.06377, section 3: a share `mask` of the patches is drawn for each image and dropped; the
    encoder, our ViT, sees the others alone; a small decoder (`width`, `depth`) sees their states and a mask token in each
    hidden place, and gives the hidden patches' pixels. The loss is the mean square over hidden patches, each of which is
    normalised by its own mean and deviation.

    The decoder is half as wide as the model where `width` is null (the paper: 512 for 1,024), and one block deep, which
    the paper finds as good for fine-tuning (table 1a; 8 is its default). Its positions are fixed waves, as there; the
    encoder's are the run's own encoding. Only patches that are seen have one: see `Visible`.
    """

    def __init__(self, model: nn.Module, *, mask: float = 0.75, width: int | None = None, depth: int = 1) -> None:
        super().__init__()
        assert isinstance(model, ViT)
        geometry = model.pe.geometry
        patches = geometry.grid[0] * geometry.grid[1]
        self.prefix, self.seen = geometry.prefix_tokens, int(patches * (1 - mask))
        if not 0 < self.seen < patches:
            raise UserError(f"objective.mask={mask}: shows {self.seen} of an image's {patches} patches")
        unit = math.lcm(4, geometry.heads)  # of waves, and of heads
        width = max(8, unit * math.ceil(geometry.width / 2 / unit)) if width is None else width
        if width % unit or width < 8:
            raise UserError(f"objective.width={width}: must be 8 or more, and divisible by {unit}")
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
        return (normalise(augment.pixels(images)),)

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        (images,) = views
        tokens, grid = model.embed(images)  # (B,N,D), with their positions
        B, N, _ = tokens.shape
        order = torch.rand(B, N - self.prefix, device=images.device).argsort(1) + self.prefix
        prefix = torch.arange(self.prefix, device=images.device).expand(B, -1)
        seen = torch.cat([prefix, order[:, : self.seen]], 1)  # (B,n), places among the N tokens
        states = encode(model, tokens, grid, seen)  # (B,n,D)
        errors = (self.painted(states, seen, N, grid) - self.targets(images)).square().mean(2)  # (B,N), without prefix
        hidden = torch.ones_like(errors).scatter(1, order[:, : self.seen] - self.prefix, 0.0)
        return (errors * hidden).sum() / hidden.sum()

    def painted(self, states: Tensor, seen: Tensor, N: int, grid: tuple[int, int]) -> Tensor:
        """The normalised pixels of every patch, (B,N,P P C), in float32."""
        states = self.enter(states)
        tokens = self.mask_token.to(states.dtype).expand(len(states), N, -1).scatter(1, _rows(seen, states), states)
        tokens = self.places.embed(tokens, grid)
        for block in self.blocks:
            tokens = block(tokens, self.unplaced, grid)
        return self.paint(self.norm(tokens))[:, self.prefix :].float()

    def targets(self, images: Tensor) -> Tensor:
        """Every patch's pixels with mean 0 and deviation 1, (B,N,P P C)."""
        pixels = F.pixel_unshuffle(images.float(), self.patch_size).flatten(2).transpose(1, 2)
        variance, mean = torch.var_mean(pixels, 2, keepdim=True)
        return (pixels - mean) / (variance + 1e-6).sqrt()


def encode(model: ViT, tokens: Tensor, grid: tuple[int, int], seen: Tensor) -> Tensor:
    """The last states of some of an image's tokens, (B,n,D), which see no other; `seen` (B,n) are their places."""
    encoding = Visible(model.pe, seen, tokens.shape[1])
    tokens = tokens.gather(1, _rows(seen, tokens))
    for block in model.blocks:
        tokens = block(tokens, encoding, grid)
    return model.norm(tokens)


class Visible(PositionEncoding):
    """A position encoding for some of the tokens, other ones in each image, which keep their places on the grid.

    What is added to tokens was added before any was dropped. For `rotate` and `between` the tokens are laid out in a
    full grid in which the others are 0, as for a convolution beyond the border, and of a bias the rows and columns of
    the tokens remain. So every encoding of the menu serves, and none sees what is hidden.
    """

    def __init__(self, pe: PositionEncoding, seen: Tensor, N: int) -> None:
        super().__init__(pe.geometry)
        self.pe, self.seen, self.N = pe, seen, N  # (B,n), of N

    def rotate(self, q: Tensor, k: Tensor, grid: tuple[int, int], layer: int) -> tuple[Tensor, Tensor]:
        if type(self.pe).rotate is PositionEncoding.rotate:
            return q, k
        places = self.seen[:, None, :, None].expand_as(q)  # (B,A,n,E)
        B, A, _, E = q.shape
        q, k = (x.new_zeros(B, A, self.N, E).scatter(2, places, x) for x in (q, k))
        q, k = self.pe.rotate(q, k, grid, layer)
        return q.gather(2, places), k.gather(2, places)

    def bias(self, grid: tuple[int, int], layer: int) -> Tensor | None:
        """(B,A,n,n): each image has its own."""
        whole = self.pe.bias(grid, layer)  # (A,N,N)
        if whole is None:
            return None
        return whole[:, self.seen[:, :, None], self.seen[:, None, :]].transpose(0, 1)

    def between(self, tokens: Tensor, grid: tuple[int, int], layer: int) -> Tensor:
        if type(self.pe).between is PositionEncoding.between:
            return tokens
        places = _rows(self.seen, tokens)  # (B,n,D)
        B, _, D = tokens.shape
        whole = tokens.new_zeros(B, self.N, D).scatter(1, places, tokens)
        return self.pe.between(whole, grid, layer).gather(1, places)


def _rows(places: Tensor, like: Tensor) -> Tensor:
    """(B,n) as an index into the tokens of `like`, (B,n,D)."""
    return places[:, :, None].expand(-1, -1, like.shape[2])
