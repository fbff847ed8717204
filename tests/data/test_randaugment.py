from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from vitbench.data.randaugment import MAGNITUDES, NUMBERS, OPERATIONS, apply, randaugment

TORCHVISION = v2.RandAugment._AUGMENTATION_SPACE
SHAPES = [(3, 32, 25), (1, 28, 28)]  # channels, height, width


def picture(channels: int, height: int, width: int) -> Tensor:
    """Gradients, edges, a disc and noise; with black and white, (C, H, W) uint8."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    colours = torch.stack([20 + 200 * x, 40 + 180 * y, 110 * (x + y)])[:channels]
    colours = colours + 60 * ((x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06)
    colours[:, height // 2 :, : width // 4] *= 0.3
    noise = 8 * torch.randn(colours.shape, generator=torch.Generator().manual_seed(0))
    image = (colours + noise).clamp(0, 255).to(torch.uint8)
    image[:, :3, :3], image[:, :3, -3:] = 0, 255
    return image


def strength(operation: str, magnitude: int, height: int, width: int) -> float:
    """The number that torchvision's operation takes, from ours."""
    ours = OPERATIONS[operation] * magnitude / (MAGNITUDES - 1)
    words = {"TranslateX": width * ours, "TranslateY": height * ours, "Posterize": 8 - round(ours)}
    return words.get(operation, (255 - ours) / 255 if operation == "Solarize" else ours)


def pillows(operation: str, strength: float, image: Tensor) -> Tensor:
    """What torchvision does with a PIL image."""
    theirs = v2.RandAugment()
    pil = transforms.to_pil_image(image)
    changed = theirs._apply_image_or_video_transform(pil, operation, strength, theirs.interpolation, theirs._fill)
    return transforms.pil_to_tensor(changed)


def test_the_menu_is_torchvisions() -> None:
    assert [*OPERATIONS] == [*TORCHVISION]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_magnitudes_are_torchvisions(operation: str) -> None:
    levels = TORCHVISION[operation][0](MAGNITUDES, 41, 24)  # of each magnitude
    assert (levels is None) == (OPERATIONS[operation] == 0)
    if levels is not None:
        ours = [float(strength(operation, magnitude, 41, 24)) for magnitude in range(MAGNITUDES)]
        torch.testing.assert_close(torch.tensor(ours), levels.float())  # linspace rounds as the processor likes


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_operation_equals_pillows(operation: str, shape: tuple[int, int, int]) -> None:
    image = picture(*shape)
    for magnitude in range(MAGNITUDES):
        changed = apply(image.expand(2, -1, -1, -1), 2 * NUMBERS[operation] + torch.tensor([0, 1]), magnitude)
        for got, sign in zip(changed, (1, -1) if TORCHVISION[operation][1] else (1, 1), strict=True):
            expected = pillows(operation, sign * strength(operation, magnitude, *shape[1:]), image)
            assert torch.equal(got, expected), f"magnitude {sign * magnitude}"


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_it_equals_pillows_for_one_colour_and_few_pixels(operation: str, size: int) -> None:
    images = torch.stack([torch.full((3, size, size), 90), 255 * torch.eye(size).expand(3, -1, -1)]).to(torch.uint8)
    changed = apply(images, 2 * NUMBERS[operation] + torch.tensor([0, 0]), 20)
    for got, image in zip(changed, images, strict=True):
        assert torch.equal(got, pillows(operation, strength(operation, 20, size, size), image))


def test_one_batch_holds_all_operations() -> None:
    image = picture(3, 32, 32)
    drawn = torch.arange(2 * len(OPERATIONS))
    together = apply(image.expand(len(drawn), -1, -1, -1), drawn, 14)
    alone = [apply(image[None], number[None], 14)[0] for number in drawn]
    assert torch.equal(together, torch.stack(alone))


def test_operations_and_signs_are_drawn_for_each_image_and_uniformly() -> None:
    image, count = picture(3, 17, 16).clamp(10, 240), 2800
    possible = apply(image.expand(28, -1, -1, -1), torch.arange(28), 30).flatten(1)
    alike = (possible[:, None] == possible).all(2)  # (28, 28): both signs of an operation that has none
    assert len(alike.unique(dim=0)) == sum(1 + signed for _, signed in TORCHVISION.values())
    torch.manual_seed(0)
    changed = randaugment(image.expand(count, -1, -1, -1), 1, 30).flatten(1)
    times = (changed[:, None] == possible).all(2).sum(0)
    expected = count / 28 * alike.sum(1)
    assert ((times - expected).abs() < 4 * expected.sqrt()).all()


def test_two_layers_are_one_after_the_other() -> None:
    images = picture(3, 16, 16).expand(64, -1, -1, -1)
    torch.manual_seed(0)
    changed = randaugment(images, 2, 30)
    torch.manual_seed(0)
    first, second = torch.randint(2 * len(OPERATIONS), (2, 64))
    assert torch.equal(changed, apply(apply(images, first, 30), second, 30))
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 30  # one layer makes 23 at most


def test_no_layer_changes_nothing() -> None:
    images = picture(3, 8, 8).expand(4, -1, -1, -1)
    assert torch.equal(randaugment(images, 0, 30), images)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_magnitude_0_changes_nothing_where_there_is_a_magnitude(operation: str) -> None:
    image = picture(3, 32, 32).clamp(max=254)  # Solarize inverts 255 even then, in torchvision too
    (changed,) = apply(image[None], torch.tensor([2 * NUMBERS[operation]]), 0)
    assert torch.equal(changed, image) == (operation not in ("AutoContrast", "Equalize"))
