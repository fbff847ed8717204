"""The tasks of drawn images: the class is a shape, the side of a square, a place, or whether two shapes are the same.

The `draw` function of a task takes keys (M,), labels (M,), the image's side in pixels and the nuisances, and returns
uint8 (M,3,H,W). For one key it draws the same image for every label, apart from what the label decides. The letters of
shapes are those of drawing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vitbench.data.counted import keys_of, uniform
from vitbench.data.drawing import (
    Nuisances,
    add_endless_wave,
    add_wave,
    between,
    blend,
    colour_before,
    colours,
    cover,
    cover_anywhere,
    develop,
    plain,
)
from vitbench.data.outlines import SHAPES

RELATIONS = ("left", "right", "above", "below")  # the side of the disc on which the square lies
GRID = 4  # number of rows and of columns of regions in `place`
PLACES = tuple(f"row {row + 1}, column {column + 1}" for row in range(GRID) for column in range(GRID))
ROOM = 0.75  # the share of a region's width and height in which the centre of the object may lie
ALIKE = ("same", "different")
KINDS = ("disc", "ring", "bar", "cross")  # the shapes that `same_different` draws


def _draw_shapes(keys: np.ndarray, labels: np.ndarray, size: int, nuisances: Nuisances) -> np.ndarray:
    u = uniform(keys, 22)
    back, front = colours(u[:6], nuisances)
    canvas = plain(back, size)
    if nuisances.texture:
        for wave in (u[10:16], u[16:22]):
            add_wave(canvas, wave, nuisances.texture)
    blend(canvas, cover_anywhere(list(SHAPES.values()), labels, u[6:10], size, nuisances), front)
    return develop(canvas, keys, nuisances.noise)


# Each class has two arrangements (place of the disc, place of the square). Places 0 and 1 lie above 2 and 3.
_ARRANGEMENTS = np.array([[(1, 0), (3, 2)], [(0, 1), (2, 3)], [(2, 0), (3, 1)], [(0, 2), (1, 3)]])


def _draw_relations(keys: np.ndarray, labels: np.ndarray, size: int, nuisances: Nuisances) -> np.ndarray:
    """Draws four quadrants (disc, square, plain, plain), each with its own noise, and arranges them by the class.

    Disc and square lie at the same place of their quadrants, so they are exactly half an image apart, and nothing
    within a quadrant depends on the class.
    """
    M, half = len(keys), size // 2
    u = uniform(keys, 11)
    back, front = colours(u[:6], nuisances)
    quadrants = np.empty((M, 4, 3, half, half), np.uint8)
    for q, shape in enumerate((SHAPES["disc"], SHAPES["square"], None, None)):
        canvas = plain(back, half)
        if shape:
            blend(canvas, cover_anywhere([shape], np.zeros(M, np.int64), u[6:10], half, nuisances), front)
        quadrants[:, q] = develop(canvas, keys_of(keys, q), nuisances.noise)
    disc, square = _ARRANGEMENTS[labels, (u[10] * 2).astype(np.int64)].T
    place = np.arange(4)[None].repeat(M, axis=0)
    is_disc, is_square = place == disc[:, None], place == square[:, None]
    is_plain = np.where(is_disc | is_square, 0, 1)
    quadrant_at = np.where(is_disc, 0, np.where(is_square, 1, 1 + is_plain.cumsum(axis=1)))  # (M, place)
    arranged = np.take_along_axis(quadrants, quadrant_at[:, :, None, None, None], axis=1)
    grid = arranged.reshape(M, 2, 2, 3, half, half).transpose(0, 3, 1, 4, 2, 5)  # (M,3,2,half,2,half)
    return grid.reshape(M, 3, size, size)


def _draw_places(keys: np.ndarray, labels: np.ndarray, size: int, nuisances: Nuisances) -> np.ndarray:
    """Draws one object over waves that join at opposite borders, and rolls the image by whole regions to its place.

    So an object that leaves the image on one side enters on the other, and the versions of an image for all classes are
    the same image, rolled. A network that is equivariant to rolling and then averages over all places cannot tell the
    classes apart.
    """
    u = uniform(keys, 23)
    back, front = colours(u[:6], nuisances)
    canvas = plain(back, size)
    if nuisances.texture:
        for wave in (u[10:16], u[16:22]):
            add_endless_wave(canvas, wave, nuisances.texture)
    middle = GRID // 2  # the object is drawn in this row and column, where it lies completely in the image
    centre, reach = (2 * middle + 1) / GRID - 1, ROOM / GRID  # of the region, in half widths of the image
    covered = cover(
        list(SHAPES.values()),
        (u[22] * len(SHAPES)).astype(np.int64),
        size,
        left=centre + reach * between(nuisances.x, u[8]),
        top=centre + reach * between(nuisances.y, u[9]),
        radius=between(nuisances.radius, u[6]),
        turns=between(nuisances.rotation, u[7]) / 360,
    )
    blend(canvas, covered, front)
    images = develop(canvas, keys, nuisances.noise)
    row, column = ((place - middle) * (size // GRID) for place in np.divmod(labels, GRID))
    pixel = np.arange(size)
    rows = (pixel - row[:, None]) % size  # (M,H): the row that is shown at each row
    columns = (pixel - column[:, None]) % size
    image, channel = np.arange(len(keys))[:, None, None, None], np.arange(3)[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


# The two quadrants of each pair lie side by side, one above the other, or at opposite corners.
_PAIRS = np.array([(a, b) for a in range(4) for b in range(4) if a != b])


def _draw_pairs(keys: np.ndarray, labels: np.ndarray, size: int, nuisances: Nuisances) -> np.ndarray:
    """Draws two objects in two of the four quadrants; each has its own place, angle, size and colour.

    The second object has the shape of the first one, or one of the other shapes. In both classes, each object has each
    shape equally often, so neither object alone tells anything about the class.
    """
    M, half = len(keys), size // 2
    u = uniform(keys, 32)
    back, first_front = colours(u[:6], nuisances)
    fronts = (first_front, colour_before(back.astype(np.float64), u[6:9], nuisances.contrast))
    canvas = plain(back, size)
    if nuisances.texture:
        for wave in (u[9:15], u[15:21]):
            add_wave(canvas, wave, nuisances.texture)
    first = (u[21] * len(KINDS)).astype(np.int64)
    other = (first + 1 + (u[22] * (len(KINDS) - 1)).astype(np.int64)) % len(KINDS)
    kinds = (first, np.where(labels == ALIKE.index("same"), first, other))
    quadrants = _PAIRS[(u[23] * len(_PAIRS)).astype(np.int64)].T
    image = np.arange(M)
    for kind, front, quadrant, its in zip(kinds, fronts, quadrants, (u[24:28], u[28:32]), strict=True):
        covered = np.zeros((M, 2, half, 2, half), np.float32)
        shapes = [SHAPES[name] for name in KINDS]
        covered[image, quadrant // 2, :, quadrant % 2] = cover_anywhere(shapes, kind, its, half, nuisances)
        blend(canvas, covered.reshape(M, size, size), front)
    return develop(canvas, keys, nuisances.noise)


class Task(NamedTuple):
    classes: tuple[str, ...]
    draw: Callable[[np.ndarray, np.ndarray, int, Nuisances], np.ndarray]
    nuisances: Nuisances  # the defaults
    divisor: int = 1  # the image's side in pixels must be a multiple of this


# `relation` has a plain background, because a texture across quadrants would show where each quadrant belongs. Shapes
# fill more of a quadrant than of an image, because a quadrant is half as wide.
TASKS = {
    "shape": Task(tuple(SHAPES), _draw_shapes, Nuisances()),
    "relation": Task(RELATIONS, _draw_relations, Nuisances(radius=(0.75, 0.9), texture=0.0), 2),
    "place": Task(PLACES, _draw_places, Nuisances(radius=(0.2, 0.4)), GRID),
    "same_different": Task(ALIKE, _draw_pairs, Nuisances(radius=(0.75, 0.95), texture=0.0), 2),
}
