"""Drawn images with nothing to download: ten shapes on a texture, or on which side of a disc a square lies.

Image `index` of a split is a pure function of (image_seed, split, index) and the nuisances, to the last bit, whatever
else is drawn with it, and in any number. Two rules make that so:
- random numbers are counted, not drawn in turn: the splitmix64 finaliser (Steele, Lea & Flood 2014, "Fast splittable
  pseudorandom number generators") of a key made from (seed, split, index), and of key + counter;
- pixels see only operations that IEEE 754 rounds exactly (+ - * / sqrt floor min max). sin and exp may differ in the
  last bit with the position in an array, with its length, and between machines.

Lengths are in half widths: -1 and 1 are the borders of the image (of the quadrant, in `relation`), y points down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitbench.data.cache import Contents, Rows, cached
from vitbench.data.counted import counted, gauss, keys_of, uniform
from vitbench.data.split import Dataset
from vitbench.errors import UserError, did_you_mean
from vitbench.machine.progress import progress as progress_bar

DRAWING = 1  # bump when a pixel changes: the cache and every fingerprint follow
CHUNK = 128  # images drawn at once, so that intermediates stay in the processor's cache
SPLITS = {"train": 1, "test": 2}
RELATIONS = ("left", "right", "above", "below")  # of the disc, where the square lies


@dataclass(frozen=True)
class Nuisances:
    """What varies from image to image and is not the class. Pairs are the ends of a uniform range."""

    x: tuple[float, float] = (-1.0, 1.0)  # centre: -1 touches the left border, 1 the right one, whatever the radius
    y: tuple[float, float] = (-1.0, 1.0)
    rotation: tuple[float, float] = (0.0, 360.0)  # degrees
    radius: tuple[float, float] = (0.45, 0.6)  # of the circle around the shape, in half widths
    texture: float = 0.05  # amplitude of the two waves behind a shape, of the full range of grey
    background: float = 0.05  # a channel of the background differs from mid-grey by at most this, of the full range
    contrast: float = 0.35  # largest difference, over the channels, between shape and background
    noise: float = 0.03  # standard deviation, independent per pixel and channel


PAIRS = {"x": (-1, 1), "y": (-1, 1), "rotation": (-360, 360), "radius": (0.05, 1)}
BOUNDS = PAIRS | {"background": (0, 0.5), "texture": (0, 1), "contrast": (0, 1), "noise": (0, 1)}


def _between(ends: tuple[float, float], u: np.ndarray) -> np.ndarray:
    return ends[0] + (ends[1] - ends[0]) * u


def _cos_sin(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Taylor series on [-1/2, 1/2] turns, to 1e-8, from additions and products only."""
    angle = 2 * math.pi * (turns - np.rint(turns))
    square, cos, sin = angle * angle, np.zeros_like(angle), np.zeros_like(angle)
    for k in range(20, -2, -2):
        cos = 1 / math.factorial(k) - square * cos
        sin = 1 / math.factorial(k + 1) - square * sin
    return cos, sin * angle


# --- signed distances to ten shapes inside the unit circle, negative inside ------------------------------------------

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, y -> d, all (M,H,W)


def _circle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.sqrt(x * x + y * y) - np.float32(radius)


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float) -> np.ndarray:
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))


def _edges(x: np.ndarray, y: np.ndarray, n: int, apothem: float) -> list[np.ndarray]:
    """Distances to n lines around the centre, the first one below it."""
    turns = (
        np.float32(math.sin(2 * math.pi * k / n)) * x + np.float32(math.cos(2 * math.pi * k / n)) * y for k in range(n)
    )
    return [d - np.float32(apothem) for d in turns]


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b, c = _edges(x, y, 3, 0.5)
    return np.maximum(np.maximum(a, b), c)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A pentagram: inside at least four of its five lines, so the second largest distance counts."""
    first, second, *rest = _edges(x, y, 5, 0.36)
    largest, runner_up = np.maximum(first, second), np.minimum(first, second)
    for d in rest:
        runner_up = np.maximum(runner_up, np.minimum(largest, d))
        largest = np.maximum(largest, d)
    return runner_up


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A square on its corner with a disc on each upper side."""
    c = np.float32(math.sqrt(0.5))
    u, v = c * (x + y) - np.float32(0.16), c * (y - x) - np.float32(0.16)
    a = np.float32(0.54)
    return np.minimum(_box(u, v, 0.54, 0.54), np.minimum(_circle(u + a, v, 0.54), _circle(u, v + a, 0.54)))


