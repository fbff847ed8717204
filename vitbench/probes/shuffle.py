"""Patch shuffle: measures what a classifier loses when an image's tiles change places (Naseer et al. 2021, arXiv
2105.10497, section 3.3).

We compared this with the reference code, Muzammal-Naseer/IPViT `evaluate.py` (with 32 px in place of 224), on a trained
ViT and a trained ResNet for 32 px and 1,000 images, with 4, 8 and 16 tiles a side. With one permutation for all images,
its pixels equal ours up to the rounding of the normalisation (2e-7), and its accuracies equal ours in every digit (the
ViT's 0.471, 0.469, 0.183). There are three differences. It draws one permutation *for a batch*, and we draw one for
each image: the ResNet at 4 tiles a side had 0.316 and 0.292 there with two seeds and batches of 128, 0.286 with one
batch, and has 0.306 here. Its grids are typed and may be oblong; ours are all grids that divide the image. It reports
no agreement, drop or interval.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vitbench.probes.distorted import Distort, accuracy_curve, at_least_one, divisors, generator, patch_size
from vitbench.probes.subject import Row, Subject, make_row

PROTOCOL = "shuffle@v1"


def probe(subject: Subject, *, seed: int, grid: int | None = None, draws: int = 3) -> list[Row]:
    """Measures accuracy on images cut into g x g tiles that change places, by a uniform permutation for each draw.

    Every image has its own permutations. `grid` is g; null takes every g that divides the image, up to its size in
    pixels. g = 1, the image itself, is always among them. `at` is the number of tiles, g², and `area` is over its log2.
    For a ViT, `token_grid` is the number of tiles at which tiles are its tokens. There, a ViT without position encoding
    loses nothing.
    """
    size = subject.images.shape[-1]
    sides = divisors(size, "probe.shuffle.grid", grid)
    at_least_one("probe.shuffle.draws", draws)
    levels: dict[float, list[Distort]] = {1: []}
    for g in set(sides if grid is None else [grid]) - {1}:
        levels[g * g] = [shuffle(g, generator(seed, g, draw)) for draw in range(draws)]
    rows = accuracy_curve(subject, PROTOCOL, levels, seed=seed, at_unit="tiles", reference=1, octaves=True)
    patch = patch_size(subject.model)
    if patch is not None:
        rows.append(make_row(PROTOCOL, "token_grid", (size // patch) ** 2))
    return rows


def shuffle(grid: int, random: torch.Generator) -> Distort:
    """Permutes the grid x grid tiles, in another way in every image."""

    def distort(images: Tensor) -> Tensor:
        order = torch.rand(len(images), grid * grid, generator=random).argsort(1)
        return from_tiles(take(to_tiles(images, grid), order.to(images.device)), grid)

    return distort


def to_tiles(images: Tensor, grid: int) -> Tensor:
    """Cuts images into tiles row by row, (B,C,H,W) -> (B,T,C,h,w)."""
    tiles = images.unflatten(3, (grid, -1)).unflatten(2, (grid, -1))  # (B,C,g,h,g,w)
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def from_tiles(tiles: Tensor, grid: int) -> Tensor:
    """The reverse of `to_tiles`."""
    images = tiles.unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5)  # (B,C,g,h,g,w)
    return images.flatten(4, 5).flatten(2, 3)


def take(tiles: Tensor, order: Tensor) -> Tensor:
    """Puts tile `order[b, t]` of image b at place t."""
    return tiles[torch.arange(len(tiles), device=tiles.device)[:, None], order]
