"""Your own images: `train/<class>/*` and `test/<class>/*` (or `val/<class>/*`), at any depth below the class.

One rule for every file: Pillow decodes it; the first frame of an animation; turned as its EXIF tag says; 16-bit grey
divided by 257; transparency laid on white; then RGB. The shortest side is resized to the image size (bilinear with
antialiasing) and the middle cut out. A file is an image when its ending says so; hidden files and others are counted.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from vitbench.data.cache import Contents, Rows, cached, duplicates, listed, write_rows
from vitbench.data.decode import decode, mapped, opened, shown_path
from vitbench.data.files import Files, Pool
from vitbench.data.split import Dataset
from vitbench.errors import DataError
from vitbench.machine.progress import progress as progress_bar

DECODING = 1  # bump when the rule above changes
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CHUNK = 256  # images a worker decodes at a time
JUNK = {"thumbs.db", "desktop.ini"}
EXPECTED_FOLDERS = "expected train/<class>/* and test/<class>/* (or val/<class>/*) in it"


@dataclass
class Found:
    """The image files of one split, by the name of the class folder."""

    files: dict[str, list[str]] = field(default_factory=dict)
    hidden: int = 0
    links: int = 0  # to what is read under its own name
    others: list[str] = field(default_factory=list)
    times: list[tuple[str, int, int]] = field(default_factory=list)  # relative name, bytes, nanoseconds


def load(
    *,
    root: Path,
    cache: Path,
    image_size: int | None = None,
    progress: bool = False,
    skip_broken: bool = False,
    follow_links: bool = False,
    workers: int | None = None,
    files: bool = False,
) -> Dataset:
    """Both splits from the cache, decoded where they are new; DataError names what is wrong and where.

    With `files` all are decoded once for an index, and from then on whenever they are asked for.
    """
    root = root.absolute()
    try:
        found = [scan(folder, root, follow_links) for folder in _splits(root)]
    except OSError as error:
        raise DataError(f"{shown_path(error.filename or root)} cannot be read: {error.strerror}") from None
    folders = _classes(*found)
    labelled = [(path, label) for part in found for label, name in enumerate(folders) for path in part.files[name]]
    paths, labels = [path for path, _ in labelled], np.array([label for _, label in labelled], np.int64)
    train = sum(len(found[0].files[name]) for name in folders)
    classes = tuple(shown_path(name) for name in folders)

    def build(rows: Rows) -> Contents:
        size = image_size or _common_size(paths)
        rows.allocate(len(paths), 3, size, ", or machine.images=files, which decodes them whenever they are asked for")
        broken = _decode_all(paths, rows, size, progress, workers)
        names = [shown_path(os.path.relpath(path, root)) for path in paths]
        notes = partial(duplicates, names=names, labels=labels, train=train, broken=broken)
        return Contents(labels[:train], labels[train:], classes, broken, notes)

    def read(shape: tuple[int, ...], dropped: list[int], digests: np.ndarray) -> Files:
        lost = set(dropped)
        kept = [path for row, path in enumerate(paths) if row not in lost] if lost else paths
        return Files(decode, kept, shape, digests, Pool())

    identity = [DECODING, str(root.resolve()), image_size, classes, found[0].times, found[1].times]
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in root.resolve().name)[:40] or "images"
    dataset = cached(cache, name, identity, build, skip_broken=skip_broken, files=read if files else None)
    return replace(dataset, warnings=(*dataset.warnings, *_ignored(found)))


# ------------------------------------------------------------------------------------------------------------- finding


def _splits(root: Path) -> tuple[Path, Path]:
    if not root.exists():
        raise DataError(f"data.root={shown_path(root)}: no such folder; {EXPECTED_FOLDERS}")
    if not root.is_dir():
        raise DataError(f"data.root={shown_path(root)} is a file; {EXPECTED_FOLDERS}")
    if not (root / "train").is_dir():
        raise DataError(f"data.root={shown_path(root)}: has no folder train; {EXPECTED_FOLDERS}")
    for name in ("test", "val"):
        if (root / name).is_dir():
            return root / "train", root / name
    raise DataError(f"data.root={shown_path(root)}: has no folder test or val; {EXPECTED_FOLDERS}")


def scan(split: Path, root: Path, follow_links: bool) -> Found:
    """The classes of a split and their image files in name order; each file once, links only where allowed."""
    found = Found()
    _follow(split, split, root, follow_links)
    for entry in _visible(split, split, root, follow_links, found):
        if entry.is_dir():
            found.files[entry.name] = list(_walk(entry.path, split, root, follow_links, found, set()))
        else:
            found.others.append(entry.name)
    if not found.files:
        raise DataError(f"{shown_path(split)} holds no class folders; expected {split.name}/<class>/*")
    if empty := [shown_path(name) for name, files in found.files.items() if not files]:
        raise DataError(
            f"{shown_path(split)}: no images in {listed(empty, 'class')} (endings read: {' '.join(IMAGE_ENDINGS)})"
        )
    return found


def _walk(
    folder: str, split: Path, root: Path, follow_links: bool, found: Found, seen: set[tuple[int, int]]
) -> Iterator[str]:
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return  # a loop of links outside the split
    seen.add((status.st_dev, status.st_ino))
    for entry in _visible(folder, split, root, follow_links, found):
        if entry.is_dir():
            yield from _walk(entry.path, split, root, follow_links, found, seen)
        elif not entry.name.lower().endswith(IMAGE_ENDINGS):
            found.others.append(entry.name)
        else:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{shown_path(entry.path)} is no ordinary file (a pipe, socket or device); remove it")
            relative = entry.path[len(str(root)) + 1 :]  # os.path.relpath takes a second for 100,000 files
            found.times.append((relative, status.st_size, status.st_mtime_ns))
            yield entry.path


def _visible(
    folder: str | Path, split: Path, root: Path, follow_links: bool, found: Found
) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, in name order; counts what is hidden, and the links to what is read anyway."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith(".") or entry.name.lower() in JUNK:
            found.hidden += 1
        elif entry.is_symlink() and _follow(Path(entry.path), split, root, follow_links):
            found.links += 1
        else:
            yield entry


def _follow(path: Path, split: Path, root: Path, follow_links: bool) -> bool:
    """Whether a link leads to what is read under its own name, or back up; refuses broken ones and ways out."""
    target = Path(os.path.realpath(path))
    if not os.path.exists(target):
        raise DataError(f"{shown_path(path)} is a broken link (to {shown_path(os.readlink(path))}); remove it")
    if not follow_links and not target.is_relative_to(root.resolve()):
        raise DataError(
            f"{shown_path(path)} is a link out of data.root, to {shown_path(target)}; set data.follow_links=true to"
            " read it"
        )
    here = split.resolve()
    if target.is_relative_to(here):
        return not any(part.startswith(".") for part in target.relative_to(here).parts)
    return here.is_relative_to(target)


def _classes(train: Found, test: Found) -> tuple[str, ...]:
    """The class folders in name order; refuses names that a person, a file system or a table would confuse."""
    alike: dict[str, str] = {}
    for name in sorted(train.files.keys() | test.files.keys()):
        plain = " ".join(unicodedata.normalize("NFKC", shown_path(name)).casefold().split())
        if plain in alike:
            raise DataError(
                f"data.root: classes {alike[plain]!a} and {name!a} differ only in case, space or Unicode form;"
                " rename one"
            )
        alike[plain] = name
    if different := sorted(train.files.keys() ^ test.files.keys()):
        names = [f"{shown_path(name)} (only in {'train' if name in train.files else 'test'})" for name in different]
        raise DataError(f"data.root: train and test have different classes, {listed(names, 'class')}")
    if len(train.files) < 2:
        raise DataError(
            f"data.root: one class alone, {shown_path(next(iter(train.files)))}; a classifier needs two or more"
        )
    return tuple(sorted(train.files))


def _ignored(found: list[Found]) -> list[str]:
    hidden, links = sum(part.hidden for part in found), sum(part.links for part in found)
    others = [shown_path(name) for part in found for name in part.others]
    notes = [f"ignored {hidden:,} hidden file{'s' * (hidden > 1)}"] if hidden else []
    notes += [f"ignored {links:,} link{'s' * (links > 1)} to images or folders that are read anyway"] if links else []
    return notes + ([f"ignored {listed(others, 'file')} (no image by its ending)"] if others else [])


# ------------------------------------------------------------------------------------------------------------ decoding


def _common_size(paths: list[str]) -> int:
    """The side that all images share; headers alone are read."""
    first: tuple[str, int] | None = None
    for path in paths:
        try:
            with opened(path) as image:
                width, height = image.size
        except ValueError:
            continue  # reported when it is decoded
        if width != height or (first is not None and width != first[1]):
            unlike = f" and {shown_path(first[0])} {first[1]} x {first[1]}" if first and width == height else ""
            raise DataError(
                f"{shown_path(path)} has {width} x {height} px{unlike}: set data.image_size=PIXELS to scale all to one"
                " square size"
            )
        first = first or (path, width)
    if first is None:
        raise DataError(f"{shown_path(paths[0])}: none of the {len(paths):,} files can be read as an image")
    return first[1]


def _decode_chunk(job: tuple[int, list[str]], target: Path | None, size: int) -> tuple[int, np.ndarray, dict[int, str]]:
    """Decodes some files into the cache; returns where they begin, their digests, and what is wrong with which."""
    first, paths = job
    images, broken = np.zeros((len(paths), 3, size, size), np.uint8), {}
    for place, path in enumerate(paths):
        try:
            images[place] = decode(path, size)
        except ValueError as error:
            broken[first + place] = f"{shown_path(path)} ({error})"
    return first, write_rows(target, first, images), broken


def _decode_all(paths: list[str], rows: Rows, size: int, progress: bool, workers: int | None) -> dict[int, str]:
    jobs = [(first, paths[first : first + CHUNK]) for first in range(0, len(paths), CHUNK)]
    work = partial(_decode_chunk, target=rows.path, size=size)
    broken: dict[int, str] = {}
    with (
        mapped(workers, len(jobs)) as map_jobs,
        progress_bar("decoding", len(paths), "images", None if progress else False) as bar,
    ):
        for first, digests, wrong in map_jobs(work, jobs):
            rows.digests[first : first + len(digests)] = digests
            broken.update(wrong)
            bar.update(first + len(digests))
    return broken
