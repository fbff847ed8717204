"""Finds pictures that show nearly the same: copies scaled, compressed again, made brighter or cropped a little."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 32  # pixels of a thumbnail
WAVES = 5  # of the cosine transform, a direction
ALIKE = 0.95  # the correlation of two thumbnails from which on they show the same
CHUNK = 512  # thumbnails or pairs at a time


def similar_pairs(thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The pairs of thumbnails (N, 3, 32, 32) that show nearly the same, as rows (P, 2) with the smaller number first.

    Two show the same where their pixels correlate with 0.95 or more, colours included. So brightness and contrast make
    no difference, and a mirror image is another picture. A picture of one colour is like no other but its equals. The
    slowest waves of the grey picture find the candidates, as they do in perceptual hashes (Zauner 2010), so not all
    pairs are compared. Of thumbnails that are equal to the pixel, each is paired with the first of them alone.
    """
    seen: dict[bytes, int] = {}
    first = np.array([seen.setdefault(one.tobytes(), number) for number, one in enumerate(thumbnails)], np.int64)
    copies = np.stack([first, np.arange(len(first))], 1)
    different = np.unique(first)
    different = different[np.ptp(thumbnails[different], axis=(1, 2, 3)) > 0]  # one colour: no waves
    pairs = different[_alike(thumbnails[different])]
    pairs = np.concatenate([copies[copies[:, 0] != copies[:, 1]], pairs])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def groups(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each picture's group (N,): pictures that a chain of pairs connects are of one group."""
    ones = np.ones(len(pairs), np.int8)
    _, group = connected_components(coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count)), directed=False)
    return group.astype(np.int64)


def _alike(thumbnails: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The pairs (P, 2) of different thumbnails that correlate enough."""
    if len(thumbnails) < 2:
        return np.empty((0, 2), np.int64)
    waves = np.concatenate([_waves(thumbnails[first : first + CHUNK]) for first in range(0, len(thumbnails), CHUNK)])
    order = np.argsort(waves[:, 0])
    waves = waves[order]
    # Candidates differ little in the first wave too, so each is compared with those alone that follow it closely there.
    ends = np.searchsorted(waves[:, 0], waves[:, 0] + (2 - 2 * ALIKE) ** 0.5, side="right")
    found = [np.empty((0, 2), np.int64)]
    for first in range(0, len(waves), CHUNK):
        these = waves[first : first + CHUNK]
        last = ends[first + len(these) - 1]
        one, other = np.nonzero(these @ waves[first:last].T >= ALIKE)
        candidates = np.sort(np.stack([order[first + one], order[first + other]], 1)[other > one], axis=1)
        for start in range(0, len(candidates), CHUNK):
            pairs = candidates[start : start + CHUNK]
            found.append(pairs[_correlation(thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]]) >= ALIKE])
    return np.concatenate(found)


def _waves(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The slowest waves of the grey pictures, without their mean, at length 1: (N, 24)."""
    waves = dctn(thumbnails.mean(1, dtype=np.float32), axes=(1, 2), norm="ortho")[:, :WAVES, :WAVES]
    waves = waves.reshape(len(thumbnails), -1)[:, 1:]
    return waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-6)


def _correlation(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How each picture (P, 3, 32, 32) correlates with its partner: (P,)."""
    a, b = (side.reshape(len(side), -1).astype(np.float32) for side in (left, right))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / np.maximum(lengths, 1e-6)
