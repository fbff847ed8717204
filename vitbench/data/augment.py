"""Augments whole batches on the device.

torchvision's v2 transforms draw their random numbers once per batch, on the host. The functions here draw for each
image; MixUp and CutMix draw one ratio per batch, as in timm and DeiT. All of them draw on the device of the images and
read nothing back, so a GPU can record a step once and replay it. The exception is RandAugment with `draw="chunk"`,
which is torchvision's code: a few images share a draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Gamma
from torch.nn import functional as F

from vitbench.data.randaugment import fake_mode, randaugment

CHUNK = 8  # number of images that share a draw of RandAugment's operations with draw="chunk"


def crop_and_flip(images: Tensor, padding: int, flip: bool) -> Tensor:
    """Shifts each uint8 image (B, C, H, W) by a random offset and mirrors a random half of them.

    The result is a random crop of `F.pad(images, 4 * [padding], mode="reflect")`, but no padded image is built: a pixel
    outside the image is read from the place that it reflects.
    """
    B, channels, height, width = images.shape
    device = images.device
    offsets = 2 * padding + 1
    top = torch.randint(0, offsets, (B,), device=device)
    left = torch.randint(0, offsets, (B,), device=device)
    if flip:
        left += offsets * (torch.rand(B, device=device) < 0.5)  # the second half of the table has the mirrored rows
    mode = fake_mode(images)
    rows = _sources(height, padding, device, mode)[:offsets].mul(width).index_select(0, top)  # (B, H)
    columns = _sources(width, padding, device, mode).index_select(0, left)  # (B, W)
    pixels = rows[:, :, None] + columns[:, None, :]  # (B, H, W), indices into the flattened image
    index = pixels.flatten(1)[:, None].expand(-1, channels, -1)  # (B, C, H W)
    return images.flatten(2).gather(2, index).view_as(images)


@cache
def _sources(size: int, padding: int, device: torch.device, mode: Any = None) -> Tensor:
    """Returns for each offset the rows of the image that the rows of a crop are read from, (2 (2P + 1), size).

    The first half has a line for each offset -P..P, with P = `padding`, and the second half has the same lines
    mirrored. Rows outside the image are reflected without repeating the border: -1 -> 1 and size -> size - 2.
    """
    rows = torch.arange(-padding, padding + 1, device=device)[:, None] + torch.arange(size, device=device)
    rows = (size - 1) - ((size - 1) - rows.abs()).abs()
    return torch.cat([rows, rows.flip(1)])


def turn_and_scale(images: Tensor, degrees: Tensor, factors: Tensor) -> Tensor:
    """Rotates each uint8 image (B, C, H, H) about its centre and enlarges it by a factor.

    `degrees` (B,) are counter-clockwise, `factors` are (B,). The interpolation is bilinear. Beyond its border, the
    image continues by reflection without repeating the border, as in `crop_and_flip`.
    """
    angles = degrees.float() * (math.pi / 180)
    cos, sin = angles.cos() / factors, angles.sin() / factors
    zero = torch.zeros_like(cos)
    # affine_grid takes the inverse map, from a new pixel to its source, in half widths with y downwards.
    inverse = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(inverse, list(images.shape), align_corners=True)
    turned = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=True)
    return turned.round_().clamp_(0, 255).to(torch.uint8)


def crop_and_resize(images: Tensor, area: float) -> Tensor:
    """Crops a random part of each image, with `area` to 1 of its area, and enlarges it to the image's size.

    Images are uint8 (B, C, H, W); the result is float, 0 to 255.

    Area and place are uniform. The ratio of width to height is 3/4 to 4/3, uniform in its logarithm, as in
    torchvision's RandomResizedCrop (Szegedy et al. 2015, arXiv 1409.4842, section 6). There are two differences. If a
    side would be longer than the image's, torchvision draws area and ratio again, at most ten times, and then takes the
    centre; here such a side is cut to the image's, so the area is smaller than drawn. And torchvision crops whole
    pixels; here a crop may begin and end within a pixel.
    """
    B, device = len(images), images.device

    def uniform(low: float, high: float) -> Tensor:  # (B,)
        return low + (high - low) * torch.rand(B, device=device)

    shown, ratio = uniform(area, 1), uniform(-math.log(4 / 3), math.log(4 / 3)).exp()
    width, height = ((shown * factor).sqrt().clamp(max=1) for factor in (ratio, 1 / ratio))  # the image's are 1
    part = torch.zeros(B, 2, 3, device=device)
    part[:, 0, 0], part[:, 0, 2] = width, (1 - width) * uniform(-1, 1)
    part[:, 1, 1], part[:, 1, 2] = height, (1 - height) * uniform(-1, 1)
    grid = F.affine_grid(part, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def erase(images: Tensor, probability: float) -> Tensor:
    """Fills a random rectangle of each normalised image (B, C, H, W), with this probability, with normal noise.

    This is random erasing (Zhong et al. 2017, arXiv 1708.04896) as in DeiT, which uses timm's `pixel` mode. The
    rectangle has 0.02 to 1/3 of the area and a ratio of height to width from 0.3 to 1/0.3, uniform in its logarithm, at
    a uniform place. If a side would not be shorter than the image's, timm draws again; here it becomes one pixel
    shorter than the image's (fewer than 1 in 100 rectangles).
    """
    B, _, height, width = images.shape
    chosen, share, tilt, above, before = torch.rand(5, B, 1, 1, 1, device=images.device)
    area = (0.02 + (1 / 3 - 0.02) * share) * (height * width)
    ratio = ((2 * tilt - 1) * math.log(1 / 0.3)).exp()
    tall = (area * ratio).sqrt().round().clamp(max=height - 1)
    wide = (area / ratio).sqrt().round().clamp(max=width - 1)
    top, left = (above * (height - tall + 1)).floor(), (before * (width - wide + 1)).floor()
    erased = _rectangle(images, top, top + tall, left, left + wide) & (chosen < probability)  # (B, 1, H, W)
    return torch.where(erased, torch.randn_like(images), images)


def mixup_or_cutmix(
    images: Tensor, labels: Tensor, mixup: float, cutmix: float, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Mixes each image (B, C, H, W) with the one before it; labels (B,) become shares of the classes (B, K).

    With w ~ Beta(alpha, alpha), MixUp (Zhang et al. 2018, arXiv 1710.09412) is w x + (1 - w) x'. CutMix (Yun et al.
    2019, arXiv 1905.04899, section 3.1) replaces w by a map that is 0 in a random box and 1 elsewhere. The box has 1 -
    w of the area, less the part beyond the border, and the label gets the share of the image that is left. If both
    alphas are above 0, one of the two is drawn for the batch.

    On a CPU the numbers are those of torchvision's v2.MixUp and v2.CutMix, to the bit. If both are on, a box is drawn
    even when MixUp is chosen, because the host does not know the choice. Drop path, which draws later in the step, then
    gets other numbers than after v2.MixUp.
    """
    height, width = images.shape[2:]
    device = images.device
    cuts = torch.randint(2 if mixup and cutmix else 1, (1,), device=device) == (1 if mixup else 0)
    alpha = torch.where(cuts, cutmix, mixup).double().expand(2)
    # This is torch's Beta, written out, because its sampler cannot run on FakeTensors.
    gamma = Gamma(alpha, torch.ones_like(alpha), validate_args=False).sample()
    weight = (gamma[:1] / gamma.sum()).float().clamp(torch.finfo(torch.float32).tiny, 1 - 2**-24)
    share = weight.double()  # of the image's own class
    if cutmix:
        x, y = torch.randint(width, (1,), device=device), torch.randint(height, (1,), device=device)
        half = 0.5 * (1 - share).sqrt()  # half the side of the box, as a share of the image's side
        half_width, half_height = (half * width).long(), (half * height).long()
        left, right = (x - half_width).clamp(min=0), (x + half_width).clamp(max=width)
        top, bottom = (y - half_height).clamp(min=0), (y + half_height).clamp(max=height)
        box = _rectangle(images, top, bottom, left, right)
        weight = torch.where(cuts, (~box).float(), weight)  # (H, W)
        share = torch.where(cuts, 1 - ((right - left) * (bottom - top)).double() / (width * height), share)
    shares = (labels[:, None] == torch.arange(num_classes, device=device)).float()
    mixed = images.roll(1, 0).mul_(1 - weight).add_(images * weight)
    return mixed, shares.roll(1, 0).mul_((1 - share).float()).add_(shares * share.float())


