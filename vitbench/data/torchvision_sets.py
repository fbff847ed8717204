"""Public data sets through `torchvision.datasets`, downloaded on first use with their checksums, decoded once.

torchvision is imported where a set is first decoded (2.6 s); opening a decoded one does not need it. Photographs are
converted as `imagefolder` does, sets of one small size as they are.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitbench.data.cache import STORAGE, Contents, Rows, cached, duplicates, storage_errors, write_rows
from vitbench.data.decode import mapped, rgb, square
from vitbench.data.split import Dataset
from vitbench.errors import DataError
from vitbench.machine.progress import progress as progress_bar

DECODING = 1  # bump when a pixel changes
CHUNK = 512  # images decoded between two writes
# what torchvision lets through when files are missing, broken or not to be had; URLError is an OSError
BROKEN_ARCHIVE = (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
UNAVAILABLE = (RuntimeError, OSError, HTTPException, *BROKEN_ARCHIVE)


class Source(NamedTuple):
    """How torchvision names a set and its splits."""

    name: str
    train: tuple[dict[str, Any], ...]
    test: tuple[dict[str, Any], ...]
    size: int | None  # pixels; None: the photographs have many sizes
    channels: int = 3
    download: bool = True


_FLAGS = ({"train": True},), ({"train": False},)
_SPLITS = ({"split": "train"},), ({"split": "test"},)

SETS = {
    "cifar10": Source("CIFAR10", *_FLAGS, 32),
    "cifar100": Source("CIFAR100", *_FLAGS, 32),
    "mnist": Source("MNIST", *_FLAGS, 28, channels=1),
    "fashion_mnist": Source("FashionMNIST", *_FLAGS, 28, channels=1),
    "svhn": Source("SVHN", *_SPLITS, 32),
    "stl10": Source("STL10", *_SPLITS, 96),
    # its own train split has 10 images a class; train and val together are what is usually trained on
    "flowers102": Source("Flowers102", ({"split": "train"}, {"split": "val"}), ({"split": "test"},), None),
    "food101": Source("Food101", *_SPLITS, None),
    "imagenet": Source("ImageNet", ({"split": "train"},), ({"split": "val"},), None, download=False),
}


def load(source: str, *, root: Path, cache: Path, image_size: int | None = None, progress: bool = False) -> Dataset:
    """Both splits from the cache; the first time downloaded into `root` and decoded."""
    about = SETS[source]
    size = image_size or about.size
    if size is None:
        raise DataError(
            f"data={source}: its photographs have many sizes; set data.image_size, for example data.image_size=64"
        )

    def build(rows: Rows) -> Contents:
        with storage_errors(f"data.root={root}"):
            splits = [[_open(source, about, root, options) for options in part] for part in (about.train, about.test)]
        train, parts = sum(len(part) for part in splits[0]), [part for split in splits for part in split]
        starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        rows.allocate(starts[-1], about.channels, size)
        labels = np.empty(starts[-1], np.int64)
        jobs = [
            (start + first, number, range(first, min(first + CHUNK, len(part))))
            for number, (start, part) in enumerate(zip(starts, parts, strict=False))
            for first in range(0, len(part), CHUNK)
        ]
        work = partial(_decode_chunk, target=rows.path, size=size, source=source, root=root)
        # sets of small images are in memory already, in one array; of photographs each process opens its own
        workers = 1 if about.size or starts[-1] <= CHUNK else None
        try:
            with (
                mapped(workers, len(jobs), _receive, parts) as map_jobs,
                progress_bar(f"decoding {source}", starts[-1], "images", None if progress else False) as bar,
            ):
                for row, digests, some_labels in map_jobs(work, jobs):
                    rows.digests[row : row + len(digests)] = digests
                    labels[row : row + len(digests)] = some_labels
                    bar.update(row + len(digests))
        finally:
            _receive([])
        names = [f"training image {i}" for i in range(train)] + [f"test image {i}" for i in range(len(labels) - train)]
        notes = partial(duplicates, names=names, labels=labels, train=train)
        return Contents(labels[:train], labels[train:], _class_names(parts[0], labels), find_warnings=notes)

    # the sets are fixed and checksummed, so their name says what they hold
    return cached(cache, source, [DECODING, source, size, str(root.absolute())], build)


def _open(source: str, about: Source, root: Path, options: dict[str, Any]) -> Any:
    from torchvision import datasets

    kind = getattr(datasets, about.name)
    try:
        return kind(str(root), **options, **({"download": True} if about.download else {}))
    except UNAVAILABLE as error:
        if isinstance(error, OSError) and error.errno in STORAGE:
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        tried = "downloaded to" if about.download else "found (its licence asks you to bring the archives) in"
        raise DataError(
            f"data={source}: torchvision.datasets.{about.name} could not be {tried} data.root={root} ({reason}); "
            "data=shapes needs no download, data=imagefolder data.root=FOLDER reads images you have"
        ) from None


_parts: list[Any] = []  # the torchvision sets that this process decodes


def _receive(parts: list[Any]) -> None:
    _parts[:] = parts


def _decode_chunk(
    job: tuple[int, int, range], target: Path | None, size: int, source: str, root: Path
) -> tuple[int, np.ndarray, list[int]]:
    """Decodes some images of one part into the cache; returns where they begin, their digests and their labels."""
    row, number, places = job
    images, labels = [], []
    for place in places:
        try:
            image, label = _parts[number][place]
        except OSError as error:  # Pillow's too
            raise DataError(
                f"data={source}: image {place} in data.root={root} cannot be read ({error}); remove its folder there, "
                "and it is unpacked again"
            ) from None
        images.append(_pixels(image, size, SETS[source].channels))
        labels.append(int(label))
    return row, write_rows(target, row, np.stack(images)), labels


def _pixels(image: Any, size: int, channels: int) -> np.ndarray:
    return square(image if channels == 1 else rgb(image), size)


def _class_names(dataset: Any, labels: np.ndarray) -> tuple[str, ...]:
    """The set's own names where it has one for each class, else the numbers.

    ImageNet's are tuples of synonyms, the first of which two pairs of classes share (crane and maillot).
    """
    count = int(labels.max()) + 1
    names = getattr(dataset, "classes", None)
    if names is None or len(names) != count:
        return tuple(str(label) for label in range(count))
    firsts = [name[0] if isinstance(name, tuple) else str(name) for name in names]
    times = Counter(firsts)
    return tuple(f"{name} ({label})" if times[name] > 1 else name for label, name in enumerate(firsts))


cifar10 = partial(load, "cifar10")
cifar100 = partial(load, "cifar100")
mnist = partial(load, "mnist")
fashion_mnist = partial(load, "fashion_mnist")
svhn = partial(load, "svhn")
stl10 = partial(load, "stl10")
flowers102 = partial(load, "flowers102")
food101 = partial(load, "food101")
imagenet = partial(load, "imagenet")
