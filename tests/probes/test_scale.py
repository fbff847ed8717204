"""Images made smaller and larger in their frame: 1 is the image itself, areas go with the square."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, noise, right_labels, subject, value
from vitbench.probes.distorted import resized
from vitbench.probes.scale import probe, zoom


def test_a_smaller_image_lies_in_the_middle_of_its_reflection() -> None:
    images = noise(2, 16)
    shown = zoom(8)(images)
    assert torch.equal(shown[:, :, 4:12, 4:12], resized(images, 8))
    assert torch.equal(shown[:, :, 3], shown[:, :, 5]) and torch.equal(shown[..., 12], shown[..., 10])


def test_a_larger_image_is_cut_to_its_middle() -> None:
    images = noise(2, 16)
    assert torch.equal(zoom(32)(images), resized(images, 32)[:, :, 8:24, 8:24])
    assert torch.equal(zoom(16)(images), images)


@pytest.mark.parametrize("inner", [23, 27, 38, 45, 64])
def test_areas_grow_with_the_square_of_the_factor(inner: int) -> None:
    images = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    images[:, :, 12:20, 12:20] = 200
    assert zoom(inner)(images).double().sum().item() == pytest.approx(64 * 200 * (inner / 32) ** 2, rel=0.05)


def is_large(images: Tensor) -> Tensor:
    """Is more than a tenth of the image bright?"""
    bright = (images > 100).float().mean((1, 2, 3))
    return torch.stack([0.1 - bright, bright - 0.1], 1)


@pytest.mark.known_answer
def test_a_network_that_measures_size_changes_its_mind_at_the_right_factor() -> None:
    images = torch.zeros(10, 1, 32, 32, dtype=torch.uint8)
    images[:, :, 12:20, 12:20] = 200  # 1/16 of the image: a tenth at 1.26 times
    rows = probe(subject(is_large, images, right_labels(is_large, images), 2), seed=0)
    agreement = curve(rows, "agreement")
    assert list(agreement) == [n / 32 for n in (16, 19, 23, 27, 32, 38, 45, 54, 64)]
    assert all((factor < 1.26) == bool(same) for factor, same in agreement.items())
    assert value(rows, "accuracy") == value(rows, "accuracy", 1.0) == 1
