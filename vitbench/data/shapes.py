"""Draws images of shapes, which need no download. `data.task` decides what the class is (shape_tasks.py).

Image `index` of a split depends on (image_seed, split, index) and the nuisances alone, to the last bit, whichever
images are drawn with it. Two rules guarantee this: - Random numbers are counter-based (`counted.py`), with a key from
(image_seed, split, index). - Pixels are computed by operations that are rounded exactly (`drawing.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitbench.data.cache import Contents, Rows, cached
from vitbench.data.counted import counted, keys_of
from vitbench.data.drawing import Nuisances
from vitbench.data.shape_tasks import TASKS
from vitbench.data.split import Dataset
from vitbench.errors import UserError, did_you_mean
from vitbench.machine.progress import progress as progress_bar

DRAWING = 1  # raise this when a pixel changes, so that caches are drawn again
CHUNK = 128  # images drawn at once: few enough for intermediate results to stay in the processor's cache
SPLITS = {"train": 1, "test": 2}
ONLINE = 3  # takes the place of the split in the keys of images that are drawn for every step (online.py)

PAIRS = {"x": (-1, 1), "y": (-1, 1), "rotation": (-360, 360), "radius": (0.05, 1)}
BOUNDS = PAIRS | {"background": (0, 0.5), "texture": (0, 1), "contrast": (0, 1), "noise": (0, 1)}


def draw_shapes(
    indices: np.ndarray,
    nuisances: Nuisances | None = None,
    *,
    task: str = "shape",
    split: str = "train",
    image_seed: int = 0,
    online_seed: int | None = None,
    image_size: int = 32,
    labels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the images at `indices` of an endless split: uint8 (M,3,H,W) and labels (M,).

    With `online_seed`, the images come from the endless list of the run with this seed, and not from a split.

    Labels are balanced: each block of K consecutive indices holds every class once, in a random order. Passing `labels`
    draws the same images with other classes. In `shape`, that is another shape with the same place and colours on the
    same background. In `relation`, it is another arrangement of the same four quadrants. So all four versions of an
    image have the same set of patches, for every patch size that divides half the image. In `place`, it is the same
    image, rolled. In `same_different`, the second object is another one.
    """
    nuisances = nuisances or TASKS[task].nuisances
    indices = np.asarray(indices, np.int64)
    of = _key_of(split, image_seed, online_seed)
    if labels is None:
        labels = _balanced(indices, len(TASKS[task].classes), of)
    images = np.empty((len(indices), 3, image_size, image_size), np.uint8)
    for i in range(0, len(indices), CHUNK):
        keys = keys_of(*of, indices[i : i + CHUNK])
        images[i : i + CHUNK] = TASKS[task].draw(keys, np.asarray(labels[i : i + CHUNK]), image_size, nuisances)
    return images, np.asarray(labels, np.int64)


def online_labels(indices: np.ndarray, *, task: str, image_seed: int, online_seed: int) -> np.ndarray:
    """Returns the labels (M,) of the online images at `indices`, without drawing the images."""
    return _balanced(indices, len(TASKS[task].classes), _key_of("train", image_seed, online_seed))


def _key_of(split: str, image_seed: int, online_seed: int | None) -> tuple[int, ...]:
    """Returns the first parts of the keys of a list of images."""
    return (image_seed, SPLITS[split]) if online_seed is None else (image_seed, ONLINE, online_seed)


def _balanced(indices: np.ndarray, K: int, of: tuple[int, ...]) -> np.ndarray:
    """Returns labels such that each block of K consecutive indices holds every class once, in a random order."""
    block, place = np.divmod(indices, K)
    order = counted(keys_of(*of, block, 1), K).argsort(axis=1, kind="stable")
    return np.take_along_axis(order, place[:, None], axis=1)[:, 0]


def _changed(nuisances: Nuisances, values: Mapping[str, Any], where: str, task: str) -> Nuisances:
    """Replaces nuisances by the values that are not None. A wrong value is a UserError, which begins with `where`."""
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
        raise UserError(f"{where}.texture={values['texture']}: data.task=relation needs a plain background; drop it")
    return replace(nuisances, **changed)


def training_nuisances(task: str, values: Mapping[str, Any]) -> Nuisances:
    """Returns the nuisances of training images. A value of None means the task's own."""
    return _changed(TASKS[task].nuisances, values, "data", task)


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
    """Draws both splits into the cache. Nuisances that are None keep the task's default.

    `test` overrides nuisances for the test images only: `x=(-1, 0), test={"x": (0, 1)}` trains on the left half and
    tests on the right. `root` is not used, because there is nothing to read.
    """
    if task not in TASKS:
        raise UserError(f"data.task={task}: no such task; {did_you_mean(task, TASKS)}")
    size, divisor = 32 if image_size is None else image_size, TASKS[task].divisor
    if size < 8 or size % divisor:
        needed = {1: "8 or more", 2: "an even number from 8 on"}.get(divisor, f"a multiple of {divisor} from 8 on")
        raise UserError(f"data.image_size={size}: data=shapes data.task={task} needs {needed}")
    classes = TASKS[task].classes
    for name, count in (("train_images", train_images), ("test_images", test_images)):
        if count < len(classes):
            raise UserError(f"data.{name}={count}: expected at least one image of each of the {len(classes)} classes")
    if not 0 <= image_seed < 2**63:
        raise UserError(f"data.image_seed={image_seed}: expected 0 or more (below 2^63)")
    overrides: dict[str, Any] = {"x": x, "y": y, "rotation": rotation, "radius": radius}
    overrides |= {"background": background, "texture": texture, "contrast": contrast, "noise": noise}
    nuisances = {"train": training_nuisances(task, overrides)}
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
