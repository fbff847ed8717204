"""Tells the size and the number of a source's images before they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Size(NamedTuple):
    """Facts about a public set that are known before it is downloaded."""

    side: int | None  # in pixels; None if the photographs have various sizes
    train_images: int


PUBLIC_SETS = {
    "cifar10": Size(32, 50_000),
    "cifar100": Size(32, 50_000),
    "mnist": Size(28, 60_000),
    "fashion_mnist": Size(28, 60_000),
    "svhn": Size(32, 73_257),
    "stl10": Size(96, 5_000),
    "flowers102": Size(None, 2_040),
    "food101": Size(None, 75_750),
    "imagenet": Size(None, 1_281_167),
}
SHAPES = 32  # default width of drawn images in pixels


def own_size(source: str, root: str) -> int | None:
    """Returns the side of a source's images in pixels; None if it is not known."""
    if source == "imagefolder":
        return _size_of_first(root)
    return SHAPES if source == "shapes" else PUBLIC_SETS[source].side if source in PUBLIC_SETS else None


def count_train_images(source: str, *, root: str, **options: Any) -> int | None:
    """Returns the number of a source's training images without decoding any; `options` are the source's own.

    Returns None if it is not known, for example if `classes` chooses some. Raises DataError if a folder cannot be used.
    """
    if options.get("classes") is not None:
        return None
    if source in PUBLIC_SETS:
        return PUBLIC_SETS[source].train_images
    if source == "imagefolder":
        from vitbench.data.imagefolder import listed_train_images

        return listed_train_images(Path(root), **options)
    images: int | None = options.get("train_images")
    return images


@cache  # the runs of a sweep ask for it one by one
def _size_of_first(root: str) -> int | None:
    """Returns the side of the first image of a folder. Decoding will refuse the folder if other images differ."""
    from vitbench.data.decode import opened
    from vitbench.errors import DataError

    try:
        for path in _images(root):
            try:
                with opened(path) as image:
                    return min(image.size)
            except ValueError:
                continue  # decoding reports it
    except (OSError, DataError):
        pass  # opening the images reports it
    return None


def _images(folder: str) -> Iterator[str]:
    """Yields the images in a folder and below, in name order."""
    from vitbench.data.listing import entries_of, is_hidden, is_image, is_system_folder

    for entry in entries_of(folder):
        if is_hidden(entry.name) or is_system_folder(entry) or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _images(entry.path)
        elif is_image(entry.name):
            yield entry.path
