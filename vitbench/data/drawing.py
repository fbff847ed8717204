"""Draws the parts of images of shapes: colours, waves, shapes and noise, for many images at once.

Pixels are computed only with operations that IEEE 754 rounds exactly (+ - * / sqrt floor min max). The last bit of sin
and exp may depend on the position in an array, on its length and on the machine.

Lengths are in half widths of the image: its borders are at -1 and 1, and y points down. M is the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitbench.data.counted import gauss, keys_of
from vitbench.data.outlines import Distance


@dataclass(frozen=True)
class Nuisances:
    """The properties that vary from image to image within a class.

    Pairs are the ends of a uniform range. Texture, background, contrast and noise are shares of the full range of grey.
    """

    x: tuple[float, float] = (-1.0, 1.0)  # centre: at -1 the shape touches the left border, at 1 the right one
    y: tuple[float, float] = (-1.0, 1.0)
    rotation: tuple[float, float] = (0.0, 360.0)  # degrees
    radius: tuple[float, float] = (0.45, 0.6)  # of the circle around the shape, in half widths
    texture: float = 0.05  # amplitude of each of the two waves behind a shape
    background: float = 0.05  # the most by which a channel of the background differs from mid-grey
    contrast: float = 0.35  # largest difference, over the channels, between shape and background
    noise: float = 0.03  # standard deviation, independent for each pixel and channel


def between(ends: tuple[float, float], u: np.ndarray) -> np.ndarray:
    return ends[0] + (ends[1] - ends[0]) * u


def cos_sin(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns cosine and sine of an angle in turns, to 1e-8, by Taylor series on [-1/2, 1/2], with + - * / alone."""
    angle = 2 * math.pi * (turns - np.rint(turns))
    square, cos, sin = angle * angle, np.zeros_like(angle), np.zeros_like(angle)
    for k in range(20, -2, -2):
        cos = 1 / math.factorial(k) - square * cos
        sin = 1 / math.factorial(k + 1) - square * sin
    return cos, sin * angle


def colours(u: np.ndarray, nuisances: Nuisances) -> tuple[np.ndarray, np.ndarray]:
    """Turns uniform numbers (6,M) into colours of background and shape, (M,3) each."""
    back = 0.5 + nuisances.background * (2 * u[:3].T - 1)
    return back.astype(np.float32), colour_before(back, u[3:], nuisances.contrast)


def colour_before(back: np.ndarray, u: np.ndarray, contrast: float) -> np.ndarray:
    """Turns uniform numbers (3,M) into the colour (M,3) of a shape in front of a background.

    A channel that would leave [0, 1] lies on the other side of the background's value instead.
    """
    step = 2 * u.T - 1
    step *= contrast / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-9)
    front = np.where((back + step < 0) | (back + step > 1), back - step, back + step)
    return front.clip(0, 1).astype(np.float32)


def plain(colour: np.ndarray, size: int) -> np.ndarray:
    """Makes images of one colour each: (M,3) -> (M,3,H,W)."""
    return np.broadcast_to(colour, (size, size, *colour.shape)).transpose(2, 3, 0, 1).copy()


def _axis(size: int) -> np.ndarray:
    """Returns the centres of pixels in half widths, (size,), from -1 + 1/size to 1 - 1/size."""
    return (2 * np.arange(size, dtype=np.float32) + 1) / np.float32(size) - 1


def add_wave(canvas: np.ndarray, u: np.ndarray, amplitude: float) -> None:
    """Adds a triangle wave of 1 to 4 periods across the image, whose angle, phase and colour come from u: (6,M)."""
    per_half = between((0.5, 2.0), u[0])
    cos, sin = cos_sin(u[1])
    _add(canvas, per_half * cos, per_half * sin, u[2], (2 * u[3:6].T - 1) * amplitude)


# Horizontal and vertical periods of waves that join at opposite borders. Half of the waves are mirrored.
_PERIODS = np.array([(1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3)])


