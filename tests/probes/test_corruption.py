"""Corruptions: each does what its name says, more with every severity, and to each image by itself."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, noise, right_labels, subject, value
from vitbench.errors import UserError
from vitbench.probes.corruption import SEVERITIES, corrupt, probe


def grey(level: int, M: int = 4, size: int = 16) -> Tensor:
    return torch.full((M, 3, size, size), level, dtype=torch.uint8)


def colours(images: Tensor) -> Tensor:
    return images.mean((2, 3))


@pytest.mark.parametrize("kind", SEVERITIES)
def test_every_severity_changes_an_image_more(kind: str) -> None:
    images = noise(8, 32) // 2  # so that brightening does not saturate at once
    change = [
        (corrupt(kind, strength, 0)(images).int() - images).abs().double().mean() for strength in SEVERITIES[kind]
    ]
    assert change[0] > 0
    assert all(less < more for less, more in itertools.pairwise(change))


@pytest.mark.known_answer
def test_noise_has_the_stated_deviation_and_is_drawn_for_each_image() -> None:
    images = grey(128, M=50, size=32)
    shown = corrupt("noise", 0.1, 0)(images).double() - 128
    assert shown.std().item() == pytest.approx(25.5, rel=0.02)
    assert shown.mean().item() == pytest.approx(0, abs=0.3)
    assert len(shown.flatten(1).unique(dim=0)) == 50
    before = torch.random.get_rng_state()
    assert torch.equal(corrupt("noise", 0.1, 0)(images), corrupt("noise", 0.1, 0)(images))
    assert torch.equal(before, torch.random.get_rng_state()), "torch's own random numbers are left alone"


@pytest.mark.parametrize("kind", ["blur", "contrast", "jpeg"])
def test_flat_images_stay(kind: str) -> None:
    for strength in SEVERITIES[kind]:
        assert torch.equal(corrupt(kind, strength, 0)(grey(128)), grey(128))


@pytest.mark.known_answer
def test_contrast_shrinks_towards_the_mean_grey_and_brightness_multiplies() -> None:
    halves = torch.cat([grey(60, size=16)[..., :8], grey(140, size=16)[..., :8]], 3)
    assert corrupt("contrast", 0.5, 0)(halves).unique().tolist() == [80, 120]
    assert corrupt("brightness", 1.5, 0)(halves).unique().tolist() == [90, 210]


def test_blur_goes_with_the_size_of_the_image() -> None:
    for size in (32, 64, 128):
        edge = torch.zeros(1, 1, size, size, dtype=torch.uint8)
        edge[..., size // 2 :] = 255
        slope = corrupt("blur", 1.0, 0)(edge).double()[0, 0, 0].diff()  # the filter itself
        x = torch.arange(1, size) - size / 2
        assert ((slope * x**2).sum() / slope.sum()).sqrt().item() == pytest.approx(size / 32, rel=0.02)


def test_severity_0_is_clean_and_drops_are_averaged_over_kinds() -> None:
    images = noise(50, 16)
    known = subject(colours, images, right_labels(colours, images), 3)
    rows = probe(known, seed=0)
    kinds = {kind: {"protocol": f"corruption.{kind}@v1"} for kind in SEVERITIES}
    assert value(rows, "accuracy", protocol="corruption@v1") == 1
    for where in kinds.values():
        assert list(curve(rows, "accuracy", **where)) == [0, 1, 2, 3, 4, 5]
        assert value(rows, "accuracy", 0, **where) == value(rows, "accuracy", **where) == 1
    drops = [value(rows, "relative_drop", **where) for where in kinds.values()]
    assert value(rows, "relative_drop", protocol="corruption@v1") == pytest.approx(sum(drops) / 5)
    one = probe(known, seed=0, kind="noise")
    assert {row["protocol"] for row in one} == {"corruption.noise@v1", "corruption@v1"}
    assert curve(one, "accuracy") == curve(rows, "accuracy", **kinds["noise"]), "a kind alone draws the same noise"


def test_what_cannot_be_is_one_line() -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UserError, match=r"^probe\.corruption\.kind=jpg: did you mean jpeg\?"):
        probe(subject(colours, noise(2, 8), labels, 3), seed=0, kind="jpg")
    with pytest.raises(UserError, match=r"^probe=corruption: the images have 2 channels; they must have 1 or 3$"):
        probe(subject(colours, noise(2, 8, channels=2), labels, 2), seed=0)
