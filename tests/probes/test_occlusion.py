"""Dropped tiles: the stated share, drawn for each image, the smaller among the larger."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, noise, right_labels, subject, value
from vitbench.errors import UserError
from vitbench.probes.distorted import generator
from vitbench.probes.occlusion import drop, probe

RED = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)


def corner(images: Tensor) -> Tensor:
    """Is the pixel in the corner bright?"""
    return torch.stack([100 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 100], 1)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_stated_share_is_dropped_and_the_rest_is_untouched(share: float) -> None:
    images = noise(50, 16).clamp(1, 254)
    shown = drop(8, share, RED, generator(0))(images)
    gone = (shown == RED).all(1)
    assert set(gone.sum((1, 2)).tolist()) == {round(share * 64) * 4}
    assert torch.equal(shown.movedim(1, -1)[~gone], images.movedim(1, -1)[~gone])
    assert len(gone.flatten(1).unique(dim=0)) == 50, "each image loses its own tiles"


def test_what_is_dropped_at_a_share_is_dropped_at_every_larger_one() -> None:
    images = noise(20, 16).clamp(1, 254)
    gone = [(drop(8, tenth / 10, RED, generator(0))(images) == RED).all(1) for tenth in range(10)]
    assert all((less <= more).all() for less, more in itertools.pairwise(gone))


@pytest.mark.known_answer
def test_a_network_that_looks_at_one_tile_loses_it_in_a_share_of_the_images() -> None:
    images = torch.zeros(2000, 1, 8, 8, dtype=torch.uint8)
    images[::2] = 255
    known = subject(corner, images, right_labels(corner, images), 2)
    for share, accuracy in curve(probe(known, seed=0), "accuracy").items():
        assert accuracy == pytest.approx(1 - share / 2, abs=0.02), "a bright corner that is dropped is called dark"


def test_the_fill_is_the_mean_colour_or_black() -> None:
    images = torch.full((10, 1, 8, 8), 200, dtype=torch.uint8)
    known = subject(corner, images, torch.ones(10, dtype=torch.int64), 2)
    known.normalise.mean = (150 / 255,)
    assert value(probe(known, seed=0), "area") == 1, "150 is bright still"
    assert value(probe(known, seed=0, fill="black"), "area") < 1


def test_the_default_grid_is_the_divisor_nearest_to_8() -> None:
    known = subject(corner, torch.zeros(2, 1, 28, 28, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), 2)
    assert probe(known, seed=0) == probe(known, seed=0, grid=7)


@pytest.mark.parametrize(
    "options, line",
    [
        ({"grid": 3}, r"probe\.occlusion\.grid=3: the tiles of a side must divide the image's 8 px: 1, 2, 4, 8"),
        ({"draws": 0}, r"probe\.occlusion\.draws=0: must be 1 or more"),
        ({"fill": "blak"}, r"probe\.occlusion\.fill=blak: did you mean black\?"),
    ],
)
def test_what_cannot_be_is_one_line(options: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        probe(subject(corner, noise(2, 8), torch.zeros(2, dtype=torch.int64), 2), seed=0, **options)