def add_endless_wave(canvas: np.ndarray, u: np.ndarray, amplitude: float) -> None:
    """Adds a triangle wave with whole periods in both directions, so that opposite borders join; u: (6,M)."""
    across, down = (_PERIODS[(u[0] * len(_PERIODS)).astype(np.int64)] / 2).T
    _add(canvas, across, np.where(u[1] < 0.5, down, -down), u[2], (2 * u[3:6].T - 1) * amplitude)


def _add(canvas: np.ndarray, across: np.ndarray, down: np.ndarray, phase: np.ndarray, colour: np.ndarray) -> None:
    """Adds a triangle wave. `across` and `down` (M,) are periods per half width, `phase` (M,) is in periods."""
    axis = _axis(canvas.shape[-1])
    along_x = across.astype(np.float32)[:, None] * axis
    along_y = down.astype(np.float32)[:, None] * axis + phase.astype(np.float32)[:, None]
    wave = along_y[:, :, None] + along_x[:, None, :]  # (M,H,W), in periods
    wave -= np.floor(wave)
    wave -= np.float32(0.5)
    np.abs(wave, out=wave)
    wave *= 4
    wave -= 1
    canvas += wave[:, None] * colour.astype(np.float32)[:, :, None, None]


def cover(
    shapes: Sequence[Distance],
    kinds: np.ndarray,
    size: int,
    *,
    left: np.ndarray,
    top: np.ndarray,
    radius: np.ndarray,
    turns: np.ndarray,
) -> np.ndarray:
    """Returns the share of each pixel that the shape covers, (M,H,W) in [0, 1].

    It is a linear ramp of the distance to the outline, one pixel wide. `kinds` (M,) are indices into `shapes`. The
    centre (left, top), the radius and the turns are (M,) each.
    """
    cos, sin = cos_sin(turns)
    axis, covered = _axis(size), np.empty((len(kinds), size, size), np.float32)
    for k in np.unique(kinds):
        m = np.flatnonzero(kinds == k)  # the images with this shape
        x = ((axis - left[m, None]) / radius[m, None])[:, None, :]  # (m,1,W) in radii
        y = ((axis - top[m, None]) / radius[m, None])[:, :, None]  # (m,H,1)
        c, s = cos[m, None, None], sin[m, None, None]
        turned_x = (c * x).astype(np.float32) + (s * y).astype(np.float32)
        turned_y = (c * y).astype(np.float32) - (s * x).astype(np.float32)
        pixels = (radius[m, None, None] * (size / 2)).astype(np.float32)
        covered[m] = shapes[k](turned_x, turned_y) * pixels
    return np.clip(np.float32(0.5) - covered, 0, 1, out=covered)


def cover_anywhere(
    shapes: Sequence[Distance], kinds: np.ndarray, u: np.ndarray, size: int, nuisances: Nuisances
) -> np.ndarray:
    """Calls `cover` with radius, rotation and place from u: (4,M). The circle around a shape stays in the image."""
    radius = between(nuisances.radius, u[0])
    return cover(
        shapes,
        kinds,
        size,
        left=(1 - radius) * between(nuisances.x, u[2]),
        top=(1 - radius) * between(nuisances.y, u[3]),
        radius=radius,
        turns=between(nuisances.rotation, u[1]) / 360,
    )


def blend(canvas: np.ndarray, covered: np.ndarray, front: np.ndarray) -> None:
    """Blends a colour (M,3) into the canvas (M,3,H,W) by the share of each pixel that a shape covers, (M,H,W)."""
    canvas += (front[:, :, None, None] - canvas) * covered[:, None]


def develop(canvas: np.ndarray, keys: np.ndarray, noise: float) -> np.ndarray:
    """Adds noise and rounds to uint8; overwrites the canvas."""
    canvas *= 255
    if noise:
        canvas += gauss(keys_of(keys, 9), canvas[0].size).reshape(canvas.shape) * np.float32(255 * noise)
    canvas += np.float32(0.5)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
