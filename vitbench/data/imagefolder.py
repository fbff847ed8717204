"""Your own images: `train/<class>/*` and `test/<class>/*` (or `val/<class>/*`), at any depth below the class.

One rule for every file: Pillow decodes it; the first frame of an animation; turned as its EXIF tag says; 16-bit grey
divided by 257; transparency laid on white; then RGB. The shortest side is resized to the image size (bilinear with
antialiasing) and the middle cut out. A file is an image when its ending says so; hidden files and others are counted.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vitbench.data.cache import Contents, Rows, cached, duplicates, listed, write_rows
from vitbench.data.files import Files, Pool, may_start_processes
from vitbench.data.split import Dataset
from vitbench.errors import DataError
from vitbench.progress import progress as progress_bar
from vitbench.provenance import cores

DECODING = 1  # bump when the rule above changes
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LARGEST = 100_000_000  # pixels of a file before it is scaled down; a PNG of 12 kB can ask for 400 million
CHUNK = 256  # images a worker decodes at a time
JUNK = {"thumbs.db", "desktop.ini"}
LAYOUT = "expected train/<class>/* and test/<class>/* (or val/<class>/*) in it"


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
        raise DataError(f"{_shown(error.filename or root)} cannot be read: {error.strerror}") from None
    folders = _classes(*found)
    labelled = [(path, label) for part in found for label, name in enumerate(folders) for path in part.files[name]]
    paths, labels = [path for path, _ in labelled], np.array([label for _, label in labelled], np.int64)
    train = sum(len(found[0].files[name]) for name in folders)
    classes = tuple(_shown(name) for name in folders)

    def build(rows: Rows) -> Contents:
        size = image_size or _common_size(paths)
        rows.allocate(len(paths), 3, size, ", or machine.images=files, which decodes them whenever they are asked for")
        broken = _decode_all(paths, rows, size, progress, workers)
        names = [_shown(os.path.relpath(path, root)) for path in paths]
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
        raise DataError(f"data.root={_shown(root)}: no such folder; {LAYOUT}")
    if not root.is_dir():
        raise DataError(f"data.root={_shown(root)} is a file; {LAYOUT}")
    if not (root / "train").is_dir():
        raise DataError(f"data.root={_shown(root)}: has no folder train; {LAYOUT}")
    for name in ("test", "val"):
        if (root / name).is_dir():
            return root / "train", root / name
    raise DataError(f"data.root={_shown(root)}: has no folder test or val; {LAYOUT}")


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
        raise DataError(f"{_shown(split)} holds no class folders; expected {split.name}/<class>/*")
    if empty := [_shown(name) for name, files in found.files.items() if not files]:
        raise DataError(f"{_shown(split)}: no images in {listed(empty, 'class')} (endings read: {' '.join(ENDINGS)})")
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
        elif not entry.name.lower().endswith(ENDINGS):
            found.others.append(entry.name)
        else:
            status = entry.stat()
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{_shown(entry.path)} is no ordinary file (a pipe, socket or device); remove it")
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
        raise DataError(f"{_shown(path)} is a broken link (to {_shown(os.readlink(path))}); remove it")
    if not follow_links and not target.is_relative_to(root.resolve()):
        raise DataError(f"{_shown(path)} is a link out of data.root, to {_shown(target)}; set data.follow_links=true to read it")  # fmt: skip
    here = split.resolve()
    if target.is_relative_to(here):
        return not any(part.startswith(".") for part in target.relative_to(here).parts)
    return here.is_relative_to(target)


def _classes(train: Found, test: Found) -> tuple[str, ...]:
    """The class folders in name order; refuses names that a person, a file system or a table would confuse."""
    alike: dict[str, str] = {}
    for name in sorted(train.files.keys() | test.files.keys()):
        plain = " ".join(unicodedata.normalize("NFKC", _shown(name)).casefold().split())
        if plain in alike:
            raise DataError(f"data.root: classes {alike[plain]!a} and {name!a} differ only in case, space or Unicode form; rename one")  # fmt: skip
        alike[plain] = name
    if different := sorted(train.files.keys() ^ test.files.keys()):
        names = [f"{_shown(name)} (only in {'train' if name in train.files else 'test'})" for name in different]
        raise DataError(f"data.root: train and test have different classes, {listed(names, 'class')}")
    if len(train.files) < 2:
        raise DataError(
            f"data.root: one class alone, {_shown(next(iter(train.files)))}; a classifier needs two or more"
        )
    return tuple(sorted(train.files))


def _shown(path: str | Path) -> str:
    """A name as text on one line, whatever bytes it has."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _ignored(found: list[Found]) -> list[str]:
    hidden, links = sum(part.hidden for part in found), sum(part.links for part in found)
    others = [_shown(name) for part in found for name in part.others]
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
            unlike = f" and {_shown(first[0])} {first[1]} x {first[1]}" if first and width == height else ""
            raise DataError(f"{_shown(path)} has {width} x {height} px{unlike}: set data.image_size=PIXELS to scale all to one square size")  # fmt: skip
        first = first or (path, width)
    if first is None:
        raise DataError(f"{_shown(paths[0])}: none of the {len(paths):,} files can be read as an image")
    return first[1]


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file; what is wrong with its contents is a ValueError with the reason.

    What the system has to say (no permission, too many open files) is a DataError: that is no broken image, and may be
    gone the next time.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as file:
            yield file
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("no image") from None
    except Exception as error:  # Pillow raises what its decoders raise: OSError, SyntaxError, struct.error, KeyError
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{_shown(path)} cannot be read: {error.strerror}") from None
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def decode(path: str | Path, size: int) -> np.ndarray:
    """One file as uint8 (3, size, size); raises ValueError with the reason where it cannot be read whole."""
    with opened(path) as file:
        width, height = file.size
        if width * height > LARGEST:
            raise ValueError(f"{width:,} x {height:,} px, more than {LARGEST:,} pixels")
        file.draft("RGB", (size, size))  # large JPEGs decode at a fraction of their size
        image = ImageOps.exif_transpose(file)
        if file.format == "PNG" and _png_is_short(path):
            raise ValueError("image file has too few rows")
    return square(rgb(image), size)


