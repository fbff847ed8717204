"""Loads your own images from class folders with or without a split, or by a table of labels (`layout.py`, `labels.py`).

Every file is treated in the same way. Pillow decodes it; of an animation, only the first frame. It is turned as its
EXIF tag says. Grey of 12 or 16 bits is scaled to 8 bits. Transparency is laid on white. The result is converted to RGB,
and colour profiles are ignored. The shorter side is resized to the image size (bilinear with antialiasing), and the
middle is cut out; `data.fit` has other ways.

The ending of a file says whether it is an image. Hidden files and other files are ignored, and a warning counts them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitbench.data.cache import Contents, Rows, cached, duplicates, listed, write_rows
from vitbench.data.decode import DIM, Noticed, decode, decode_and_notice, mapped, opened
from vitbench.data.files import Files, Pool
from vitbench.data.holdout import SPLIT_SEED, TEST_FRACTION, hold_out
from vitbench.data.labels import layout_of
from vitbench.data.layout import Layout
from vitbench.data.listing import File, colliding
from vitbench.data.scan import Scan, remembered, scan_of_stamps
from vitbench.data.split import Dataset
from vitbench.errors import DataError, UserError
from vitbench.machine.progress import progress as progress_bar
from vitbench.machine.terminal import shown_path

# The version of the rule above by the ending of a file; raise it when the rule decodes such files to other pixels. All
# other endings have version 1. Caches of endings whose version did not change stay valid.
DECODING = dict.fromkeys((".jpeg", ".jpg", ".png", ".tif", ".tiff"), 2)
CHUNK = 256  # number of images that a worker decodes at a time
WHAT_FIT_DOES = {
    "crop": "their middle is cut out (data.fit=crop; data.fit=pad and data.fit=squash keep the whole image)",
    "pad": "black borders make them square (data.fit=pad)",
    "squash": "they are stretched to a square (data.fit=squash)",
}


def load(
    *,
    root: Path,
    cache: Path,
    image_size: int | None = None,
    progress: bool = False,
    skip_broken: bool = False,
    follow_links: bool = False,
    labels: str | None = None,
    test_fraction: float = TEST_FRACTION,
    split_seed: int = SPLIT_SEED,
    fit: str = "crop",
    workers: int | None = None,
    files: bool = False,
) -> Dataset:
    """Opens both splits from the cache, and decodes them first if they are new. A DataError names the wrong file.

    With `files`, the cache keeps only an index, and each image is decoded whenever it is needed.
    """
    root = root.absolute()
    layout = layout_of(root, labels, follow_links)
    names = _class_names(layout)
    train, test, notes = _both_splits(layout, test_fraction, split_seed, cache, progress, workers)
    classes, images = tuple(shown_path(name) for name in names), train + test
    paths, number = [file.path for file in images], {name: label for label, name in enumerate(names)}
    truth = np.array([number[file.label] for file in images], np.int64)

    def build(rows: Rows) -> Contents:
        size = image_size or _common_size(paths)
        rows.allocate(len(paths), 3, size, ", or type machine.images=files, which decodes images when they are needed")
        broken, noticed = _decode_all(paths, rows, size, fit, progress, workers)
        shown = [shown_path(os.path.relpath(path, root)) for path in paths]

        def find_warnings(digests: np.ndarray) -> list[str]:
            copies = duplicates(digests, names=shown, labels=truth, train=len(train), broken=broken)
            return [*copies, *_told(noticed, len(paths), fit)]

        return Contents(truth[: len(train)], truth[len(train) :], classes, broken, find_warnings)

    def read(shape: tuple[int, ...], dropped: list[int], digests: np.ndarray) -> Files:
        broken = set(dropped)
        whole = [path for row, path in enumerate(paths) if row not in broken] if broken else paths
        return Files(partial(decode, fit=fit, known=True), whole, shape, digests, Pool())

    version = max(DECODING.get(os.path.splitext(path)[1].lower(), 1) for path in paths)
    identity = [version, str(root.resolve()), image_size, classes, [file.stamp for file in train]]
    identity += [[file.stamp for file in test]]
    identity += [] if labels is None else [truth.tolist()]  # without a table, the paths contain the classes
    identity += [] if fit == "crop" else [fit]
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in root.resolve().name)[:40] or "images"
    dataset = cached(cache, name, identity, build, skip_broken=skip_broken, reader=read if files else None)
    warnings = (*notes, *dataset.warnings, *layout.ignored)
    return replace(dataset, warnings=warnings, scan=_scan(root, layout))


class Seen(NamedTuple):
    """Facts about a folder that the names of its files tell."""

    scan: Scan
    train_files: int  # the number of training files, or of all files if there is no split
    has_split: bool


def look_at(root: Path, *, labels: str | None = None, follow_links: bool = False, **_: Any) -> Seen:
    """Lists the files of a folder and remembers them until `forget_scans()`. Raises DataError like `load`."""

    def look() -> Seen:
        layout = layout_of(root.absolute(), labels, follow_links)
        _class_names(layout)
        return Seen(_scan(root, layout), len(layout.train), layout.test is not None)

    return remembered(["imagefolder", str(root.absolute()), labels, follow_links], look)


def _scan(root: Path, layout: Layout) -> Scan:
    splits = (layout.train, layout.test or [])
    return scan_of_stamps(root, [DECODING, *([[file.label, *file.stamp] for file in split] for split in splits)])


def listed_train_images(
    root: Path, *, labels: str | None = None, follow_links: bool = False, test_fraction: float = TEST_FRACTION, **_: Any
) -> int:
    """Returns about how many training images `load` would find, by the names of files. Raises DataError like `load`."""
    seen = look_at(root, labels=labels, follow_links=follow_links)
    return seen.train_files if seen.has_split else round((1 - test_fraction) * seen.train_files)


# ------------------------------------------------------------------------------------------------------------- splits


def _both_splits(
    layout: Layout, fraction: float, seed: int, cache: Path, progress: bool, workers: int | None
) -> tuple[list[File], list[File], list[str]]:
    """Returns training files, test files, and lines about them. UserError if a split is typed that the folder has."""
    if layout.test is None:
        train, test, lines = hold_out(
            layout.train, layout.where, fraction=fraction, seed=seed, cache=cache, progress=progress, workers=workers
        )
        return train, test, [*layout.notes, *lines]
    for key, typed, usual in (("test_fraction", fraction, TEST_FRACTION), ("split_seed", seed, SPLIT_SEED)):
        if typed != usual:
            raise UserError(f"data.{key}={typed}: these images come with test images of their own; drop it")
    return layout.train, layout.test, [*layout.notes]


def _class_names(layout: Layout) -> tuple[str, ...]:
    """Returns the names of the classes in order. Refuses names that people, file systems or tables would confuse."""
    train = {file.label for file in layout.train}
    test = train if layout.test is None else {file.label for file in layout.test}
    for one, other, *_ in colliding(sorted(train | test)):
        raise DataError(
            f"data.root: classes {one!a} and {other!a} differ only in case, space or Unicode form; rename one"
        )
    if in_one_split := sorted(train ^ test):
        shown = [f"{shown_path(name)} (only in {'train' if name in train else 'test'})" for name in in_one_split]
        raise DataError(f"data.root: train and test must have the same classes; {listed(shown, 'class')}")
    if len(train) < 2:
        only_class = shown_path(next(iter(train)))
        raise DataError(f"data.root: there is only one class, {only_class}; a classifier needs two or more")
    return tuple(sorted(train))


# ------------------------------------------------------------------------------------------------------------ decoding


def _common_size(paths: list[str]) -> int:
    """Returns the side of all images, read from their headers. Raises DataError if they differ or are not square."""
    first: tuple[str, int] | None = None
    for path in paths:
        try:
            with opened(path) as image:
                width, height = image.size
        except ValueError:
            continue  # decoding reports it
        if width != height or (first is not None and width != first[1]):
            other = f" and {shown_path(first[0])} {first[1]} x {first[1]}" if first and width == height else ""
            raise DataError(
                f"{shown_path(path)} has {width} x {height} px{other}: set data.image_size=PIXELS to resize all images "
                "to one square size"
            )
        first = first or (path, width)
    if first is None:
        raise DataError(f"{shown_path(paths[0])}: none of the {len(paths):,} files can be read as an image")
    return first[1]


def _decode_chunk(
    job: tuple[int, list[str]], target: Path | None, size: int, fit: str
) -> tuple[int, np.ndarray, dict[int, str], Counter[Noticed]]:
    """Decodes some files into the cache.

    Returns their first row, their digests, the faults of broken files by row, and the number of files by what was
    noticed.
    """
    first, paths = job
    images, broken, noticed = np.zeros((len(paths), 3, size, size), np.uint8), {}, Counter[Noticed]()
    for place, path in enumerate(paths):
        try:
            images[place], what = decode_and_notice(path, size, fit)
            noticed[what] += 1
        except ValueError as error:
            broken[first + place] = f"{shown_path(path)} ({error})"
    return first, write_rows(target, first, images), broken, noticed


def _decode_all(
    paths: list[str], rows: Rows, size: int, fit: str, progress: bool, workers: int | None
) -> tuple[dict[int, str], Counter[Noticed]]:
    """Decodes all files into the cache; returns the faults by row, and the number of files by what was noticed."""
    jobs = [(first, paths[first : first + CHUNK]) for first in range(0, len(paths), CHUNK)]
    work = partial(_decode_chunk, target=rows.path, size=size, fit=fit)
    broken: dict[int, str] = {}
    noticed = Counter[Noticed]()
    with (
        mapped(workers, len(jobs)) as map_jobs,
        progress_bar("decoding", len(paths), "images", None if progress else False) as bar,
    ):
        for first, digests, newly_broken, newly_noticed in map_jobs(work, jobs):
            rows.digests[first : first + len(digests)] = digests
            broken.update(newly_broken)
            noticed += newly_noticed
            bar.update(first + len(digests))
    return broken, noticed


def _told(noticed: Counter[Noticed], images: int, fit: str) -> Iterable[str]:
    """Yields lines that the user should read about how files became images."""
    if oblong := sum(count for what, count in noticed.items() if what.oblong):
        yield f"{oblong:,} of {images:,} images are not square: {WHAT_FIT_DOES[fit]}"
    if dim := sum(count for what, count in noticed.items() if what.dim):
        yield (
            f"{dim:,} of {images:,} images are grey of 12 or 16 bits and use at most 1/{DIM} of their range, so they "
            "are nearly black; scale their values up"
        )
    profiles = Counter[str]()
    for what, count in noticed.items():
        if what.profile:
            profiles[shown_path(what.profile)] += count
    if profiles:
        yield (
            f"{profiles.total():,} of {images:,} images have a colour profile other than sRGB, which is ignored: "
            f"{listed([name for name, _ in profiles.most_common()], 'profile')}"
        )
