"""Permuted tiles: what no order of them can change stays, and each image has its own order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, noise, right_labels, subject, value
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.probes.distorted import generator
from vitbench.probes.shuffle import from_tiles, probe, shuffle, to_tiles

NOISE = noise(40, 16)


def colours(images: Tensor) -> Tensor:
    """Which channel has most light? Sums of whole numbers are exact, so the order of pixels does not matter."""
    return images.sum((2, 3))


def quadrants(images: Tensor) -> Tensor:
    """Which of the four quadrants is brightest?"""
    return torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), images.shape[-1] // 2).flatten(1)


def vit(pe: str, pool: str = "mean") -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(
        "vit",
        image_size=16,
        channels=3,
        num_classes=10,
        patch_size=4,
        width=16,
        depth=2,
        heads=2,
        pool=pool,
        pe={"name": pe},
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)  # large enough for every part to matter
        model.patch_embed.weight /= 100  # pixels are 0 .. 255 here
        model.head.bias -= model(NOISE.float()).mean(0)  # so that it predicts all of its classes
    return model


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_vit_without_encoding_does_not_notice_its_own_tokens_shuffled(pool: str) -> None:
    rows = probe(subject(vit("none", pool), NOISE, torch.arange(40) % 10, 10), seed=0)
    agreement = curve(rows, "agreement")
    assert value(rows, "token_grid") == 16
    assert agreement[1] == agreement[4] == agreement[16] == 1, "4 and 16 tiles are whole patches"
    assert agreement[64] < 1 and agreement[256] < 1, "8 and 16 tiles a side cut patches"


def test_a_vit_with_an_encoding_notices() -> None:
    rows = probe(subject(vit("learned"), NOISE, torch.arange(40) % 10, 10), seed=0)
    assert curve(rows, "agreement")[16] < 1


@pytest.mark.known_answer
def test_a_bag_of_pixels_notices_no_shuffle_at_all() -> None:
    images = noise(40, 12)
    rows = probe(subject(colours, images, right_labels(colours, images), 3), seed=0)
    assert list(curve(rows, "accuracy")) == [side**2 for side in (1, 2, 3, 4, 6, 12)], "every divisor of 12"
    assert set(curve(rows, "agreement").values()) == {1.0}
    assert value(rows, "area") == 1
    assert not [row for row in rows if row["metric"] == "token_grid"], "a network without patches has no token grid"


@pytest.mark.known_answer
def test_what_is_told_by_place_falls_to_chance() -> None:
    images = torch.zeros(1000, 1, 4, 4, dtype=torch.uint8)
    labels = torch.arange(1000) % 4
    images[range(1000), 0, 3 * (labels // 2), 3 * (labels % 2)] = 255
    rows = probe(subject(quadrants, images, labels, 4), seed=0)
    for tiles in (4, 16):
        assert curve(rows, "accuracy")[tiles] == pytest.approx(1 / 4, abs=0.03)
        assert curve(rows, "relative_drop")[tiles] == pytest.approx(1, abs=0.04)


def test_each_image_and_each_draw_has_its_own_permutation_of_all_tiles() -> None:
    images = noise(1, 8).expand(200, -1, -1, -1)
    first, again, other = (shuffle(2, generator(0, draw))(images) for draw in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    kinds, counts = first.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 24 and counts.max() < 25, "all 4! orders, about 8 times each"
    sums = [to_tiles(some.int(), 2).sum((2, 3, 4)).sort(1).values for some in (first, images)]
    assert torch.equal(*sums), "the same four tiles"


def test_tiles_go_back_where_they_came_from() -> None:
    images = noise(2, 6)
    assert torch.equal(from_tiles(to_tiles(images, 3), 3), images)
    assert torch.equal(to_tiles(images, 3)[:, 5], images[:, :, 2:4, 4:6]), "row by row"


def test_a_grid_that_does_not_divide_the_image_is_answered_with_those_that_do() -> None:
    known = subject(colours, noise(4, 16), torch.zeros(4, dtype=torch.int64), 3)
    with pytest.raises(
        UserError, match=r"^probe\.shuffle\.grid=5: the tiles of a side must divide the image's 16 px: 1, 2, 4, 8, 16$"
    ):
        probe(known, seed=0, grid=5)
    with pytest.raises(UserError, match=r"^probe\.shuffle\.draws=0: must be 1 or more$"):
        probe(known, seed=0, draws=0)
    assert list(curve(probe(known, seed=0, grid=4), "accuracy")) == [1, 16]
