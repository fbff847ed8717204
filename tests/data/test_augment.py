from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitbench.data import augment as augment_module
from vitbench.data.augment import Augment, crop_and_flip, turn_and_scale

OFF = {"crop": 0.0, "flip": False, "randaugment": 0, "magnitude": 9, "mixup": 0.0, "cutmix": 0.0}


def images(count: int = 64, size: int = 8) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_without_augmentation_nothing_changes() -> None:
    augment = Augment(num_classes=10, image_size=8, **OFF)  # type: ignore[arg-type]
    batch, labels = images(), torch.zeros(64, dtype=torch.long)
    assert augment.pixels(batch) is batch
    assert augment.mix(batch, labels) == (batch, labels)


@pytest.mark.parametrize("padding", [0, 1, 4, 7])
def test_every_crop_is_a_window_of_the_reflected_image_or_its_mirror(padding: int) -> None:
    batch = images(200, 8)
    torch.manual_seed(0)
    cropped = crop_and_flip(batch, padding, flip=True)
    padded = F.pad(batch.float(), 4 * [padding], mode="reflect") if padding else batch.float()
    windows = padded.unfold(2, 8, 1).unfold(3, 8, 1)  # (B, C, places, places, 8, 8)
    mirrors = torch.stack([windows, windows.flip(-1)])
    equal = (mirrors == cropped.float()[None, :, :, None, None]).all(-1).all(-1).all(2)  # (2, B, places, places)
    assert equal.flatten(2).any(2).any(0).all()
    if padding == 1:  # each of the 9 places occurs, mirrored and not
        assert equal.any(1).all()


def test_crop_and_flip_are_drawn_for_each_image() -> None:
    batch = images(1, 8).expand(64, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in crop_and_flip(batch, 2, flip=True)}) > 20


def test_randaugment_draws_several_times_a_batch() -> None:
    torch.manual_seed(0)
    augment = Augment(num_classes=10, image_size=32, **OFF | {"randaugment": 2})  # type: ignore[arg-type]
    batch = images(1, 32).expand(64, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in augment.pixels(batch)}) >= 4


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_labels_are_shares_that_sum_to_one(kind: str) -> None:
    torch.manual_seed(0)
    augment = Augment(num_classes=10, image_size=8, **OFF | {kind: 1.0})  # type: ignore[arg-type]
    batch, labels = augment.mix(images().float(), torch.arange(64) % 10)
    assert labels.shape == (64, 10)
    torch.testing.assert_close(labels.sum(1), torch.ones(64))
    assert not torch.equal(batch, images().float())


def test_a_quarter_turn_moves_every_pixel_and_changes_none() -> None:
    batch = images(4, 9)
    degrees = torch.tensor([0.0, 90.0, 180.0, -90.0])
    turned = turn_and_scale(batch, degrees, torch.ones(4))
    for place, quarters in enumerate((0, 1, 2, -1)):
        assert torch.equal(turned[place], torch.rot90(batch[place], quarters, (1, 2)))


def test_scaling_by_two_shows_the_middle_and_by_a_half_what_is_reflected() -> None:
    batch = images(1, 9)
    large, small = turn_and_scale(batch.expand(2, -1, -1, -1), torch.zeros(2), torch.tensor([2.0, 0.5]))
    assert torch.equal(large[:, ::2, ::2], batch[0, :, 2:7, 2:7])
    assert torch.equal(small[:, 2:7, 2:7], batch[0, :, ::2, ::2])
    assert torch.equal(small[:, 1, 2:7], small[:, 3, 2:7])  # rows outside mirror the rows inside


def test_turns_and_factors_are_drawn_for_each_image_within_their_range(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(augment_module, "turn_and_scale", lambda images, *drawn: calls.append(drawn) or images)
    torch.manual_seed(0)
    augment = Augment(num_classes=10, image_size=8, **OFF | {"rotate": 30.0, "scale": 0.25})  # type: ignore[arg-type]
    augment.pixels(images(2000))
    degrees, factors = calls[0]
    assert 29 < degrees.max() <= 30 and -30 <= degrees.min() < -29 and abs(degrees.mean()) < 1.5
    assert 1.24 < factors.max() <= 1.25 and 0.8 <= factors.min() < 0.81
    assert abs(factors.log().mean()) < 0.01  # above 1 as often as below
