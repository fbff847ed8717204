"""Turned images: quarters are exact, corners never count, what is round is not noticed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, noise, right_labels, subject, value
from vitbench.errors import UserError
from vitbench.probes.rotation import disc, probe, turn

GREY = torch.full((3, 1, 1), 128, dtype=torch.uint8)


def masked(images: Tensor) -> Tensor:
    return torch.where(disc(images.shape[-1], images.device), images, GREY)


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarters_of_a_turn_move_pixels_exactly_and_counter_clockwise(quarters: int, size: int) -> None:
    images = noise(3, size)
    assert torch.equal(turn(90.0 * quarters, GREY)(images), masked(images.rot90(quarters, (2, 3))))


def test_the_mask_is_the_inscribed_circle() -> None:
    assert disc(4, torch.device("cpu")).int().tolist() == [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    assert disc(64, torch.device("cpu")).double().mean().item() == pytest.approx(torch.pi / 4, abs=0.005)


def test_the_corners_never_count() -> None:
    images = noise(3, 16)
    corners = masked(images) != images
    painted = images.clone()
    painted[corners] = 255 - painted[corners]
    for angle in (0.0, 90.0):
        assert torch.equal(turn(angle, GREY)(images), turn(angle, GREY)(painted))


def rings(images: Tensor) -> Tensor:
    """Is the inner disc brighter than the ring around it?"""
    axis = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
    radius = torch.hypot(axis[:, None], axis)
    inner, outer = (images[:, 0, where].mean(1) for where in (radius < 5, (radius > 7) & (radius < 11)))
    return torch.stack([outer - inner, inner - outer], 1)


@pytest.mark.known_answer
def test_what_is_round_is_not_noticed_to_turn() -> None:
    axis = torch.arange(32) - 15.5
    radius = torch.hypot(axis[:, None], axis)
    bumps = 255 * torch.exp(-(((radius - torch.linspace(0, 10, 20)[:, None, None]) / 4) ** 2))  # rings of 20 radii
    images = bumps.round().to(torch.uint8)[:, None]
    rows = probe(subject(rings, images, right_labels(rings, images), 2), seed=0)
    assert list(curve(rows, "accuracy")) == list(range(0, 181, 15))
    assert set(curve(rows, "agreement").values()) == {1.0}
    assert value(rows, "area") == 1


def left(images: Tensor) -> Tensor:
    """Is the left half brighter than the right one?"""
    one, other = images[:, 0].chunk(2, 2)
    return torch.stack([other.mean((1, 2)), one.mean((1, 2))], 1)


@pytest.mark.known_answer
def test_sides_change_places_at_180_degrees() -> None:
    images = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    images[::2, :, :, :8] = 255
    images[1::2, :, :, 8:] = 255
    rows = probe(subject(left, images, right_labels(left, images), 2), seed=0, step=60)
    assert curve(rows, "accuracy") == {0: 1, 60: 1, 120: 0, 180: 0}
    assert value(rows, "area") == pytest.approx(0.5)


def test_the_step_is_checked() -> None:
    with pytest.raises(UserError, match=r"^probe\.rotation\.step=0: must be 1 to 180 degrees$"):
        probe(subject(left, noise(2, 8), torch.zeros(2, dtype=torch.int64), 2), seed=0, step=0.0)
