"""Augmentation of whole batches on the device.

Crop, flip, rotation and scale are drawn for each image and are our own, because torchvision's v2 transforms draw once a batch. For the
same reason its RandAugment runs on chunks of a few images, which share a draw. MixUp and CutMix draw one mixing share a
batch, as in timm and DeiT.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK = 8  # images that share RandAugment's draw of operations


def crop_and_flip(images: Tensor, padding: int, flip: bool) -> Tensor:
    """A random crop of the image padded by reflection, and a mirror image half of the time; (B, C, H, W) uint8.

    The padding is never made: a pixel outside is read from where it reflects to. Equal to
    `F.pad(images, 4 * [padding], mode="reflect")` cut at a random place.
    """
    size_b, channels, height, width = images.shape
    device = images.device
    top = torch.randint(0, 2 * padding + 1, (size_b,), device=device)
    left = torch.randint(0, 2 * padding + 1, (size_b,), device=device)
    if flip:  # the second half of the table of columns
        left += (2 * padding + 1) * (torch.rand(size_b, device=device) < 0.5)
    rows = _places(height, padding, device)[: 2 * padding + 1].mul(width).index_select(0, top)  # (B, H)
    columns = _places(width, padding, device).index_select(0, left)  # (B, W)
    pixels = rows[:, :, None] + columns[:, None, :]  # (B, H, W), places in the flattened image
    index = pixels.flatten(1)[:, None].expand(-1, channels, -1)  # (B, C, H W)
    return images.flatten(2).gather(2, index).view_as(images)


@cache
def _places(size: int, padding: int, device: torch.device) -> Tensor:
    """Where a crop reads each of its rows, for every offset -padding..padding and then mirrored; (2 (2P + 1), size).

    Outside the image it is reflected without repeating the border: -1 -> 1 and size -> size - 2.
    """
    place = torch.arange(-padding, padding + 1, device=device)[:, None] + torch.arange(size, device=device)
    place = (size - 1) - ((size - 1) - place.abs()).abs()
    return torch.cat([place, place.flip(1)])


def turn_and_scale(images: Tensor, degrees: Tensor, factors: Tensor) -> Tensor:
    """Each image turned about its centre, counter-clockwise, and enlarged; (B, C, H, H) uint8, (B,) and (B,).

    Bilinear; what lies outside is reflected without repeating the border, as in a crop.
    """
    angles = degrees.float() * (math.pi / 180)
    cos, sin = angles.cos() / factors, angles.sin() / factors
    zero = torch.zeros_like(cos)
    # where each pixel is read from: the way back, in half widths with y downwards
    back = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(back, list(images.shape), align_corners=True)
    moved = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=True)
    return moved.round_().clamp_(0, 255).to(torch.uint8)


class Augment:
    """Settings of `conf/augment/*.yaml` as two functions: one on uint8 images, one on normalised images and labels."""

    def __init__(
        self,
        *,
        num_classes: int,
        image_size: int,
        crop: float,
        flip: bool,
        randaugment: int,
        magnitude: int,
        mixup: float,
        cutmix: float,
        rotate: float = 0.0,
        scale: float = 0.0,
    ):
        self.padding = min(round(crop * image_size), image_size - 1)
        self.flip = flip
        self.rotate, self.scale = rotate, scale
        self._operations: Callable[[Tensor], Tensor] | None = None
        self._mixes: list[Any] = []
        if randaugment or mixup or cutmix:
            from torchvision.transforms import v2  # 2.6 s to import

            if randaugment:
                self._operations = v2.RandAugment(randaugment, magnitude)
            if mixup:
                self._mixes.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
            if cutmix:
                self._mixes.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))

    def pixels(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> the same.

        Angles are uniform in -rotate..rotate. Factors are as often above 1 as below, uniform in their logarithm from
        1/(1 + scale) to 1 + scale. Both are applied in one interpolation, before crop and flip.
        """
        if self.rotate or self.scale:
            angles, steps = (2 * torch.rand(2, len(images), device=images.device) - 1).unbind()
            images = turn_and_scale(images, angles * self.rotate, (steps * math.log1p(self.scale)).exp())
        if self.padding or self.flip:
            images = crop_and_flip(images, self.padding, self.flip)
        if self._operations is not None:
            images = torch.cat([self._operations(chunk) for chunk in images.split(CHUNK)])
        return images

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """float (B, C, H, W) and (B,) -> the same, or labels as shares of the classes (B, K) where images were mixed."""
        if not self._mixes:
            return images, labels
        chosen = int(torch.randint(len(self._mixes), (1,)))
        return self._mixes[chosen](images, labels)
