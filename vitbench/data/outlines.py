"""The outlines of ten shapes in the unit circle, as signed distances.

Distances are in radii of the circle and negative inside the shape, and y points down.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, y -> d, all (M,H,W)


def _circle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))


def _edges(x: np.ndarray, y: np.ndarray, n: int, apothem: float) -> list[np.ndarray]:
    """Returns distances to the n lines through the edges of a regular polygon; the first line lies below its centre."""
    angles = [2 * math.pi * k / n for k in range(n)]
    return [np.float32(math.sin(angle)) * x + np.float32(math.cos(angle)) * y - np.float32(apothem) for angle in angles]


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b, c = _edges(x, y, 3, 0.5)
    return np.maximum(np.maximum(a, b), c)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A pentagram. A point of it lies inside at least four of the five lines, so the second largest distance counts."""
    first, second, *rest = _edges(x, y, 5, 0.36)
    largest, runner_up = np.maximum(first, second), np.minimum(first, second)
    for d in rest:
        runner_up = np.maximum(runner_up, np.minimum(largest, d))
        largest = np.maximum(largest, d)
    return runner_up


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A square that stands on its corner, with a disc on each upper side."""
    c = np.float32(math.sqrt(0.5))
    u, v = c * (x + y) - np.float32(0.16), c * (y - x) - np.float32(0.16)
    half_side = np.float32(0.54)
    left, right = _circle(u + half_side, v, 0.54), _circle(u, v + half_side, 0.54)
    return np.minimum(_box(u, v, 0.54, 0.54), np.minimum(left, right))


def _corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(_box(x, y, 0.72, 0.72), np.minimum(x + np.float32(0.2), y + np.float32(0.2)))


SHAPES: dict[str, Distance] = {
    "disc": lambda x, y: _circle(x, y, 0.85),
    "ring": lambda x, y: np.abs(_circle(x, y, 0.75)) - np.float32(0.2),
    "square": lambda x, y: _box(x, y, 0.7, 0.7),
    "triangle": _triangle,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95)),
    "star": _star,
    "crescent": lambda x, y: np.maximum(_circle(x, y, 0.95), -_circle(x - np.float32(0.5), y, 0.8)),
    "heart": _heart,
    "bar": lambda x, y: _box(x, y, 0.95, 0.28),
    "corner": _corner,
}
