"""Other image sizes: the training size is the image itself, a network that sees no size loses nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.probes.known import curve, find, noise, subject, value
from vitbench.errors import UserError
from vitbench.models.build import build_model
from vitbench.probes.resolution import probe


def brightness(images: Tensor) -> Tensor:
    return torch.stack([127.5 - images.mean((1, 2, 3)), images.mean((1, 2, 3)) - 127.5], 1)


def only_16(images: Tensor) -> Tensor:
    assert images.shape[-1] == 16, "Input height doesn't match model"
    return brightness(images)


@pytest.mark.known_answer
def test_the_mean_of_flat_images_is_the_same_at_every_size() -> None:
    images = torch.tensor([0, 60, 190, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(-1, 1, 16, 16)
    rows = probe(subject(brightness, images, torch.tensor([0, 0, 1, 1]), 2), seed=0)
    assert list(curve(rows, "accuracy")) == [8, 10, 12, 14, 16, 20, 24, 32]
    assert set(curve(rows, "agreement").values()) == {1.0}
    assert value(rows, "area") == 1


@pytest.mark.parametrize("name, sizes", [("vit", [8, 12, 16, 20, 24, 32]), ("resnet", [8, 10, 12, 14, 16, 20, 24, 32])])
def test_a_network_is_tested_at_the_sizes_it_takes_and_its_own_is_clean(name: str, sizes: list[int]) -> None:
    torch.manual_seed(0)
    images, labels = noise(20, 16), torch.arange(20) % 3
    model = build_model(
        name, image_size=16, channels=3, num_classes=3, **({"pe": {"name": "learned"}} if name == "vit" else {})
    )
    known = subject(model, images, labels, 3)
    rows = probe(known, seed=0)
    with torch.no_grad():
        clean = (model(known.normalise(images)).argmax(1) == labels).double().mean().item()
    assert list(curve(rows, "accuracy")) == sizes
    assert value(rows, "accuracy") == value(rows, "accuracy", 16) == clean


def test_sizes_that_a_network_does_not_take_are_refused_or_left_out() -> None:
    vit = build_model("vit", image_size=16, channels=3, num_classes=2, pe={"name": "none"})
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(
        UserError, match=r"^probe\.resolution\.size=30: must be a whole number of patches of 4 px; 28 or 32 works$"
    ):
        probe(subject(vit, noise(4, 16), labels, 2), seed=0, size=30)
    known = subject(only_16, noise(4, 16), labels, 2)
    with pytest.raises(
        UserError, match=r"size=24: the network takes no images of that size \(Input height doesn't match"
    ):
        probe(known, seed=0, size=24)
    row = find(probe(known, seed=0), "area")
    assert math.isnan(row["value"]) and row["reason"] == "there is one level only, 16 px"
