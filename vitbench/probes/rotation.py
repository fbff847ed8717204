"""Rotation: measures what a classifier loses when the images are turned."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vitbench.errors import UserError
from vitbench.probes.distorted import Distort, accuracy_curve, mean_colour, rounded
from vitbench.probes.subject import Row, Subject
from vitbench.probes.taps import from_middle


def probe(subject: Subject, *, seed: int, step: float = 15.0) -> list[Row]:
    """Measures accuracy on images turned counter-clockwise about their centre, by 0 to 180 degrees in steps of `step`.

    Turning is bicubic with reflection at the border. The mean colour of the training images covers everything outside
    the inscribed circle, at every angle including 0, so that corners which turn in or out do not count. So the
    reference is angle 0 *with* this mask, while `accuracy` without `at` is that of the untouched images. Multiples of
    90 degrees move pixels exactly. Other angles also blur a little, which is part of their loss. `area` is over the
    angle. Raises UserError for a step outside of 1 to 180 degrees.
    """
    if not 1 <= step <= 180:
        raise UserError(f"probe.rotation.step={step:g}: must be 1 to 180 degrees")
    colour = mean_colour(subject)
    levels: dict[float, list[Distort]] = {i * step: [turn(i * step, colour)] for i in range(int(180 / step) + 1)}
    return accuracy_curve(subject, "rotation@v1", levels, seed=seed, at_unit="degrees", reference=0.0)


def turn(angle: float, colour: Tensor) -> Distort:
    """Turns images about their centre and paints everything outside the inscribed circle with a colour (C,1,1)."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def distort(images: Tensor) -> Tensor:
        B, size, device = len(images), images.shape[-1], images.device
        # from an output pixel to its source: the inverse of a counter-clockwise turn, where y points down
        matrix = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]], device=device).expand(B, 2, 3)
        sources = F.affine_grid(matrix, list(images.shape), align_corners=False)  # (B,H,W,2)
        turned = F.grid_sample(images.float(), sources, mode="bicubic", padding_mode="reflection", align_corners=False)
        return torch.where(disc(size, device), rounded(turned), colour)

    return distort


def disc(size: int, device: torch.device) -> Tensor:
    """Whether the centre of a pixel lies inside the inscribed circle, (H,W)."""
    axis = from_middle(size, device=device)
    return axis[:, None] ** 2 + axis**2 <= (size / 2) ** 2
