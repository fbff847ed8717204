"""Your own images: `train/<class>/*` and `test/<class>/*` (or `val/<class>/*`), at any depth below the class.

One rule holds for every file. Pillow decodes it, the first frame where it is an animation; it is turned as its EXIF tag
says; 16-bit grey is divided by 257; transparency is laid on white; the result is converted to RGB. The shortest side is
resized to the image size (bilinear with antialiasing) and the middle is cut out.

A file is an image if its ending says so. Hidden files and other files are ignored, and a warning counts them.
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
CHUNK = 256  # images that a worker decodes at a time
JUNK = {"thumbs.db", "desktop.ini"}
EXPECTED_FOLDERS = "expected train/<class>/* and test/<class>/* (or val/<class>/*) in it"


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
    """Opens both splits from the cache; decodes them first where they are new. DataError names what is wrong and where.

    With `files`, the cache keeps only an index, and each image is decoded again whenever it is needed.
    """
    root = root.absolute()
    try:
        train, test = (SplitFiles(folder, root, follow_links).scan() for folder in _split_folders(root))
    except OSError as error:
        raise DataError(f"{shown_path(error.filename or root)} cannot be read: {error.strerror}") from None
    folders = _class_folders(train, test)
    classes = tuple(shown_path(name) for name in folders)
    groups = [(label, split.files[name]) for split in (train, test) for label, name in enumerate(folders)]
    paths = [path for _, group in groups for path in group]
    labels = np.array([label for label, group in groups for _ in group], np.int64)
    train_images = sum(map(len, train.files.values()))

    def build(rows: Rows) -> Contents:
        size = image_size or _common_size(paths)
        rows.allocate(len(paths), 3, size, ", or machine.images=files, which decodes them whenever they are asked for")
        broken = _decode_all(paths, rows, size, progress, workers)
        names = [shown_path(os.path.relpath(path, root)) for path in paths]
        find_warnings = partial(duplicates, names=names, labels=labels, train=train_images, broken=broken)
        return Contents(labels[:train_images], labels[train_images:], classes, broken, find_warnings)

    def read(shape: tuple[int, ...], dropped: list[int], digests: np.ndarray) -> Files:
        broken = set(dropped)
        whole = [path for row, path in enumerate(paths) if row not in broken] if broken else paths
        return Files(decode, whole, shape, digests, Pool())

    identity = [DECODING, str(root.resolve()), image_size, classes, train.stamps, test.stamps]
    name = "".join(c if c.isalnum() and c.isascii() else "_" for c in root.resolve().name)[:40] or "images"
    dataset = cached(cache, name, identity, build, skip_broken=skip_broken, reader=read if files else None)
    return replace(dataset, warnings=(*dataset.warnings, *_ignored(train, test)))


# ------------------------------------------------------------------------------------------------------- listing files


def _split_folders(root: Path) -> tuple[Path, Path]:
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


@dataclass
class SplitFiles:
    """The image files of one split, listed by `scan`; each file is in it once."""

    folder: Path  # train, test or val
    root: Path
    follow_links: bool
    files: dict[str, list[str]] = field(default_factory=dict)  # class folder -> paths, both in name order
    stamps: list[tuple[str, int, int]] = field(default_factory=list)  # path below root, bytes, nanoseconds
    other_files: list[str] = field(default_factory=list)  # the names of files whose ending is no image's
    hidden: int = 0
    links: int = 0  # links that are ignored, because what they lead to is read under its own name

    def scan(self) -> SplitFiles:
        """Lists the files; DataError where the split has no classes or a class no images."""
        self._is_read_anyway(self.folder)  # refuses a folder that is itself a broken link or a link out
        for entry in self._visible(self.folder):
            if entry.is_dir():
                self.files[entry.name] = list(self._walk(entry.path, set()))
            else:
                self.other_files.append(entry.name)
        if not self.files:
            raise DataError(f"{shown_path(self.folder)} holds no class folders; expected {self.folder.name}/<class>/*")
        if empty := [shown_path(name) for name, paths in self.files.items() if not paths]:
            endings = " ".join(IMAGE_ENDINGS)
            raise DataError(
                f"{shown_path(self.folder)}: no images in {listed(empty, 'class')} (endings read: {endings})"
            )
        return self

    def _walk(self, folder: str, visited: set[tuple[int, int]]) -> Iterator[str]:
        """The paths of the images in a folder and below."""
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return  # links outside the split form a loop
        visited.add((status.st_dev, status.st_ino))
        for entry in self._visible(folder):
            if entry.is_dir():
                yield from self._walk(entry.path, visited)
            elif not entry.name.lower().endswith(IMAGE_ENDINGS):
                self.other_files.append(entry.name)
            else:
                status = entry.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise DataError(
                        f"{shown_path(entry.path)} is no ordinary file (a pipe, socket or device); remove it"
                    )
                relative = entry.path[len(str(self.root)) + 1 :]  # os.path.relpath takes a second for 100,000 files
                self.stamps.append((relative, status.st_size, status.st_mtime_ns))
                yield entry.path

    def _visible(self, folder: str | Path) -> Iterator[os.DirEntry[str]]:
        """The entries of a folder in name order, without hidden ones and needless links, which are counted."""
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            if entry.name.startswith(".") or entry.name.lower() in JUNK:
                self.hidden += 1
            elif entry.is_symlink() and self._is_read_anyway(Path(entry.path)):
                self.links += 1
            else:
                yield entry

    def _is_read_anyway(self, link: Path) -> bool:
        """Whether a link leads into the split, to what is read under its own name, or to a folder around the split.

        DataError where the link is broken, or leads out of the root without `follow_links`.
        """
        target = Path(os.path.realpath(link))
        if not os.path.exists(target):
            raise DataError(f"{shown_path(link)} is a broken link (to {shown_path(os.readlink(link))}); remove it")
        if not self.follow_links and not target.is_relative_to(self.root.resolve()):
            raise DataError(
                f"{shown_path(link)} is a link out of data.root, to {shown_path(target)}; set data.follow_links=true to"
                " read it"
            )
        split = self.folder.resolve()
        if target.is_relative_to(split):
            return not any(part.startswith(".") for part in target.relative_to(split).parts)
        return split.is_relative_to(target)


def _class_folders(train: SplitFiles, test: SplitFiles) -> tuple[str, ...]:
    """The names of the class folders, in order; refuses names that a person, a file system or a table would confuse."""
    by_plain_name: dict[str, str] = {}
    for name in sorted(train.files.keys() | test.files.keys()):
        plain = " ".join(unicodedata.normalize("NFKC", shown_path(name)).casefold().split())
        if plain in by_plain_name:
            raise DataError(
                f"data.root: classes {by_plain_name[plain]!a} and {name!a} differ only in case, space or Unicode form;"
                " rename one"
            )
        by_plain_name[plain] = name
    if in_one_split := sorted(train.files.keys() ^ test.files.keys()):
        names = [f"{shown_path(name)} (only in {'train' if name in train.files else 'test'})" for name in in_one_split]
        raise DataError(f"data.root: train and test have different classes, {listed(names, 'class')}")
    if len(train.files) < 2:
        only_class = shown_path(next(iter(train.files)))
        raise DataError(f"data.root: one class alone, {only_class}; a classifier needs two or more")
    return tuple(sorted(train.files))


def _ignored(train: SplitFiles, test: SplitFiles) -> Iterator[str]:
    """A warning for each kind of file that is not read."""
    hidden, links = train.hidden + test.hidden, train.links + test.links
    other_files = [shown_path(name) for name in (*train.other_files, *test.other_files)]
    if hidden:
        yield f"ignored {hidden:,} hidden file{'s' * (hidden > 1)}"
    if links:
        yield f"ignored {links:,} link{'s' * (links > 1)} to images or folders that are read anyway"
    if other_files:
        yield f"ignored {listed(other_files, 'file')} (no image by its ending)"


# ------------------------------------------------------------------------------------------------------------ decoding


def _common_size(paths: list[str]) -> int:
    """The side that all images share, read from their headers; DataError where they differ or are not square."""
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
                f"{shown_path(path)} has {width} x {height} px{other}: set data.image_size=PIXELS to scale all to one"
                " square size"
            )
        first = first or (path, width)
    if first is None:
        raise DataError(f"{shown_path(paths[0])}: none of the {len(paths):,} files can be read as an image")
    return first[1]


def _decode_chunk(job: tuple[int, list[str]], target: Path | None, size: int) -> tuple[int, np.ndarray, dict[int, str]]:
    """Decodes some files into the cache; returns their first row, their digests, and by row what is wrong with some."""
    first, paths = job
    images, broken = np.zeros((len(paths), 3, size, size), np.uint8), {}
    for place, path in enumerate(paths):
        try:
            images[place] = decode(path, size)
        except ValueError as error:
            broken[first + place] = f"{shown_path(path)} ({error})"
    return first, write_rows(target, first, images), broken


def _decode_all(paths: list[str], rows: Rows, size: int, progress: bool, workers: int | None) -> dict[int, str]:
    """Decodes all files into the cache; returns, by row, what is wrong with the broken ones."""
    jobs = [(first, paths[first : first + CHUNK]) for first in range(0, len(paths), CHUNK)]
    work = partial(_decode_chunk, target=rows.path, size=size)
    broken: dict[int, str] = {}
    with (
        mapped(workers, len(jobs)) as map_jobs,
        progress_bar("decoding", len(paths), "images", None if progress else False) as bar,
    ):
        for first, digests, newly_broken in map_jobs(work, jobs):
            rows.digests[first : first + len(digests)] = digests
            broken.update(newly_broken)
            bar.update(first + len(digests))
    return broken
