from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from vitbench.data import augment as augment_module
from vitbench.data.augment import Augment, crop_and_flip, crop_and_resize, erase, mixup_or_cutmix, turn_and_scale

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


def test_randaugment_by_chunks_draws_several_times_a_batch() -> None:
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


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0), (0.2, 0.2)])
@pytest.mark.parametrize("shape", [(16, 3, 8, 8), (5, 1, 7, 12)], ids=str)
def test_mixing_equals_torchvisions_to_the_bit(mixup: float, cutmix: float, shape: tuple[int, ...]) -> None:
    mixes = [kind(alpha=alpha, num_classes=10) for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix)) if alpha]
    batch, labels = torch.randn(shape), torch.arange(shape[0]) % 10
    given, boxes = batch.clone(), 0
    for seed in range(40):
        torch.manual_seed(seed)
        chosen = mixes[int(torch.randint(len(mixes), (1,)))]
        expected = *chosen(batch, labels), torch.rand(1)  # what is drawn next in the step
        torch.manual_seed(seed)
        mixed = *mixup_or_cutmix(batch, labels, mixup, cutmix, 10), torch.rand(1)
        assert torch.equal(mixed[0], expected[0]) and torch.equal(mixed[1], expected[1])
        draws_a_box_in_vain = cutmix and isinstance(chosen, v2.MixUp)
        assert torch.equal(mixed[2], expected[2]) != draws_a_box_in_vain
        boxes += isinstance(chosen, v2.CutMix)
    assert torch.equal(batch, given)
    assert (boxes > 0) == (cutmix > 0) and (boxes < 40) == (mixup > 0)


def test_a_random_crop_has_the_area_and_ratio_that_it_should() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    batch = torch.stack([4 * x, 4 * y]).to(torch.uint8).expand(800, -1, -1, -1)  # what is seen tells from where
    torch.manual_seed(0)
    seen = crop_and_resize(batch, 0.3) / 4
    width = (seen[:, 0, 32, 40] - seen[:, 0, 32, 24]) / 16  # shares of the image's
    height = (seen[:, 1, 40, 32] - seen[:, 1, 24, 32]) / 16
    area, ratio = width * height, width / height
    assert 0.3 <= area.min() < 0.31 and 0.98 < area.max() <= 1.0001
    assert 0.75 <= ratio.min() < 0.77 and 1.31 < ratio.max() <= 1.3334
    assert abs(ratio.log().mean()) < 0.02 and abs(area.mean() - 0.65) < 0.03
    middle = (seen[:, :, 31, 31] + seen[:, :, 32, 32]) / 128 + 1 / 128  # of the part, (B, 2)
    assert (middle - torch.stack([width, height], 1) / 2).min() > -1e-4, "no part begins outside the image"
    assert (middle + torch.stack([width, height], 1) / 2).max() < 1 + 1e-4
    assert abs(middle.mean() - 0.5) < 0.01 and len(middle.unique(dim=0)) > 790


def test_the_random_crop_comes_first_and_is_rounded() -> None:
    batch = images(16)
    augment = Augment(num_classes=10, image_size=8, **OFF | {"area": 0.3, "crop": 0.25})  # type: ignore[arg-type]
    torch.manual_seed(0)
    augmented = augment.pixels(batch)
    torch.manual_seed(0)
    assert torch.equal(augmented, crop_and_flip(crop_and_resize(batch, 0.3).round().to(torch.uint8), 2, flip=False))


def test_erasing_takes_a_rectangle_of_one_image_in_four() -> None:
    torch.manual_seed(0)
    images = torch.full((2000, 3, 32, 32), 7.0)
    erased = erase(images, 0.25)
    changed = erased != 7
    assert torch.equal(changed.all(1), changed.any(1)), "all channels of a pixel"
    changed = changed[:, 0]  # (B, H, W)
    rows, columns = changed.any(2), changed.any(1)
    assert torch.equal(changed, rows[:, :, None] & columns[:, None, :]), "one rectangle"
    chosen = changed.flatten(1).any(1)
    assert abs(chosen.float().mean() - 0.25) < 0.03
    area = changed[chosen].float().mean((1, 2))
    assert 0.015 < area.min() < 0.03 and 0.32 < area.max() < 0.345 and abs(area.mean() - (0.02 + 1 / 3) / 2) < 0.01
    ratio = rows[chosen].sum(1) / columns[chosen].sum(1)
    assert 0.2 < ratio.min() < 0.33 and 3 < ratio.max() < 5 and abs(ratio.log().mean()) < 0.1
    for line in (rows[chosen], columns[chosen]):
        assert line[:, 0].any() and line[:, -1].any() and 14 < line.float().argmax(1).max() < 32
    assert len(changed[chosen].flatten(1).unique(dim=0)) > 450, "drawn for each image"
    noise = erased[changed[:, None].expand_as(erased)]
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01 and noise.unique().numel() > 0.9 * noise.numel()


def test_images_are_erased_before_they_are_mixed() -> None:
    batch, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 10
    augment = Augment(num_classes=10, image_size=8, **OFF | {"erase": 0.5, "mixup": 1.0})  # type: ignore[arg-type]
    torch.manual_seed(0)
    mixed, shares = augment.mix(batch, labels)
    torch.manual_seed(0)
    expected, expected_shares = mixup_or_cutmix(erase(batch, 0.5), labels, 1.0, 0.0, 10)
    assert torch.equal(mixed, expected) and torch.equal(shares, expected_shares)
    alone = Augment(num_classes=10, image_size=8, **OFF | {"erase": 1.0})  # type: ignore[arg-type]
    assert alone.mix(batch, labels)[1] is labels
