"""Drawn images, which need no download. The class is one of ten shapes, or on which side of a disc a square lies.

Image `index` of a split is a pure function of (image_seed, split, index) and the nuisances, to the last bit, whichever
images are drawn with it. Two rules make that so:
- Random numbers are counted, not drawn in turn (`counted.py`), with a key made from (image_seed, split, index).
- Pixels come from operations that IEEE 754 rounds exactly (+ - * / sqrt floor min max). The last bit of sin and exp may
  depend on the place in an array, on its length and on the machine.

Lengths are in half widths: -1 and 1 are the borders of the image (in `relation`, of the quadrant), and y points down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitbench.data.cache import Contents, Rows, cached
from vitbench.data.counted import counted, gauss, keys_of, uniform
from vitbench.data.outlines import SHAPES, Distance
from vitbench.data.split import Dataset
from vitbench.errors import UserError, did_you_mean
from vitbench.machine.progress import progress as progress_bar

DRAWING = 1  # bump when a pixel changes, so that caches are drawn again
CHUNK = 128  # images drawn at once: few enough for intermediates to stay in the processor's cache
SPLITS = {"train": 1, "test": 2}
RELATIONS = ("left", "right", "above", "below")  # the side of the disc on which the square lies
TASKS = {"shape": tuple(SHAPES), "relation": RELATIONS}


@dataclass(frozen=True)
class Nuisances:
    """What varies from image to image and is not the class.

    Pairs are the ends of a uniform range. Texture, background, contrast and noise are parts of the full range of grey.
    """

    x: tuple[float, float] = (-1.0, 1.0)  # centre: at -1 the shape touches the left border, at 1 the right one
    y: tuple[float, float] = (-1.0, 1.0)
    rotation: tuple[float, float] = (0.0, 360.0)  # degrees
    radius: tuple[float, float] = (0.45, 0.6)  # of the circle around the shape, in half widths
    texture: float = 0.05  # amplitude of each of the two waves behind a shape
    background: float = 0.05  # the most by which a channel of the background differs from mid-grey
    contrast: float = 0.35  # largest difference, over the channels, between shape and background
    noise: float = 0.03  # standard deviation, independent for each pixel and channel


PAIRS = {"x": (-1, 1), "y": (-1, 1), "rotation": (-360, 360), "radius": (0.05, 1)}
BOUNDS = PAIRS | {"background": (0, 0.5), "texture": (0, 1), "contrast": (0, 1), "noise": (0, 1)}


def _between(ends: tuple[float, float], u: np.ndarray) -> np.ndarray:
    return ends[0] + (ends[1] - ends[0]) * u


def _cos_sin(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine by their Taylor series on [-1/2, 1/2] turns, to 1e-8, from sums and products only."""
    angle = 2 * math.pi * (turns - np.rint(turns))
    square, cos, sin = angle * angle, np.zeros_like(angle), np.zeros_like(angle)
    for k in range(20, -2, -2):
        cos = 1 / math.factorial(k) - square * cos
        sin = 1 / math.factorial(k + 1) - square * sin
    return cos, sin * angle


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
    """Draws the images at `indices` of a split without end: uint8 (M,3,H,W) and labels (M,).

    Labels are balanced: each block of K consecutive indices holds every class once, in a random order. Passing `labels`
    draws the same images with other classes. In `shape`, that is another shape with the same place and colours on the
    same background. In `relation`, it is another arrangement of the same four quadrants, so all four versions of an
    image are the same bag of patches, for every patch size that divides half the image.
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


# for each class two arrangements, each (place of the disc, place of the square); places 0 and 1 lie above 2 and 3
_PLACES = np.array([[(1, 0), (3, 2)], [(0, 1), (2, 3)], [(2, 0), (3, 1)], [(0, 2), (1, 3)]])


def _draw_relations(keys: np.ndarray, labels: np.ndarray, size: int, nuisances: Nuisances) -> np.ndarray:
    """Draws four quadrants (disc, square, plain, plain), each with its own noise, and arranges them by the class.

    Disc and square lie at the same place of their quadrants, so they are exactly half an image apart, and nothing
    within a quadrant depends on the class.
    """
    M, half = len(keys), size // 2
    u = uniform(keys, 11)
    back, front = _colours(u[:6], nuisances)
    quadrants = np.empty((M, 4, 3, half, half), np.uint8)
    for q, shape in enumerate((SHAPES["disc"], SHAPES["square"], None, None)):
        canvas = np.broadcast_to(back, (half, half, *back.shape)).transpose(2, 3, 0, 1).copy()
        if shape:
            _blend(canvas, _cover([shape], np.zeros(M, np.int64), u[6:10], half, nuisances), front)
        quadrants[:, q] = _develop(canvas, keys_of(keys, q), nuisances.noise)
    disc, square = _PLACES[labels, (u[10] * 2).astype(np.int64)].T
    place = np.arange(4)[None].repeat(M, axis=0)
    is_disc, is_square = place == disc[:, None], place == square[:, None]
    plain = np.where(is_disc | is_square, 0, 1)
    quadrant_at = np.where(is_disc, 0, np.where(is_square, 1, 1 + plain.cumsum(axis=1)))  # (M, place)
    arranged = np.take_along_axis(quadrants, quadrant_at[:, :, None, None, None], axis=1)
    grid = arranged.reshape(M, 2, 2, 3, half, half).transpose(0, 3, 1, 4, 2, 5)  # (M,3,2,half,2,half)
    return grid.reshape(M, 3, size, size)


def _colours(u: np.ndarray, nuisances: Nuisances) -> tuple[np.ndarray, np.ndarray]:
    """Turns uniform numbers (6,M) into colours of background and shape, (M,3) each.

    Where a shape's colour would leave [0, 1], it lies on the other side of the background's.
    """
    back, step = 0.5 + nuisances.background * (2 * u[:3].T - 1), 2 * u[3:].T - 1
    step *= nuisances.contrast / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-9)
    front = np.where((back + step < 0) | (back + step > 1), back - step, back + step)
    return back.astype(np.float32), front.clip(0, 1).astype(np.float32)


def _axis(size: int) -> np.ndarray:
    """The centres of pixels in half widths: (size,) from -1 + 1/size to 1 - 1/size."""
    return (2 * np.arange(size, dtype=np.float32) + 1) / np.float32(size) - 1


def _add_wave(canvas: np.ndarray, u: np.ndarray, amplitude: float) -> None:
    """Adds a triangle wave of 1 to 4 periods across the image, whose angle, phase and colour come from u: (6,M)."""
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
    """How much of each pixel the shape covers, (M,H,W) in [0, 1]: a ramp, one pixel wide, of the distance.

    Radius, rotation and place come from u: (4,M).
    """
    radius = _between(nuisances.radius, u[0])
    cos, sin = _cos_sin(_between(nuisances.rotation, u[1]) / 360)
    left = (1 - radius) * _between(nuisances.x, u[2])  # the circle around the shape stays inside the image
    top = (1 - radius) * _between(nuisances.y, u[3])
    axis, cover = _axis(size), np.empty((len(labels), size, size), np.float32)
    for k in np.unique(labels):
        m = np.flatnonzero(labels == k)  # the images of this class
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
    """Adds noise and rounds to uint8; overwrites the canvas."""
    canvas *= 255
    if noise:
        canvas += gauss(keys_of(keys, 9), canvas[0].size).reshape(canvas.shape) * np.float32(255 * noise)
    canvas += np.float32(0.5)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


# --- the data source -------------------------------------------------------------------------------------------------


def defaults(task: str) -> Nuisances:
    """The nuisances of a task, where nothing else is set.

    `relation` has a plain background, because a texture across quadrants would tell where each belongs, and shapes that
    fill more of their quadrants, which are half as wide as the image.
    """
    return Nuisances(radius=(0.75, 0.9), texture=0.0) if task == "relation" else Nuisances()


def _changed(nuisances: Nuisances, values: Mapping[str, Any], where: str, task: str) -> Nuisances:
    """Replaces nuisances by those values that are not None; UserError, which begins with `where`, for a wrong one."""
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in BOUNDS:
            raise UserError(f"{where}.{name}: no such nuisance; {did_you_mean(name, BOUNDS)}")
        if value is None:
            continue
        low, high = BOUNDS[name]
        if name in PAIRS:
            is_pair = isinstance(value, Sequence) and len(value) == 2
            is_pair = is_pair and all(isinstance(end, (int, float)) for end in value)
            if not is_pair or not low <= value[0] <= value[1] <= high:
                raise UserError(f"{where}.{name}={value}: expected [from,to] with {low} <= from <= to <= {high}")
            changed[name] = (float(value[0]), float(value[1]))
        else:
            if not isinstance(value, (int, float)) or not low <= value <= high:
                raise UserError(f"{where}.{name}={value}: expected a number from {low} to {high}")
            changed[name] = float(value)
    if task == "relation" and changed.get("texture"):
        raise UserError(f"{where}.texture={values['texture']}: data.task=relation has a plain background; drop it")
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
    """Draws both splits into the cache. Nuisances that are None keep the task's default (`defaults`).

    `test` overrides nuisances for the test images only: `x=(-1, 0), test={"x": (0, 1)}` trains on the left half and
    tests on the right. `root` is not used, because there is nothing to read.
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
    overrides: dict[str, Any] = {"x": x, "y": y, "rotation": rotation, "radius": radius}
    overrides |= {"background": background, "texture": texture, "contrast": contrast, "noise": noise}
    nuisances = {"train": _changed(defaults(task), overrides, "data", task)}
    nuisances["test"] = _changed(nuisances["train"], test or {}, "data.test", task)
    counts = {"train": train_images, "test": test_images}

    def build(rows: Rows) -> Contents:
        rows.allocate(sum(counts.values()), 3, size)
        labels, first = {}, 0
        with progress_bar("drawing", sum(counts.values()), "images", None if progress else False) as bar:
            for split, count in counts.items():
                labels[split] = np.empty(count, np.int64)
                for i in range(0, count, 1024):
                    indices = np.arange(i, min(i + 1024, count))
                    images, labels[split][indices] = draw_shapes(
                        indices, nuisances[split], task=task, split=split, image_seed=image_seed, image_size=size
                    )
                    rows.write(first + i, images)
                    bar.update(first + i + len(indices))
                first += count
        return Contents(labels["train"], labels["test"], classes)

    identity = [DRAWING, task, size, image_seed, counts, {split: asdict(n) for split, n in nuisances.items()}]
    return cached(cache, f"shapes-{task}", identity, build)
