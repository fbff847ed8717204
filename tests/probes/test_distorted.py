"""The rows that all probes have which distort images, and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, find, noise, right_labels, subject, value
from vitbench.numbers.intervals import bootstrap_ratio
from vitbench.probes.distorted import accuracy_curve, area, bootstrap, patch_size, resized
from vitbench.probes.subject import ratio_row


def corner(images: Tensor) -> Tensor:
    """Is the pixel in the corner bright?"""
    return torch.stack([127.5 - images[:, 0, 0, 0], images[:, 0, 0, 0] - 127.5], 1)


def inverted(images: Tensor) -> Tensor:
    return 255 - images


def halved(images: Tensor) -> Tensor:
    return images // 2


def swept(levels: dict, **options: object) -> list:
    images = noise(60, 4)
    known = subject(corner, images, right_labels(corner, images), 2)
    return accuracy_curve(known, "test@v1", levels, **{"seed": 0, "at_unit": "px", "reference": 0, **options})


def test_a_distortion_that_does_nothing_costs_nothing() -> None:
    rows = swept({0: [], 1: [lambda images: images], 2: [lambda images: images.clone()] * 2})
    assert set(curve(rows, "accuracy").values()) == set(curve(rows, "agreement").values()) == {1.0}
    assert set(curve(rows, "relative_drop").values()) == {0.0}
    assert [value(rows, metric) for metric in ("accuracy", "area", "relative_drop", "agreement")] == [1, 1, 0, 1]


def test_draws_are_averaged_and_the_area_is_by_trapezoids() -> None:
    rows = swept({0: [], 1: [inverted, lambda images: images], 3: [inverted]})
    assert curve(rows, "accuracy") == {0: 1, 1: 0.5, 3: 0}
    assert curve(rows, "relative_drop") == {
        0: 0,
        1: 1,
        3: 2,
    }  # chance is 1/2, and all wrong is as far below it as all right is above
    assert value(rows, "area") == pytest.approx((0.75 * 1 + 0.25 * 2) / 3)
    assert value(rows, "relative_drop") == 1.5


def test_the_area_in_octaves_does_not_change_with_the_unit() -> None:
    ones = {level: [inverted] if level > 1 else [] for level in (1, 2, 8)}
    tens = {10 * level: draws for level, draws in ones.items()}
    areas = [value(swept(levels, octaves=True, reference=min(levels)), "area") for levels in (ones, tens)]
    assert areas == pytest.approx([1 / 6, 1 / 6])
    assert area(np.array([0.0, 2.0]), np.array([[1.0, 0.5]])).tolist() == [0.75]


def test_a_network_that_guesses_has_nothing_to_lose() -> None:
    images = noise(60, 4)
    known = subject(corner, images, torch.arange(60) % 2, 2)
    rows = accuracy_curve(known, "test@v1", {0: [], 1: [inverted]}, seed=0, at_unit="px", reference=0)
    for row in (find(rows, "relative_drop"), find(rows, "relative_drop", 1)):
        assert math.isnan(row["value"]) and "is not clearly above guessing, 0.500" in row["reason"]
    assert value(rows, "agreement") == 0


def test_one_level_has_no_curve_and_says_so() -> None:
    row = find(swept({0: []}), "area")
    assert math.isnan(row["value"]) and row["reason"] == "there is one level only, 0 px"


def test_the_interval_is_that_of_a_share() -> None:
    right = (np.arange(1000) < 300).astype(float)[:, None]
    value, low, high = bootstrap(right, lambda means: means, seed=0)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert value[0] == 0.3
    assert (low[0], high[0]) == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)


def test_what_is_the_same_for_every_image_has_no_interval() -> None:
    wholes = torch.linspace(1, 2, 50, dtype=torch.float64)
    _, low, high = bootstrap_ratio((0.1 * wholes).numpy(), wholes.numpy(), seed=0)
    assert 0 < high - low < 1e-15, "the last bits of the ratio differ from draw to draw"
    unmoved = swept({0: [], 1: [lambda images: images]})
    for row in (ratio_row("test@v1", "ratio", 0.1 * wholes, 0, wholes), *unmoved):
        assert not {"low", "high"} & {*row}, row
    for spread in (ratio_row("test@v1", "mean", 1e-9 * wholes, 0), find(swept({0: [], 1: [halved]}), "accuracy", 1)):
        assert spread["low"] < spread["value"] < spread["high"]


def test_an_image_resized_to_its_own_size_is_itself() -> None:
    images = noise(3, 7)
    assert torch.equal(resized(images, 7), images)
    assert torch.equal(resized(torch.full((1, 1, 4, 4), 77, dtype=torch.uint8), 6), torch.full((1, 1, 6, 6), 77))


def test_patches_are_found_in_ours_and_in_timms_vits() -> None:
    import timm

    from vitbench.models.build import build_model

    assert patch_size(build_model("vit", image_size=16, channels=3, num_classes=2)) == 4
    assert patch_size(build_model("resnet", image_size=16, channels=3, num_classes=2)) is None
    assert patch_size(timm.create_model("vit_tiny_patch16_224", depth=1)) == 16
    assert patch_size(timm.create_model("pvt_v2_b0")) is None  # its patches of 7 px are 4 px apart
