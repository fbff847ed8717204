"""Draws the training images of a share: at random, stratified by class, and nested in every larger share.

All shares are prefixes of one order of the images. Each image gets the position (r + 0.5) / m, where r is its random
rank among the m images of its class. Sorted by position, with ties in random order, the classes are mixed evenly from
first to last. So the 5 % subset lies inside the 10 % subset. (Rounding the count of each class by the largest remainder
would be as stratified, but not nested if classes are unbalanced.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitbench.errors import UserError
from vitbench.menu import SHARE, Range


def nested_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Returns the indices of all images (M,) in an order whose every prefix is a stratified random subset."""
    random = np.random.default_rng((seed, 0, 1))  # batches draw from (seed, epoch), which is another random stream
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        position[members] = (random.permutation(len(members)) + 0.5) / len(members)
    return np.lexsort((random.random(len(labels)), position))


def split_and_subset(
    labels: NDArray[np.int64],
    classes: Sequence[str],
    *,
    fraction: float,
    count: int | None,
    val_fraction: float,
    subset_seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the indices of the training images and of the validation images.

    Validation images are the end of the order, so they are the same for every share and never overlap it. Training
    images are the beginning: `count` images or, if that is None, a `fraction` of the images that are left after
    validation. Raises UserError if the share is empty or too large, or if it has no image of a class.
    """
    ordered = nested_order(np.asarray(labels), subset_seed)
    pool = ordered[: len(ordered) - round(val_fraction * len(ordered))]
    typed = f"data.fraction={fraction:g}" if count is None else f"data.count={count}"
    bounds = SHARE if count is None else Range(f"1 to {len(pool)} images", lambda images: 1 <= images <= len(pool))
    if not bounds.holds(fraction if count is None else count):
        raise UserError(f"{typed}: must be {bounds.words} ({len(pool):,} training images are left after validation)")
    size = max(1, round(fraction * len(pool))) if count is None else count
    training = pool[:size]
    if len(np.unique(labels[training])) < len(classes):
        missing = sorted(set(range(len(classes))) - set(np.unique(labels[training]).tolist()))
        positions = [np.flatnonzero(labels[pool] == label) for label in missing]
        if any(len(of_class) == 0 for of_class in positions):
            raise UserError(
                f"data.val_fraction={val_fraction:g}: leaves no training image of class {classes[missing[0]]}"
            )
        least = 1 + max(int(of_class[0]) for of_class in positions)
        smallest = f"data.fraction={_rounded_up(least / len(pool))}" if count is None else f"data.count={least}"
        raise UserError(
            f"{typed}: {size} images have none of class {classes[missing[0]]}; {smallest} is the least that has all "
            f"{len(classes)} classes"
        )
    return training, ordered[len(pool) :]


def _rounded_up(share: float) -> str:
    """Returns a share rounded up to two significant digits, so that it is large enough when it is typed."""
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits) / 10**digits:g}"
