"""Scale: measures what a classifier loses when the content of an image shrinks or grows within the same frame."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vitbench.probes.distorted import Distort, accuracy_curve, resized
from vitbench.probes.subject import Row, Subject


def probe(subject: Subject, *, seed: int) -> list[Row]:
    """Measures accuracy on images scaled about their centre, then cut or padded by reflection to the size they had.

    The factors are 1/2 to 2 in quarters of an octave. An image is resized to the nearest whole number of pixels
    (bicubic, anti-aliased where it shrinks), and `at` is the resulting factor: 19/32 = 0.594 for 0.595 at 32 px. If the
    margin is odd, its larger part is at the right and below. There is no mask as in `rotation`, because no corner turns
    into view. `area` is over log2 of the factor.
    """
    size = subject.images.shape[-1]
    levels: dict[float, list[Distort]] = {1.0: []}
    for inner in sorted({round(size * 2 ** (quarter / 4)) for quarter in range(-4, 5)} - {size}):
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