def _corner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(_box(x, y, 0.72, 0.72), np.minimum(x + np.float32(0.2), y + np.float32(0.2)))


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _circle(x, y, 0.85)


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _box(x, y, 0.7, 0.7)


SHAPES: dict[str, Distance] = {
    "disc": _disc,
    "ring": lambda x, y: np.abs(_circle(x, y, 0.75)) - np.float32(0.2),
    "square": _square,
    "triangle": _triangle,
    "cross": lambda x, y: np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95)),
    "star": _star,
    "crescent": lambda x, y: np.maximum(_circle(x, y, 0.95), -_circle(x - np.float32(0.5), y, 0.8)),
    "heart": _heart,
    "bar": lambda x, y: _box(x, y, 0.95, 0.28),
    "corner": _corner,
}
TASKS = {"shape": tuple(SHAPES), "relation": RELATIONS}


# --- drawing ---------------------------------------------------------------------------------------------------------


def draw_shapes(
    indices: np.ndarray,
    nuisances: Nuisances | None = None,
    *,
    task: str = "shape",
    split: str = "train",
    image_seed: int = 0,
    image_size: int = 32,
    labels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The images at `indices` of a split that has no end: uint8 (M,3,H,W) and labels (M,).

    Labels are balanced: each block of K consecutive indices holds every class once, in a random order. Passing `labels`
    draws the same images with other classes: in `shape`, another shape in the same place and colours on the same
    background; in `relation`, the same four quadrants in another arrangement, so that all four versions of an image are
    the same bag of patches, for every patch size that divides half the image.
    """
    nuisances = nuisances or defaults(task)
    indices = np.asarray(indices, np.int64)
    if labels is None:
        labels = _balanced_labels(indices, len(TASKS[task]), image_seed, split)
    images = np.empty((len(indices), 3, image_size, image_size), np.uint8)
    painter = {"shape": _draw_shapes, "relation": _draw_relations}[task]
    for i in range(0, len(indices), CHUNK):
        keys = keys_of(image_seed, SPLITS[split], indices[i : i + CHUNK])
        images[i : i + CHUNK] = painter(keys, np.asarray(labels[i : i + CHUNK]), image_size, nuisances)
    return images, np.asarray(labels, np.int64)


def _balanced_labels(indices: np.ndarray, K: int, image_seed: int, split: str) -> np.ndarray:
    block, place = np.divmod(indices, K)
    order = counted(keys_of(image_seed, SPLITS[split], block, 1), K).argsort(axis=1, kind="stable")
    return np.take_along_axis(order, place[:, None], axis=1)[:, 0]


def _draw_shapes(keys: np.ndarray, labels: np.ndarray, size: int, nuisances: Nuisances) -> np.ndarray:
    u = uniform(keys, 22)
    back, front = _colours(u[:6], nuisances)
    canvas = np.broadcast_to(back, (size, size, *back.shape)).transpose(2, 3, 0, 1).copy()  # (M,3,H,W)
    if nuisances.texture:
        for wave in (u[10:16], u[16:22]):
            _add_wave(canvas, wave, nuisances.texture)
    _blend(canvas, _cover(list(SHAPES.values()), labels, u[6:10], size, nuisances), front)
    return _develop(canvas, keys, nuisances.noise)


# class -> two arrangements, each (place of the disc, place of the square); places 0 1 over 2 3
_PLACES = np.array([[(1, 0), (3, 2)], [(0, 1), (2, 3)], [(2, 0), (3, 1)], [(0, 2), (1, 3)]])


def _draw_relations(keys: np.ndarray, labels: np.ndarray, size: int, nuisances: Nuisances) -> np.ndarray:
    """Four quadrants (disc, square, plain, plain), each with its own noise, then put in places by the class.

    Disc and square have one centre, each in its quadrant: their displacement is half the image exactly, and nothing
    within a quadrant depends on the class.
    """
    M, half = len(keys), size // 2
    u = uniform(keys, 11)
    back, front = _colours(u[:6], nuisances)
    quadrants = np.empty((M, 4, 3, half, half), np.uint8)
    for q, shape in enumerate((_disc, _square, None, None)):
        canvas = np.broadcast_to(back, (half, half, *back.shape)).transpose(2, 3, 0, 1).copy()
        if shape:
            _blend(canvas, _cover([shape], np.zeros(M, np.int64), u[6:10], half, nuisances), front)
        quadrants[:, q] = _develop(canvas, keys_of(keys, q), nuisances.noise)
    disc, square = _PLACES[labels, (u[10] * 2).astype(np.int64)].T
    place = np.arange(4)[None].repeat(M, axis=0)  # what lies where: (M, place) -> quadrant
    plain = np.where((place == disc[:, None]) | (place == square[:, None]), 0, 1)
    content = np.where(place == disc[:, None], 0, np.where(place == square[:, None], 1, 1 + plain.cumsum(axis=1)))
    placed = np.take_along_axis(quadrants, content[:, :, None, None, None], axis=1)
    grid = placed.reshape(M, 2, 2, 3, half, half).transpose(0, 3, 1, 4, 2, 5)  # (M,3,2,half,2,half)
    return grid.reshape(M, 3, size, size)


def _colours(u: np.ndarray, nuisances: Nuisances) -> tuple[np.ndarray, np.ndarray]:
    """(6,M) uniforms -> background and shape, (M,3) each; turned back where they would leave [0, 1]."""
    back, step = 0.5 + nuisances.background * (2 * u[:3].T - 1), 2 * u[3:].T - 1
    step *= nuisances.contrast / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-9)
    front = np.where((back + step < 0) | (back + step > 1), back - step, back + step)
    return back.astype(np.float32), front.clip(0, 1).astype(np.float32)


def _axis(size: int) -> np.ndarray:
    """Pixel centres in half widths: (size,) from -1 + 1/size to 1 - 1/size."""
    return (2 * np.arange(size, dtype=np.float32) + 1) / np.float32(size) - 1


def _add_wave(canvas: np.ndarray, u: np.ndarray, amplitude: float) -> None:
    """A triangle wave of 1 to 4 periods across the image, at any angle, phase and colour. u: (6,M)."""
    axis, per_half = _axis(canvas.shape[-1]), _between((0.5, 2.0), u[0])
    cos, sin = _cos_sin(u[1])
    along_x = (per_half * cos).astype(np.float32)[:, None] * axis
    along_y = (per_half * sin).astype(np.float32)[:, None] * axis + u[2].astype(np.float32)[:, None]
    wave = along_y[:, :, None] + along_x[:, None, :]  # (M,H,W), in periods
    wave -= np.floor(wave)
    wave -= np.float32(0.5)
    np.abs(wave, out=wave)
    wave *= 4
    wave -= 1
    colour = ((2 * u[3:6].T - 1) * amplitude).astype(np.float32)
    canvas += wave[:, None] * colour[:, :, None, None]


def _cover(
    shapes: Sequence[Distance], labels: np.ndarray, u: np.ndarray, size: int, nuisances: Nuisances
) -> np.ndarray:
    """How much of each pixel the shape covers, (M,H,W) in [0, 1]: a ramp one pixel wide around distance 0. u: (4,M)."""
    radius = _between(nuisances.radius, u[0])
    cos, sin = _cos_sin(_between(nuisances.rotation, u[1]) / 360)
    left = (1 - radius) * _between(nuisances.x, u[2])  # the circle around the shape stays inside the image
    top = (1 - radius) * _between(nuisances.y, u[3])
    axis, cover = _axis(size), np.empty((len(labels), size, size), np.float32)
    for k in np.unique(labels):
        m = np.flatnonzero(labels == k)
        x = ((axis - left[m, None]) / radius[m, None])[:, None, :]  # (m,1,W) in radii
        y = ((axis - top[m, None]) / radius[m, None])[:, :, None]  # (m,H,1)
        c, s = cos[m, None, None], sin[m, None, None]
        turned_x = (c * x).astype(np.float32) + (s * y).astype(np.float32)
        turned_y = (c * y).astype(np.float32) - (s * x).astype(np.float32)
        pixels = (radius[m, None, None] * (size / 2)).astype(np.float32)
        cover[m] = shapes[k](turned_x, turned_y) * pixels
    return np.clip(np.float32(0.5) - cover, 0, 1, out=cover)


def _blend(canvas: np.ndarray, cover: np.ndarray, front: np.ndarray) -> None:
    canvas += (front[:, :, None, None] - canvas) * cover[:, None]


def _develop(canvas: np.ndarray, keys: np.ndarray, noise: float) -> np.ndarray:
    """Add noise and round to uint8; overwrites the canvas."""
    canvas *= 255
    if noise:
        canvas += gauss(keys_of(keys, 9), canvas[0].size).reshape(canvas.shape) * np.float32(255 * noise)
    canvas += np.float32(0.5)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


# --- the data source -------------------------------------------------------------------------------------------------


def defaults(task: str) -> Nuisances:
    """Of `relation`: a plain background, because a texture that crosses quadrants tells where they belong, and shapes
    that are larger in their quadrants, which are half as wide."""
    return Nuisances(radius=(0.75, 0.9), texture=0.0) if task == "relation" else Nuisances()


def _changed(nuisances: Nuisances, given: Mapping[str, Any], where: str, task: str) -> Nuisances:
    """With the given values that are not None; UserError for one that means nothing."""
    changed: dict[str, Any] = {}
    for name, value in given.items():
        if name not in BOUNDS:
            raise UserError(f"{where}.{name}: no such nuisance; {did_you_mean(name, BOUNDS)}")
        if value is None:
            continue
        low, high = BOUNDS[name]
        if name in PAIRS:
            pair = (
                isinstance(value, Sequence) and len(value) == 2 and all(isinstance(end, (int, float)) for end in value)
            )
            if not pair or not low <= value[0] <= value[1] <= high:
                raise UserError(f"{where}.{name}={value}: expected [from,to] with {low} <= from <= to <= {high}")
            changed[name] = (float(value[0]), float(value[1]))
        else:
            if not isinstance(value, (int, float)) or not low <= value <= high:
                raise UserError(f"{where}.{name}={value}: expected a number from {low} to {high}")
            changed[name] = float(value)
    if task == "relation" and changed.get("texture"):
        raise UserError(f"{where}.texture={given['texture']}: data.task=relation has a plain background; drop it")
    return replace(nuisances, **changed)


def load(
    *,
    root: Path | None = None,
    cache: Path,
    image_size: int | None = None,
    progress: bool = False,
    task: str = "shape",
    train_images: int = 10_000,
    test_images: int = 2_000,
    image_seed: int = 0,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
    rotation: tuple[float, float] | None = None,
    radius: tuple[float, float] | None = None,
    background: float | None = None,
    texture: float | None = None,
    contrast: float | None = None,
    noise: float | None = None,
    test: Mapping[str, Any] | None = None,
) -> Dataset:
    """Draw both splits into the cache. Nuisances that are None keep the task's default (`Nuisances`, `defaults`).

    `test` overrides nuisances for the test images only: `x=(-1, 0), test={"x": (0, 1)}` trains on the left half and
    tests on the right. There is nothing to read, so `root` is not used.
    """
    if task not in TASKS:
        raise UserError(f"data.task={task}: no such task; {did_you_mean(task, TASKS)}")
    size = 32 if image_size is None else image_size
    if size < 8 or (task == "relation" and size % 2):
        needed = "an even number from 8 on" if task == "relation" else "8 or more"
        raise UserError(f"data.image_size={size}: data=shapes data.task={task} needs {needed}")
    classes = TASKS[task]
    for name, count in (("train_images", train_images), ("test_images", test_images)):
        if count < len(classes):
            raise UserError(f"data.{name}={count}: expected at least one image of each of the {len(classes)} classes")
    if not 0 <= image_seed < 2**63:
        raise UserError(f"data.image_seed={image_seed}: expected 0 or more (below 2^63)")
    given = {
        "x": x,
        "y": y,
        "rotation": rotation,
        "radius": radius,
        "background": background,
        "texture": texture,
        "contrast": contrast,
        "noise": noise,
    }
    by_split = {"train": _changed(defaults(task), given, "data", task)}
    by_split["test"] = _changed(by_split["train"], test or {}, "data.test", task)
    counts = {"train": train_images, "test": test_images}

    def build(rows: Rows) -> Contents:
        rows.allocate(sum(counts.values()), 3, size)
        labels, first = {}, 0
        with progress_bar("drawing", sum(counts.values()), "images", None if progress else False) as bar:
            for split, count in counts.items():
                labels[split] = np.empty(count, np.int64)
                for i in range(0, count, 1024):
                    chosen = np.arange(i, min(i + 1024, count))
                    images, labels[split][chosen] = draw_shapes(
                        chosen, by_split[split], task=task, split=split, image_seed=image_seed, image_size=size
                    )
                    rows.write(first + i, images)
                    bar.update(first + i + len(chosen))
                first += count
        return Contents(labels["train"], labels["test"], classes)

    identity = [DRAWING, task, size, image_seed, counts, {split: asdict(n) for split, n in by_split.items()}]
    return cached(cache, f"shapes-{task}", identity, build)