# where the seven passes of an interlaced PNG begin, and their steps: x, y, across, down
_PASSES = (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)


def _png_is_short(path: str | Path) -> bool:
    """Whether a PNG holds fewer rows than it promises, which Pillow fills with black and does not mention."""
    unpack, held, promised = zlib.decompressobj(), 0, 0
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            data = file.read(length)
            file.seek(4, os.SEEK_CUR)
            if kind == b"IHDR":
                width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data)
                bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
                for x, y, across, down in _PASSES if interlaced else ((0, 0, 1, 1),):
                    columns, rows = -(-(width - x) // across), -(-(height - y) // down)
                    promised += rows * (1 + -(-columns * bits // 8)) if min(columns, rows) > 0 else 0
            elif kind == b"IDAT":
                while data and held < promised:
                    held += len(unpack.decompress(data, 1 << 20))
                    data = unpack.unconsumed_tail
    return held + len(unpack.flush()) < promised


def rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB, by the rule above; ValueError where there is none."""
    if image.mode.startswith("I"):  # convert() would clip at 255
        grey: np.ndarray = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("grey of more than 16 bits")
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("pixels are floating-point numbers, whose range no rule tells")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> np.ndarray:
    """Shortest side to `size`, middle cut out: uint8 (C, size, size)."""
    width, height = image.size
    if (width, height) != (size, size):
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2  # whole pixels: half a pixel off would blur
        # only the middle is resized: the same picture, and a 10,000 x 10 image costs no more than a small one
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def _decode_chunk(job: tuple[int, list[str]], target: Path | None, size: int) -> tuple[int, np.ndarray, dict[int, str]]:
    """Decodes some files into the cache; returns where they begin, their digests, and what is wrong with which."""
    first, paths = job
    images, broken = np.zeros((len(paths), 3, size, size), np.uint8), {}
    for place, path in enumerate(paths):
        try:
            images[place] = decode(path, size)
        except ValueError as error:
            broken[first + place] = f"{_shown(path)} ({error})"
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


@contextmanager
def mapped(
    workers: int | None, jobs: int, initialise: Callable[..., None] | None = None, *given: Any
) -> Iterator[Callable[..., Iterator[Any]]]:
    """`map`, over processes (None: one for each core) where there is more than one job; each begins with `initialise`."""
    workers = min(workers or cores(), jobs)
    if workers <= 1 or not may_start_processes():
        if initialise:
            initialise(*given)
        yield map
        return
    try:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initialise, given) as pool:
            yield pool.map
    except BrokenProcessPool:
        raise DataError("a process that decoded images was killed, most likely because memory ran out") from None
