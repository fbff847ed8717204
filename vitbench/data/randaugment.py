"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719), drawn for each image of a batch on the device of the images.

It computes the same as torchvision's `v2.RandAugment` on PIL images, with nearest-neighbour interpolation and black
beyond the border. Each layer draws one of 14 operations, uniformly and with replacement, and a random sign if the
operation has two; the magnitude is one of 31. Each operation equals Pillow's to the bit, because it uses Pillow's
integer and rounding formulas. torchvision rounds magnitudes to float32 in a way that depends on the processor; they are
not rounded here.

There are three kinds of operations: `_move` reads pixels from other places, `_blend` moves an image away from a version
without colour, contrast or the like, and `_look_up` replaces the values of a channel by a table. Each kind is applied
to the whole batch, with parameters that change nothing in images whose operation is of another kind.

Other implementations differ:
- timm's `rand-m9-mstd0.5-inc1` (DeiT's; timm 1.0.31) has Invert and SolarizeAdd in place of Identity, and applies each
  drawn operation with probability 1/2. Its magnitude 9 is of 10, with a standard deviation of 0.5 between images. So it
  rotates by 27 degrees where we rotate by 9, and Posterize keeps one or two bits where we keep seven. DeiT interpolates
  bicubically and fills with the mean colour.
- big_vision's `randaug` (pp/archive) has Invert, SolarizeAdd and Cutout in place of Identity, and fills with grey. Its
  magnitudes are of 10, too, and may be larger. Brightness, Color, Contrast and Sharpness have no sign; their factor is
  0.1 at magnitude 0 and 1.9 at 10. Posterize and Solarize get weaker with a larger magnitude.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

OPERATIONS = {  # the strength of each at magnitude 30; it is proportional to the magnitude
    "Identity": 0.0,
    "ShearX": 0.3,  # horizontal pixels per vertical pixel
    "ShearY": 0.3,
    "TranslateX": 150 / 331,  # share of the width, rounded down to whole pixels
    "TranslateY": 150 / 331,
    "Rotate": 30.0,  # degrees
    "Brightness": 0.9,  # the factor is 1 plus or minus this
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
    "Posterize": 4.0,  # number of bits that are dropped, rounded
    "Solarize": 255.0,  # number of values, from 255 down, that are inverted
    "AutoContrast": 0.0,
    "Equalize": 0.0,
}
NUMBERS = {operation: number for number, operation in enumerate(OPERATIONS)}
MAGNITUDES = 31
VALUES = 256  # number of values of a pixel


def randaugment(images: Tensor, layers: int, magnitude: int) -> Tensor:
    """Applies as many random operations as there are layers to each image, one after the other.

    Images are (B, C, H, W) uint8 with one or three channels. The magnitude is 0 to 30. Nothing is drawn on the host.
    """
    for drawn in torch.randint(2 * len(OPERATIONS), (layers, len(images)), device=images.device).unbind():
        images = apply(images, drawn, magnitude)
    return images


def apply(images: Tensor, drawn: Tensor, magnitude: int) -> Tensor:
    """Applies operation number `drawn // 2` to each image, with a plus where `drawn` (B,) is even, else with a minus.

    An operation without a sign ignores it.
    """
    parameters = _parameters(magnitude, *images.shape[2:], images.device, fake_mode(images))
    matrices, factors, tables = (values.index_select(0, drawn) for values in parameters)
    operations = drawn // 2
    images = _move(images, matrices)
    images = _blend(images, operations, factors)
    return _look_up(images, operations, tables)


def fake_mode(images: Tensor) -> Any:
    """Returns the mode that made a FakeTensor, None for a real tensor. Cached tables are valid within one mode only."""
    return getattr(images, "fake_mode", None)


class Parameters(NamedTuple):
    """The parameters of the 14 operations, each with a plus and then with a minus: 28 rows."""

    matrices: Tensor  # (28, 6) int64, for `_move`, in units of 1/65536 pixel
    factors: Tensor  # (28,) float32, for `_blend`
    tables: Tensor  # (28, 256) uint8, for `_look_up`


@cache
def _parameters(magnitude: int, height: int, width: int, device: torch.device, mode: Any = None) -> Parameters:
    """Returns the parameters of all operations at one magnitude, for images of one size."""

    matrices, factors, tables = [], [], []
    for operation, strongest in OPERATIONS.items():
        for sign in (1, -1):
            strength = strongest * magnitude / (MAGNITUDES - 1)
            a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0  # (x, y) is read from (a x + b y + c, d x + e y + f)
            factor = 1.0
            table = list(range(VALUES))
            match operation:
                case "ShearX":
                    b = sign * strength
                case "ShearY":
                    d = sign * strength
                case "TranslateX":
                    c = -sign * int(strength * width)
                case "TranslateY":
                    f = -sign * int(strength * height)
                case "Rotate":  # counter-clockwise, about the centre
                    angle = math.radians(sign * strength)
                    a, b, d, e = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
                    c, f = (width - a * width - b * height) / 2, (height - d * width - e * height) / 2
                case "Brightness" | "Color" | "Contrast" | "Sharpness":
                    factor = 1 + sign * strength
                case "Posterize":
                    table = [value >> round(strength) << round(strength) for value in table]
                case "Solarize":
                    table = [value if value < 255 - strength else 255 - value for value in table]
            matrix = a, b, c + (a + b) / 2, d, e, f + (d + e) / 2  # for the centre of pixel (x, y), as in Pillow
            matrices.append([math.floor(65536 * entry + 0.5) for entry in matrix])
            factors.append(factor)
            tables.append(table)
    return Parameters(
        torch.tensor(matrices, device=device),
        torch.tensor(factors, dtype=torch.float32, device=device),
        torch.tensor(tables, dtype=torch.uint8, device=device),
    )


