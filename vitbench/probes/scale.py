"""Scale: what a classifier loses when the content of an image shrinks or grows and its frame stays."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from vitbench.errors import UserError
from vitbench.probes.distorted import Distort, accuracy_curve, resized
from vitbench.probes.subject import Row, Subject


def probe(subject: Subject, *, seed: int, limit: float = 2.0) -> list[Row]:
    """Measures accuracy on images enlarged about their centre, then cut or padded by reflection to the size they had.

    The factors are 1/`limit` to `limit` in quarters of an octave. An image is resized to the nearest whole number of
    pixels (bicubic, anti-aliased where it shrinks), and `at` is the factor which that makes: 19/32 = 0.594 for 0.595 at
    32 px. Where the margin is odd, its larger part is right and below. There is no mask as in `rotation`, because no
    corner turns into view. `area` is over log2 of the factor.
    """
    size = subject.images.shape[-1]
    if not 1.18 <= limit <= 2:
        raise UserError(f"probe.scale.limit={limit:g}: must be 1.19 (a quarter of an octave) to 2")
    quarters = int(4 * math.log2(limit) + 0.01)  # of an octave, as many as fit
    levels: dict[float, list[Distort]] = {1.0: []}
    for inner in sorted({round(size * 2 ** (quarter / 4)) for quarter in range(-quarters, quarters + 1)} - {size}):
        levels[inner / size] = [zoom(inner)]
    return accuracy_curve(subject, "scale@v1", levels, seed=seed, at_unit="times", reference=1.0, octaves=True)


def zoom(inner: int) -> Distort:
    """Resizes images to `inner` px in a frame of the size they had."""

    def distort(images: Tensor) -> Tensor:
        size = images.shape[-1]
        content = resized(images, inner)
        if inner > size:
            cut = (inner - size) // 2
            return content[:, :, cut : cut + size, cut : cut + size]
        before, after = (size - inner) // 2, size - inner - (size - inner) // 2
        return F.pad(content, (before, after, before, after), mode="reflect")

    return distort
