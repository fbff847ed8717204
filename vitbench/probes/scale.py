"""Scale: accuracy against the size of what is in the image, in a frame that stays."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from vitbench.errors import UserError
from vitbench.probes.distorted import Distort, accuracy_curve, resized
from vitbench.probes.subject import Row, Subject


def probe(subject: Subject, *, seed: int, limit: float = 2.0) -> list[Row]:
    """Every image is enlarged about its centre by a factor, and cut or padded by reflection to the size it had.

    Factors are 1/`limit` to `limit` in quarters of an octave. An image is resized to the nearest whole number of pixels
    (bicubic, anti-aliased where it shrinks) and `at` is the factor that this is: 19/32 = 0.594 for 0.595 at 32 px. Where
    the margin is odd, the larger part is right and below. No mask: no corner turns into view here. `area` is over log2
    of the factor.
    """
    size = subject.images.shape[-1]
    if not 1.18 <= limit <= 2:
        raise UserError(f"probe.scale.limit={limit:g}: must be 1.19 (a quarter of an octave) to 2")
    quarters = int(4 * math.log2(limit) + 0.01)  # as many as fit
    levels: dict[float, list[Distort]] = {1.0: []}
    for inner in sorted({round(size * 2 ** (quarter / 4)) for quarter in range(-quarters, quarters + 1)} - {size}):
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
