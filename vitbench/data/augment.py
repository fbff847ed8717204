"""Augmentation of whole batches on the device.

torchvision's v2 transforms draw once for a batch. So crop, flip, rotation and scale are our own and draw for each
image, and torchvision's RandAugment runs on chunks of a few images, which share a draw. MixUp and CutMix draw one ratio
for a batch, as in timm and DeiT.
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
    """Crops each image, padded by reflection, at a random place and mirrors half of them; (B, C, H, W) uint8.

    This equals a random cut from `F.pad(images, 4 * [padding], mode="reflect")`, but builds no padded image: a pixel
    outside the image is read from the place that it reflects.
    """
    B, channels, height, width = images.shape
    device = images.device
    offsets = 2 * padding + 1
    top = torch.randint(0, offsets, (B,), device=device)
    left = torch.randint(0, offsets, (B,), device=device)
    if flip:
        left += offsets * (torch.rand(B, device=device) < 0.5)  # the table's second half is mirrored
    rows = _sources(height, padding, device)[:offsets].mul(width).index_select(0, top)  # (B, H)
    columns = _sources(width, padding, device).index_select(0, left)  # (B, W)
    pixels = rows[:, :, None] + columns[:, None, :]  # (B, H, W), indices into the flattened image
    index = pixels.flatten(1)[:, None].expand(-1, channels, -1)  # (B, C, H W)
    return images.flatten(2).gather(2, index).view_as(images)


@cache
def _sources(size: int, padding: int, device: torch.device) -> Tensor:
    """Which row of the image each row of a crop is read from, (2 (2P + 1), size).

    The first half has a line for each offset -padding..padding, the second half the same lines mirrored. Rows outside
    the image are reflected without repeating the border: -1 -> 1 and size -> size - 2.
    """
    rows = torch.arange(-padding, padding + 1, device=device)[:, None] + torch.arange(size, device=device)
    rows = (size - 1) - ((size - 1) - rows.abs()).abs()
    return torch.cat([rows, rows.flip(1)])


def turn_and_scale(images: Tensor, degrees: Tensor, factors: Tensor) -> Tensor:
    """Turns each image (B, C, H, H) uint8 about its centre, counter-clockwise by degrees (B,), and enlarges it by (B,).

    The interpolation is bilinear. As in a crop, the image continues by reflection without repeating its border.
    """
    angles = degrees.float() * (math.pi / 180)
    cos, sin = angles.cos() / factors, angles.sin() / factors
    zero = torch.zeros_like(cos)
    # affine_grid asks where each new pixel is read from: it takes the inverse, in half widths with y downwards
    inverse = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(inverse, list(images.shape), align_corners=True)
    turned = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=True)
    return turned.round_().clamp_(0, 255).to(torch.uint8)


class Augment:
    """The settings of `conf/augment/*.yaml` as two steps: `pixels` before images are normalised, `mix` after."""

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
            from torchvision.transforms import v2  # the import takes 2.6 s

            if randaugment:
                self._operations = v2.RandAugment(randaugment, magnitude)
            if mixup:
                self._mixes.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
            if cutmix:
                self._mixes.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))

    def pixels(self, images: Tensor) -> Tensor:
        """Turns, scales, crops, mirrors and RandAugments uint8 images (B, C, H, W), which keep shape and type.

        Angles are uniform in -rotate..rotate. The logarithm of the scale factor is uniform, so that factors from
        1/(1 + scale) to 1 + scale are above 1 as often as below. One interpolation applies both.
        """
        if self.rotate or self.scale:
            angles, log_factors = (2 * torch.rand(2, len(images), device=images.device) - 1).unbind()
            images = turn_and_scale(images, angles * self.rotate, (log_factors * math.log1p(self.scale)).exp())
        if self.padding or self.flip:
            images = crop_and_flip(images, self.padding, self.flip)
        if self._operations is not None:
            images = torch.cat([self._operations(chunk) for chunk in images.split(CHUNK)])
        return images

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mixes float images (B, C, H, W) by MixUp or CutMix; labels (B,) then become shares of the classes (B, K)."""
        if not self._mixes:
            return images, labels
        drawn = int(torch.randint(len(self._mixes), (1,)))
        return self._mixes[drawn](images, labels)
