"""Corruptions: measures what a classifier loses under noise, blur, lower contrast, brightness and JPEG, in five
severities.

They follow CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv 1903.12261). `torchvision.transforms.v2` makes them. Only
JPEG is made by PIL, because torchvision is going to drop it.
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitbench.errors import UserError, did_you_mean
from vitbench.probes.distorted import (
    Array,
    Distort,
    bootstrap,
    generator,
    no_better_than_guessing,
    predicted_classes,
    relative_drop,
    rounded,
    rows_of,
    sweep,
)
from vitbench.probes.subject import Row, Subject, make_row

SEVERITIES: dict[str, tuple[float, ...]] = {
    "noise": (0.04, 0.06, 0.08, 0.09, 0.1),  # the standard deviation, for pixels in 0..1
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # the standard deviation in px for 32 px, in proportion at other sizes
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # the remaining share of a pixel's distance to the mean grey
    "brightness": (1.1, 1.2, 1.3, 1.4, 1.6),  # the factor
    "jpeg": (80, 65, 58, 50, 40),  # the quality
}


def probe(subject: Subject, *, seed: int, kind: str | None = None) -> list[Row]:
    """Measures accuracy at severity 0 .. 5 of a `kind` (null: of all five kinds), and the mean relative drop.

    The strengths are those of CIFAR-10-C (`make_cifar_c.py`) for images of any size; blur is in proportion to the size.
    There are two differences: our contrast shrinks towards one mean grey, theirs towards each channel's mean; and our
    brightness multiplies, while theirs adds 0.05 .. 0.3 to the value of HSV. The severities of two kinds cannot be
    compared. `corruption.relative_drop` is the mean over kinds of their means over severities 1 .. 5. Raises UserError
    for an unknown kind, and for images with other than 1 or 3 channels.
    """
    if kind is not None and kind not in SEVERITIES:
        raise UserError(f"probe.corruption.kind={kind}: {did_you_mean(kind, SEVERITIES)}")
    if subject.images.shape[1] not in (1, 3):
        raise UserError(f"probe=corruption: the images have {subject.images.shape[1]} channels; they must have 1 or 3")
    clean = predicted_classes(subject)
    sweeps = {}
    for name in SEVERITIES if kind is None else [kind]:
        levels: dict[float, list[Distort]] = {0: []}
        for severity, strength in enumerate(SEVERITIES[name], start=1):
            levels[severity] = [corrupt(name, strength, seed)]
        sweeps[name] = sweep(subject, levels, reference=0, clean=clean)

    rows = []
    for name, swept in sweeps.items():
        rows += rows_of(swept, f"corruption.{name}@v1", subject.num_classes, seed, "severity", octaves=False)

    def statistics(means: Array) -> Array:  # (R,1+S) -> (R,2)
        accuracy, accuracy_0 = means[:, 1:], means[:, :1]
        return np.stack([means[:, 0], relative_drop(accuracy, accuracy_0, subject.num_classes).mean(1)], 1)

    untouched = (clean == subject.labels).double().cpu().numpy()
    columns = [untouched[:, None], *(swept.right[:, 1:] for swept in sweeps.values())]  # 1+S together
    value, low, high = bootstrap(np.concatenate(columns, 1), statistics, seed)
    rows.append(make_row("corruption@v1", "accuracy", value[0], low[0], high[0]))
    guessing = no_better_than_guessing(value[0], low[0], subject.num_classes)
    return [*rows, make_row("corruption@v1", "relative_drop", value[1], low[1], high[1], guessing)]


def corrupt(kind: str, strength: float, seed: int) -> Distort:
    """Makes one corruption of one strength. Noise is drawn on the CPU, so that it is the same on every device."""
    from torchvision.transforms.v2 import functional as v2  # 2.6 s to import

    random = generator(seed, round(1000 * strength))

    def distort(images: Tensor) -> Tensor:
        if kind == "jpeg":
            return torch.stack([jpeg(image, int(strength)) for image in images.cpu()]).to(images.device)
        pixels = images.float() / 255  # floats, because v2 would truncate integers where `rounded` rounds
        if kind == "noise":
            pixels = pixels + strength * torch.randn(images.shape, generator=random).to(images.device)
        elif kind == "blur":
            sigma = strength * images.shape[-1] / 32
            pixels = v2.gaussian_blur(pixels, [2 * math.ceil(4 * sigma) + 1] * 2, [sigma] * 2)
        elif kind == "contrast":
            pixels = v2.adjust_contrast(pixels, strength)
        elif kind == "brightness":
            pixels = v2.adjust_brightness(pixels, strength)
        return rounded(255 * pixels)

    return distort


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Writes one uint8 image (C,H,W) with 1 or 3 channels as JPEG and reads it again; libjpeg has no batches."""
    file = io.BytesIO()
    Image.fromarray(image.movedim(0, -1).squeeze(2).numpy()).save(file, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(file)))  # (H,W,3) or (H,W)
    return decoded.movedim(-1, 0) if image.shape[0] == 3 else decoded.unsqueeze(0)
