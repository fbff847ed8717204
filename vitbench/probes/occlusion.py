"""Occlusion: what a classifier loses with a random share of the image's tiles (Naseer et al. 2021, arXiv 2105.10497)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitbench.errors import UserError, did_you_mean
from vitbench.probes.distorted import Distort, accuracy_curve, at_least_one, generator, mean_colour, tiles_a_side
from vitbench.probes.subject import Row, Subject

FILLS = ("mean", "black")


def probe(subject: Subject, *, seed: int, grid: int | None = None, draws: int = 2, fill: str = "mean") -> list[Row]:
    """The paper's random PatchDrop: of grid x grid tiles, a share of 0, 0.1 .. 0.9 (to the nearest whole number) is filled.

    `grid` null is the divisor of the image's size nearest to 8: a token of our ViTs at 32 px, and the same for every
    network of an image size. The tiles are drawn for each image and draw; those dropped at one share are among those
    dropped at every larger one, which keeps the curve from jumping. `fill` is the training images' `mean` colour, 0 once
    normalised and so what a CNN pads with; `black` is the paper's.
    """
    size = subject.images.shape[-1]
    grid = tiles_a_side(size, "probe.occlusion.grid", grid)
    at_least_one("probe.occlusion.draws", draws)
    if fill not in FILLS:
        raise UserError(f"probe.occlusion.fill={fill}: {did_you_mean(fill, FILLS)}")
    colour = mean_colour(subject) if fill == "mean" else torch.zeros_like(mean_colour(subject))
    levels: dict[float, list[Distort]] = {0: []}
    for tenth in range(1, 10):
        levels[tenth / 10] = [drop(grid, tenth / 10, colour, generator(seed, draw)) for draw in range(draws)]
    return accuracy_curve(subject, "occlusion@v1", levels, seed=seed, at_unit="share of tiles", reference=0)


def drop(grid: int, share: float, colour: Tensor, random: torch.Generator) -> Distort:
    """Fills a share of the grid x grid tiles of every image, each image's own, with one colour (C,1,1)."""
    dropped = round(share * grid * grid)

    def distort(images: Tensor) -> Tensor:
        rank = torch.rand(len(images), grid * grid, generator=random).argsort(1)  # a random order: each place its rank
        gone = (rank < dropped).view(-1, 1, grid, grid).to(images.device)
        tile = images.shape[-1] // grid
        return torch.where(gone.repeat_interleave(tile, 2).repeat_interleave(tile, 3), colour, images)

    return distort
