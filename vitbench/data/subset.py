"""Which training images a share of the data holds: stratified, random, and nested in every larger share.

One order serves all shares. Each image gets the position (r + 0.5) / m, where r is its random rank among the m images
of its class; images sorted by position, ties in random order, mix the classes evenly from the first image to the
last, so that every share is a prefix and the 5 % subset lies inside the 10 % one. (Counts a class by largest remainder
would be as stratified, but on unbalanced sets not nested.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vitbench.errors import UserError
from vitbench.menu import SHARE, Range


def nested_order(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All images (M,), such that every prefix is a stratified random subset."""
    random = np.random.default_rng((seed, 0, 1))  # three numbers: a stream that no (seed, epoch) of the batches has
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
    """Indices of the training and of the validation images; `fraction`, or `count` if given, is of what validation leaves.

    Validation images are the end of the order and training images its beginning, so validation is the same for every
    share and never overlaps. Raises UserError where the share is empty, too large, or leaves a class without an image.
    """
    ordered = nested_order(np.asarray(labels), subset_seed)
    held_out = round(val_fraction * len(ordered))
    pool = ordered[: len(ordered) - held_out]
    given = f"data.fraction={fraction:g}" if count is None else f"data.count={count}"
    right = SHARE if count is None else Range(f"1 to {len(pool)} images", lambda images: 1 <= images <= len(pool))
    if not right.holds(fraction if count is None else count):
        raise UserError(f"{given}: must be {right.words} ({len(pool):,} training images are left after validation)")
    taken = max(1, round(fraction * len(pool))) if count is None else count
    chosen = pool[:taken]
    if len(np.unique(labels[chosen])) < len(classes):
        missing = sorted(set(range(len(classes))) - set(np.unique(labels[chosen]).tolist()))
        firsts = [np.flatnonzero(labels[pool] == label) for label in missing]
        if any(len(places) == 0 for places in firsts):
            raise UserError(
                f"data.val_fraction={val_fraction:g}: leaves no training image of class {classes[missing[0]]}"
            )
        needed = 1 + max(int(places[0]) for places in firsts)
        smallest = f"data.count={needed}" if count is not None else f"data.fraction={_up(needed / len(pool))}"
        raise UserError(
            f"{given}: {taken} images leave no image of class {classes[missing[0]]}; {smallest} is the least with all"
            f" {len(classes)} classes"
        )
    return chosen, ordered[len(pool) :]


def _up(share: float) -> str:
    """A share rounded up to two digits, so that typing it works."""
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits) / 10**digits:g}"