def _move(images: Tensor, matrices: Tensor) -> Tensor:
    """Reads each pixel from the place that its image's matrix (B, 6) gives; beyond the border, everything is black.

    As in Pillow, coordinates are whole multiples of 1/65536 pixel, and rounding them down gives the nearest pixel.
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    a, b, c, d, e, f = matrices.T[:, :, None, None]  # (B, 1, 1) each
    x, y = (a * columns + b * rows + c) >> 16, (d * columns + e * rows + f) >> 16  # (B, H, W)
    inside = ((x >= 0) & (x < width) & (y >= 0) & (y < height)).flatten(1)[:, None]  # (B, 1, H W)
    index = (y * width + x).flatten(1)[:, None] * inside
    moved = images.flatten(2).gather(2, index.expand(-1, images.shape[1], -1)) * inside
    return moved.view_as(images)


def _blend(images: Tensor, operations: Tensor, factors: Tensor) -> Tensor:
    """Returns D + factor (image - D), rounded down, with D the image without the property that the operation changes.

    D is black for brightness, the grey image for colour, the mean of the grey image for contrast, and the smoothed
    image for sharpness. Operations and factors are (B,).
    """
    pixels = images.float()  # float32 is exact here, because all numbers are whole and below 2^24
    operations, factors = operations.view(-1, 1, 1, 1), factors.view(-1, 1, 1, 1)
    grey = pixels
    if images.shape[1] == 3:
        red, green, blue = pixels.split(1, 1)
        grey = ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()  # (B, 1, H, W), ITU-R 601-2
    count = grey[0].numel()
    mean = (2 * grey.sum((1, 2, 3), keepdim=True, dtype=torch.int64) + count) // (2 * count)  # rounded
    degenerate = (mean * (operations == NUMBERS["Contrast"])).float()
    degenerate = torch.where(operations == NUMBERS["Color"], grey, degenerate)
    degenerate = torch.where(operations == NUMBERS["Sharpness"], _smooth(pixels), degenerate)
    return (pixels - degenerate).mul_(factors).add_(degenerate).clamp_(0, 255).to(torch.uint8)


def _smooth(pixels: Tensor) -> Tensor:
    """Returns the rounded mean of each pixel, with weight 5, and its 8 neighbours. The border stays as it is."""
    across = pixels[..., :-2] + pixels[..., 1:-1] + pixels[..., 2:]
    square = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    smooth = pixels.clone()
    smooth[..., 1:-1, 1:-1] = ((square + 4 * pixels[..., 1:-1, 1:-1] + 6.5) / 13).floor()
    return smooth


def _look_up(images: Tensor, operations: Tensor, tables: Tensor) -> Tensor:
    """Replaces each value by its image's table (B, 256); AutoContrast and Equalize have a table for each channel."""
    B, channels = images.shape[:2]
    values = torch.arange(VALUES, dtype=torch.uint8, device=images.device)
    lines = torch.arange(0, B * channels * VALUES, VALUES, device=images.device).view(B, channels, 1)
    bins = (images.flatten(2) + lines).flatten()  # (B C H W), places in a table of 256 values for each channel
    darkest, lightest = (extreme.long() for extreme in images.flatten(2).aminmax(dim=2, keepdim=True))  # (B, C, 1)

    span = (lightest - darkest).clamp(min=1).double()
    scale = torch.full_like(span, 255) / span  # dividing a Python number by a tensor would round twice
    stretched = (values * scale - darkest * scale).clamp(0, 255).to(torch.uint8)  # AutoContrast, (B, C, 256)
    stretched = torch.where(lightest > darkest, stretched, values)

    counts = torch.zeros(B * channels * VALUES, dtype=torch.int64, device=images.device)
    counts = counts.scatter_add_(0, bins, counts.new_ones(1).expand_as(bins)).view(B, channels, VALUES)
    step = (images[0, 0].numel() - counts.gather(2, lightest)) // 255  # number of pixels from one value to the next
    below = counts.cumsum(2) - counts
    equalized = ((below + step // 2) // step.clamp(min=1)).clamp(max=255).to(torch.uint8)  # Equalize, (B, C, 256)
    equalized = torch.where(step > 0, equalized, values)

    operations = operations.view(-1, 1, 1)
    table = torch.where(operations == NUMBERS["AutoContrast"], stretched, tables[:, None])
    table = torch.where(operations == NUMBERS["Equalize"], equalized, table)
    return table.flatten().index_select(0, bins).view_as(images)
