"""Occlusion: measures what a classifier loses when random tiles are filled (Naseer et al. 2021, arXiv 2105.10497)."""

from __future__ import annotations

import torch
from torch import Tensor

from vitbench.errors import UserError, did_you_mean
from vitbench.probes.distorted import Distort, accuracy_curve, at_least_one, generator, mean_colour, tiles_a_side
from vitbench.probes.subject import Row, Subject

FILL_COLOURS = ("mean", "black")


def probe(subject: Subject, *, seed: int, grid: int | None = None, draws: int = 2, fill: str = "mean") -> list[Row]:
    """Measures accuracy with a share of 0, 0.1 .. 0.9 of grid x grid tiles filled, the paper's random PatchDrop.

    The share is rounded to a whole number of tiles. `grid` null is the divisor of the image's size nearest to 8. At
    32 px such a tile is a token of our ViTs; it is the same for all networks with one image size. The tiles are drawn
    for each image and draw. Tiles that are dropped at one share are also dropped at every larger share, so that the
    curve does not jump. `fill` is the `mean` colour of the training images, which is 0 after normalisation like the
    padding of a CNN, or the paper's `black`. Raises UserError for a grid that does not divide the image.
    """
    size = subject.images.shape[-1]
    grid = tiles_a_side(size, "probe.occlusion.grid", grid)
    at_least_one("probe.occlusion.draws", draws)
    if fill not in FILL_COLOURS:
        raise UserError(f"probe.occlusion.fill={fill}: {did_you_mean(fill, FILL_COLOURS)}")
    colour = mean_colour(subject) if fill == "mean" else torch.zeros_like(mean_colour(subject))
    levels: dict[float, list[Distort]] = {0: []}
    for tenth in range(1, 10):
        levels[tenth / 10] = [drop(grid, tenth / 10, colour, generator(seed, draw)) for draw in range(draws)]
    return accuracy_curve(subject, "occlusion@v1", levels, seed=seed, at_unit="share of tiles", reference=0)


def drop(grid: int, share: float, colour: Tensor, random: torch.Generator) -> Distort:
    """Fills a share of the grid x grid tiles with one colour (C,1,1), other tiles in every image."""
    dropped = round(share * grid * grid)

    def distort(images: Tensor) -> Tensor:
        rank = torch.rand(len(images), grid * grid, generator=random).argsort(1)  # of each tile, in a random order
        filled = (rank < dropped).view(-1, 1, grid, grid).to(images.device)
        tile = images.shape[-1] // grid
        return torch.where(filled.repeat_interleave(tile, 2).repeat_interleave(tile, 3), colour, images)

    return distort
