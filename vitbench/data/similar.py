"""Finds near-duplicates: pictures that were scaled, compressed again, made brighter or cropped a little."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

SIDE = 32  # pixels along the side of a thumbnail
WAVES = 5  # number of waves of the cosine transform in each direction
ALIKE = 0.95  # two thumbnails with at least this correlation are near-duplicates
PARTNERS = 20  # this many pairs of one picture are enough
CHUNK, WIDE = 512, 8  # this many thumbnails are compared at a time with WIDE times as many


def similar_pairs(thumbnails: NDArray[np.uint8], among: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Returns the pairs of near-duplicates among thumbnails (N, 3, 32, 32), as rows (P, 2), the smaller number first.

    `among` has the numbers of the thumbnails that are compared, in order; None compares all. They are not copied,
    because a million take 3 GB.

    Two thumbnails are near-duplicates if their pixels, colours included, correlate with at least 0.95. So brightness
    and contrast make no difference, and a mirrored image is another picture. A picture of one colour only matches equal
    ones. Candidates are found by the slowest waves of the grey picture, as in perceptual hashes (Zauner 2010), so not
    all pairs are compared. Thumbnails that are equal to the pixel are paired with the first of them only. If a picture
    is the second of more than 20 pairs, some of these are left out, but none that joins two groups.
    """
    among = np.arange(len(thumbnails)) if among is None else among
    first = first_equals(thumbnails, among)
    copies = np.stack([first, among], 1)[first != among]
    is_plain = [thumbnails[number].min() == thumbnails[number].max() for number in among]  # one colour: no waves
    different = among[(first == among) & ~np.array(is_plain, bool)]
    pairs = np.concatenate([copies, _alike(thumbnails, different)])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def first_equals(thumbnails: NDArray[np.uint8], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each of these numbers the first one whose thumbnail is equal to the pixel."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(thumbnails[number].tobytes(), digest_size=16).digest() for number in among)
    return np.array([seen.setdefault(one, number) for one, number in zip(digests, among, strict=True)], np.int64)


def groups(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the number of each picture's group (N,). A chain of pairs connects the pictures of a group."""
    ones = np.ones(len(pairs), np.int8)
    _, group = connected_components(coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count)), directed=False)
    return group.astype(np.int64)


def _alike(thumbnails: NDArray[np.uint8], different: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the pairs (P, 2) of these numbers whose thumbnails, which are all different, correlate enough."""
    count, found = len(different), [np.empty((0, 2), np.int64)]
    if count < 2:
        return found[0]
    waves = np.concatenate([_waves(thumbnails[different[first : first + CHUNK]]) for first in range(0, count, CHUNK)])
    order = np.argsort(waves[:, 0])
    waves = waves[order]
    # Near-duplicates differ little in the first wave, so each picture is compared only with those that follow closely
    # in the order of this wave.
    ends = np.searchsorted(waves[:, 0], waves[:, 0] + (2 - 2 * ALIKE) ** 0.5, side="right")
    group, partners = np.arange(count), np.zeros(count, np.int64)  # group and number of pairs of each picture, so far
    for first in range(0, count, CHUNK):
        these = waves[first : first + CHUNK]
        for start in range(first, ends[first + len(these) - 1], WIDE * CHUNK):
            those = waves[start : start + WIDE * CHUNK]
            one, other = np.divmod(np.flatnonzero(these @ those.T >= ALIKE), len(those))
            later = start + other > first + one
            pairs = np.sort(np.stack([order[first + one[later]], order[start + other[later]]], 1), axis=1)
            # Among thousands of pictures that look alike, most pairs add nothing new.
            pairs = pairs[(group[pairs[:, 0]] != group[pairs[:, 1]]) | (partners[pairs[:, 1]] < PARTNERS)]
            if len(pairs := pairs[_correlation(thumbnails, different[pairs]) >= ALIKE]):
                kept = pairs[_telling(pairs, group, partners)]
                found.append(kept)
                partners += np.bincount(kept[:, 1], minlength=count)
                group = groups(count, group[kept])[group]
    return different[np.concatenate(found)]


def _telling(pairs: NDArray[np.int64], group: NDArray[np.int64], partners: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the indices of pairs (P, 2) that join groups, as few as possible, or are among a picture's first 20."""
    by_second = np.argsort(pairs[:, 1], kind="stable")
    second = pairs[by_second, 1]
    before = np.arange(len(second)) - np.searchsorted(second, second)  # the position among the pairs of that picture
    few = by_second[partners[second] + before < PARTNERS]
    one, other = np.sort(group[pairs], axis=1).T
    _, differing = np.unique(np.where(one != other, one * len(group) + other, -1), return_index=True)
    differing = differing[one[differing] != other[differing]]
    edges = coo_array((1.0 + differing, (one[differing], other[differing])), shape=(len(group), len(group)))
    joining = minimum_spanning_tree(edges).data.astype(np.int64) - 1  # the weights are numbers of pairs
    return np.union1d(few, joining)


def _waves(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the slowest waves of the grey pictures without their mean, scaled to length 1: (N, 24)."""
    waves = dctn(thumbnails.mean(1, dtype=np.float32), axes=(1, 2), norm="ortho")[:, :WAVES, :WAVES]
    waves = waves.reshape(len(thumbnails), -1)[:, 1:]
    return waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-6)


def _correlation(thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the correlation (P,) of the two pictures of each pair (P, 2). Each picture is converted once."""
    (left, rows), (right, columns) = (np.unique(numbers, return_inverse=True) for numbers in pairs.T)
    correlations: NDArray[np.float32] = (_unit(thumbnails[left]) @ _unit(thumbnails[right]).T)[rows, columns]
    return correlations


def _unit(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the pixels of pictures (N, 3, 32, 32) without their mean, scaled to length 1: (N, 3072)."""
    pixels = pictures.reshape(len(pictures), SIDE * SIDE * 3).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    return pixels / np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
