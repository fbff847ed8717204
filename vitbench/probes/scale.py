"""Scale: accuracy against the size of what is in the image, in a frame that stays."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from vitbench.probes.distorted import Distort, accuracy_curve, resized
from vitbench.probes.subject import Row, Subject


def probe(subject: Subject, *, seed: int) -> list[Row]:
    """Every image is enlarged about its centre by a factor, and cut or padded by reflection to the size it had.

    Factors are 1/2 to 2 in quarters of an octave. An image is resized to the nearest whole number of pixels
    (bicubic, anti-aliased where it shrinks) and `at` is the factor that this is: 19/32 = 0.594 for 0.595 at 32 px. Where
    the margin is odd, the larger part is right and below. No mask: no corner turns into view here. `area` is over log2
    of the factor.
    """
    size = subject.images.shape[-1]
    levels: dict[float, list[Distort]] = {1.0: []}
    for inner in sorted({round(size * 2 ** (quarter / 4)) for quarter in range(-4, 5)} - {size}):
        levels[inner / size] = [zoom(inner)]
    return accuracy_curve(subject, "scale@v1", levels, seed=seed, at_unit="times", reference=1.0, octaves=True)


def zoom(inner: int) -> Distort:
    """Resizes images to `inner` px, in a frame of the size they had."""

    def distort(images: Tensor) -> Tensor:
        size = images.shape[-1]
        margin = size - inner  # negative where the frame cuts
        before = margin // 2 if margin > 0 else -(-margin // 2)
        smaller = resized(images, inner)
        if margin < 0:
            return smaller[:, :, -before : size - before, -before : size - before]
        return F.pad(smaller, (before, margin - before, before, margin - before), mode="reflect")

    return distort
