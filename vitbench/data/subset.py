"""Which training images a share of the data holds: stratified, random, and nested in every larger share.

One order serves all shares. Each image gets the position (r + 0.5) / m, where r is its random rank among the m images
of its class. Sorted by position, with ties in random order, the images mix the classes evenly from first to last. Every
share is a prefix of this order, so the 5 % subset lies inside the 10 % one. (Rounding each class's count by largest
remainder would be as stratified, but not nested on unbalanced sets.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitbench.errors import UserError
from vitbench.menu import SHARE, Range


def nested_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The indices of all images (M,), in an order whose every prefix is a stratified random subset."""
    random = np.random.default_rng((seed, 0, 1))  # batches draw from (seed, epoch), so no batch shares this stream
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
    """The indices of the training images and of the validation images.

    Validation takes the end of the order, so it is the same for every share and never overlaps one. Training takes the
    beginning: `count` images, or where that is None, a `fraction` of those that validation leaves. Raises UserError
    where the share is empty, too large, or leaves a class without an image.
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
            f"{typed}: {size} images leave no image of class {classes[missing[0]]}; {smallest} is the least with all"
            f" {len(classes)} classes"
        )
    return training, ordered[len(pool) :]


def _rounded_up(share: float) -> str:
    """A share rounded up to two significant digits, so that typing it is enough."""
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits) / 10**digits:g}"
