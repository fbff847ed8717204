"""Draws test images for a data set that has no split: stratified by class, with near-duplicates on one side.

Test images must be new to the network, and a scaled, compressed or cropped copy of a training image is not new. So
images that look alike, and chains of them, are put on the same side of the split. If so many images of a class look
alike that this is not possible, only exact copies of that class stay together.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vitbench.data.cache import listed
from vitbench.data.listing import File
from vitbench.data.similar import first_equals, groups, similar_pairs
from vitbench.data.survey import place_of, survey
from vitbench.errors import DataError, StorageError
from vitbench.machine.disk import write
from vitbench.machine.terminal import shown_path

TEST_FRACTION, SPLIT_SEED = 0.2, 0  # the defaults
ALIKE = 1  # raise this when the rule for near-duplicates changes


class Split(NamedTuple):
    """Which images are test images, and facts about the split."""

    test: NDArray[np.bool_]  # (M,)
    alike: int  # number of images that were kept together with near-duplicates
    loosened: tuple[int, ...]  # classes in which only exact copies stay together


def hold_out(
    files: Sequence[File],
    where: str,
    *,
    fraction: float,
    seed: int,
    cache: Path,
    progress: bool = False,
    workers: int | None = None,
) -> tuple[list[File], list[File], list[str]]:
    """Returns training files, test files, and lines about the split. Raises DataError if a class has too few images.

    A file that cannot be read counts as a training image, so the split of the others does not depend on it.
    """
    names = sorted({file.label for file in files})
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number[file.label] for file in files], np.int64)
    alike, copies = _groups(files, cache, progress, workers)
    whole = np.flatnonzero(alike >= 0)
    if not len(whole):
        return [*files], [], []  # decoding will report what is wrong with them
    counts = np.bincount(labels[whole], minlength=len(names))
    if few := [shown_path(names[label]) for label in np.flatnonzero(counts == 1)]:
        raise DataError(
            f"{listed(few, 'class')} with a single image, which cannot be both a training and a test image; add images "
            "or remove the class"
        )
    split = choose(labels[whole], alike[whole], copies[whole], fraction=fraction, seed=seed)
    tested = np.zeros(len(files), bool)
    tested[whole] = split.test
    for label in np.flatnonzero(counts):
        if not 0 < tested[labels == label].sum() < counts[label]:
            raise DataError(
                f"the {counts[label]:,} images of class {shown_path(names[label])} are copies of one image, which "
                "cannot be both a training and a test image; add other images or remove the class"
            )
    line = (
        f"the {len(whole):,} images in {where} have no split: {split.test.sum():,} of them are the test images "
        f"(data.test_fraction={fraction:g})"
    )
    lines = [line + (f"; {split.alike:,} near-duplicates stay on one side" if split.alike else "")]
    if split.loosened:
        of_classes = listed([shown_path(names[label]) for label in split.loosened], "class")
        lines.append(
            f"so many images look alike in {of_classes}, that only exact copies stay on one side there: their test "
            "images may be easier than new images"
        )
    train, test = ([file for file, is_test in zip(files, tested, strict=True) if is_test == side] for side in (0, 1))
    return train, test, lines


def choose(
    labels: NDArray[np.int64], alike: NDArray[np.int64], copies: NDArray[np.int64], *, fraction: float, seed: int
) -> Split:
    """Draws whole groups of images as test images, as near to this fraction of each class as the groups allow.

    `labels` (M,) are the classes. `alike` (M,) has the number of each image's group of near-duplicates, and `copies`
    (M,) that of its group of exact copies, which lies within one group of near-duplicates. A class of at least two
    images has one on each side, unless all its images are copies of each other.
    """
    counts = np.bincount(labels)
    wanted = np.minimum(np.maximum((fraction * counts + 0.5).astype(np.int64), 1), counts - 1)
    group = np.unique(alike, return_inverse=True)[1]
    too_large = {
        of_group
        for of_group, classes in _held(group, labels)
        if (classes[:, 1] > (counts - wanted)[classes[:, 0]]).any()
    }
    broken_up = np.isin(group, list(too_large))
    group = np.unique(np.where(broken_up, -1 - copies, group), return_inverse=True)[1]
    taken, in_test = np.zeros(len(counts), np.int64), np.zeros(group.max() + 1, bool)
    held = dict(_held(group, labels))
    # The random streams (seed, 0, ...) and (seed, epoch) are taken: they draw shares and batches.
    for one in np.random.default_rng((seed, 2, 1)).permutation(len(held)).tolist():
        label, count = held[one].T
        if (taken[label] + count <= wanted[label]).all():
            taken[label] += count
            in_test[one] = True
    _fill(held, in_test, taken, wanted, counts)
    sizes = np.bincount(group)
    loosened = tuple(np.unique(labels[broken_up]).tolist())
    return Split(in_test[group], int(sizes[sizes > 1].sum()), loosened)


def _held(group: NDArray[np.int64], labels: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Returns each group with its rows (class, number of images of that class)."""
    rows, counts = np.unique(np.stack([group, labels], 1), axis=0, return_counts=True)
    table = np.column_stack([rows, counts])
    starts = np.flatnonzero(np.diff(table[:, 0], prepend=-1))
    return [(int(part[0, 0]), part[:, 1:]) for part in np.split(table, starts[1:])]


def _fill(
    held: dict[int, NDArray[np.int64]],
    in_test: NDArray[np.bool_],
    taken: NDArray[np.int64],
    wanted: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Adds groups that are too large, if that brings the numbers nearer to those wanted or a class has no image."""
    for label in np.flatnonzero(taken < wanted).tolist():
        candidates = [one for one, classes in held.items() if not in_test[one] and label in classes[:, 0]]
        while candidates and taken[label] < wanted[label]:
            costs = []
            for one in candidates:
                of, count = held[one].T
                after = taken[of] + count
                leaves_none = (after >= counts[of]).any()
                costs.append(np.inf if leaves_none else (abs(after - wanted[of]) - abs(taken[of] - wanted[of])).sum())
            best = int(np.argmin(costs))
            if costs[best] == np.inf or (costs[best] >= 0 and taken[label] > 0):
                break
            one = candidates.pop(best)
            of, count = held[one].T
            taken[of] += count
            in_test[one] = True


def _groups(
    files: Sequence[File], cache: Path, progress: bool, workers: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the groups of near-duplicates and of exact copies, (M,) each, and keeps them; -1 for broken files."""
    paths, stamps = [file.path for file in files], [file.stamp for file in files]
    kept = place_of(paths, stamps, cache).with_suffix(f".alike{ALIKE}.npz")
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile), open(kept, "rb") as file:
        found = np.load(file, allow_pickle=False)["groups"]  # npz files have a checksum
        if found.shape == (2, len(files)) and found.dtype == np.int64:
            return found[0], found[1]
    seen = survey(paths, stamps, cache, progress=progress, workers=workers)
    whole = np.flatnonzero([facts.error is None for facts in seen.facts])
    found = np.full((2, len(files)), -1, np.int64)
    found[0, whole] = groups(len(files), similar_pairs(seen.thumbnails, whole))[whole]
    found[1, whole] = first_equals(seen.thumbnails, whole)
    buffer = io.BytesIO()
    np.savez(buffer, groups=found)
    with suppress(StorageError):  # without this file, the groups are computed again the next time
        write(kept, buffer.getvalue(), folders=True)
    return found[0], found[1]
