"""How large the images of a source are, and how many there are, before they are opened."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Size(NamedTuple):
    """What is known of a public set before it is downloaded."""

    side: int | None  # pixels; None where the photographs have many sizes
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
SHAPES = 32  # pixels of drawn images


def own_size(source: str, root: str) -> int | None:
    """The side of a source's images in pixels; None where nothing tells it."""
    if source == "imagefolder":
        return _size_of_first(root)
    return SHAPES if source == "shapes" else PUBLIC_SETS[source].side if source in PUBLIC_SETS else None


def count_train_images(source: str, *, root: str, **options: Any) -> int | None:
    """How many training images a source has, before any is decoded or downloaded; `options` are the source's own.

    None where this is not known, as where `classes` chooses some. DataError where a folder cannot be used.
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
    """The side of the first image of a folder; the others have the same, or are refused when they are decoded."""
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
        pass  # whoever opens the images reports it
    return None


def _images(folder: str) -> Iterator[str]:
    """The images of a folder and below, in name order."""
    from vitbench.data.listing import entries_of, is_hidden, is_image, is_system_folder

    for entry in entries_of(folder):
        if is_hidden(entry.name) or is_system_folder(entry) or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _images(entry.path)
        elif is_image(entry.name):
            yield entry.path