def _rectangle(images: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Returns a mask (..., H, W) of the rows top to bottom - 1 and the columns left to right - 1."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


class Augment:
    """Applies the settings of `conf/augment/*.yaml` in two steps: `pixels` before normalisation, and `mix` after it.

    A CUDA graph can record both, unless RandAugment has `draw="chunk"`.
    """

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
        draw: str = "chunk",
        area: float = 1.0,
        erase: float = 0.0,
    ):
        self.padding = min(round(crop * image_size), image_size - 1)
        self.flip = flip
        self.area, self.rotate, self.scale, self.erase = area, rotate, scale, erase
        self.mixup, self.cutmix, self.num_classes = mixup, cutmix, num_classes
        self.layers, self.magnitude = randaugment, magnitude
        self._in_chunks = _in_chunks(randaugment, magnitude) if randaugment and draw == "chunk" else None

    def pixels(self, images: Tensor) -> Tensor:
        """Augments uint8 images (B, C, H, W), which keep their shape and type.

        The operations follow each other in this order: random crop (`area`), rotation and scale, shift (`crop`),
        mirroring, RandAugment. Each one works on the result of the one before. Angles are uniform in -rotate..rotate.
        The logarithm of the scale factor is uniform, so factors from 1/(1 + scale) to 1 + scale are above 1 as often as
        below. Rotation and scale share one interpolation.
        """
        if self.area < 1:
            images = crop_and_resize(images, self.area).round_().to(torch.uint8)
        if self.rotate or self.scale:
            angles, log_factors = (2 * torch.rand(2, len(images), device=images.device) - 1).unbind()
            images = turn_and_scale(images, angles * self.rotate, (log_factors * math.log1p(self.scale)).exp())
        if self.padding or self.flip:
            images = crop_and_flip(images, self.padding, self.flip)
        if self._in_chunks is not None:
            images = self._in_chunks(images)
        elif self.layers:
            images = randaugment(images, self.layers, self.magnitude)
        return images

    @property
    def mixes(self) -> bool:
        """Whether `mix` turns labels into shares of classes."""
        return bool(self.mixup or self.cutmix)

    def mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Erases parts of normalised images (B, C, H, W), then mixes them by MixUp or CutMix, as DeiT does.

        If images are mixed, labels (B,) become shares of the classes (B, K).
        """
        if self.erase:
            images = erase(images, self.erase)
        if self.mixes:
            return mixup_or_cutmix(images, labels, self.mixup, self.cutmix, self.num_classes)
        return images, labels


def _in_chunks(layers: int, magnitude: int) -> Callable[[Tensor], Tensor]:
    """Returns torchvision's RandAugment, which draws on the host, once for each chunk of images."""
    from torchvision.transforms import v2  # the import takes 2.6 s

    operations = v2.RandAugment(layers, magnitude)
    return lambda images: torch.cat([operations(chunk) for chunk in images.split(CHUNK)])
