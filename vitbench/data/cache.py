"""Decoded images in one memory-mapped file, written once and shared by every run and process that asks for them.

`<cache>/<name>-<key>.npy` holds the training images, then the test images; `<name>-<key>.json` beside it, written last,
holds labels, classes and fingerprint. The key is a hash of whatever identifies the source (for a folder: its path, the
names, sizes and times of its files, and the image size asked for), so changed data are another file and nothing is
ever written over. The pair counts as present when the second agrees with its own hash, and with the first on its length
and on 16 blocks spread over it; if not, it is decoded again.

Where images are to be decoded anew each time (`files.py`), `<name>-<key>-files.json` stands alone, with digests of them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from vitbench.data.split import Dataset, Split
from vitbench.errors import DataError, StorageError

FORMAT = 1  # of the two files
STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST}
HEADER = 128  # bytes before the first pixel, as numpy writes them for these shapes


@dataclass(frozen=True)
class Contents:
    """What a source knows about the rows it wrote: training images first, then test images."""

    train_labels: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    broken: dict[int, str] = field(default_factory=dict)  # row -> what is wrong with it; such rows are dropped
    find_warnings: Callable[[np.ndarray], list[str]] = lambda digests: []  # (M,16) of all rows -> what to tell the user


# of a shape (M,C,H,W), the rows that were dropped and digests (M,16) of the others -> what stands for their pixels
Reader = Callable[[tuple[int, ...], list[int], np.ndarray], Any]


class Rows:
    """The images of one cache file while it is written, by row and in any order, also from several processes.

    Written with `pwrite` rather than through a map: on a full disk that is an OSError, where a map is a bus error.
    """

    def __init__(self, path: Path | None) -> None:  # None: digests are taken and nothing is written
        self.path, self.shape, self.digests = path, (0, 0, 0, 0), np.empty((0, 16), np.uint8)

    def allocate(self, images: int, channels: int, size: int, or_else: str = "") -> None:
        self.shape, self.digests = (images, channels, size, size), np.zeros((images, 16), np.uint8)
        if self.path is None:
            return
        needed, free = images * channels * size * size, shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise StorageError(
                f"data.cache={self.path.parent}: {images:,} decoded images of {size} px need {needed / 1e9:,.1f} GB, "
                f"{free / 1e9:,.1f} GB are free; set data.cache to another disk{or_else}"
            )

    def write(self, row: int, images: np.ndarray) -> None:
        self.digests[row : row + len(images)] = write_rows(self.path, row, images)

    def finish(self, keep: np.ndarray) -> None:
        """Close the gaps that dropped rows left, then write the header: a file without one is no array."""
        _, C, H, W = self.shape
        if self.path is None:
            return
        with open(self.path, "r+b") as file:
            for new, old in enumerate(np.flatnonzero(keep)):
                if new != old:
                    image = os.pread(file.fileno(), C * H * W, HEADER + int(old) * C * H * W)
                    _pwrite(file.fileno(), memoryview(image), HEADER + new * C * H * W)
            kept = int(keep.sum())
            file.truncate(HEADER + kept * C * H * W)
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "|u1", "fortran_order": False, "shape": (kept, C, H, W)}
            )
            assert header.tell() == HEADER, header.tell()
            file.write(header.getvalue())
            file.flush()
            os.fsync(file.fileno())


def write_rows(path: Path | None, row: int, images: np.ndarray) -> np.ndarray:
    """Write uint8 images (M,C,H,W) at a row, where there is a file; returns a digest of each, (M,16) uint8."""
    data = np.ascontiguousarray(images)
    M, bytes_each = len(data), data[0].nbytes if len(data) else 0
    if path is not None:
        with open(path, "r+b") as file:
            _pwrite(file.fileno(), data.reshape(-1).data, HEADER + row * bytes_each)
    return np.frombuffer(b"".join(map(pixel_digest, data)), np.uint8).reshape(M, 16)


def pixel_digest(image: np.ndarray) -> bytes:
    """The 16 bytes by which an index knows an image."""
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _pwrite(file: int, rest: memoryview, at: int) -> None:
    while rest:  # a write may stop short, for example at the last free byte
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written


def cached(
    cache: Path,
    name: str,
    identity: Any,
    build: Callable[[Rows], Contents],
    *,
    skip_broken: bool = True,
    files: Reader | None = None,
) -> Dataset:
    """The data set of this identity, opened or, by the first process that asks, built. With `files`, no pixels are kept.

    Broken files are all found before any is reported, and the rest is kept: repeating the command with
    `data.skip_broken=true` does not decode again.
    """
    key = hashlib.sha256(json.dumps([FORMAT, identity], sort_keys=True, default=str).encode()).hexdigest()[:16]
    images = cache / f"{name}-{key}{'-files' if files else ''}.npy"
    if (found := _open(images, files)) is None:
        with storage_errors(f"data.cache={cache}"):
            cache.mkdir(parents=True, exist_ok=True)
            with _lock(images.with_suffix(".lock")):
                if (found := _open(images, files)) is None:
                    _build(images, build, pixels=files is None)
                    found = _open(images, files)
    assert found is not None, f"{images} was written and cannot be read"
    dataset, broken = found
    if not broken:
        return dataset
    names = listed(broken, "broken file", most=20) + (
        f", all in {images.with_suffix('.json')}" if len(broken) > 20 else ""
    )
    if not skip_broken:
        raise DataError(f"{names}; repair or remove, or set data.skip_broken=true")
    return replace(dataset, warnings=(f"skipped {names}", *dataset.warnings))


def _build(images: Path, build: Callable[[Rows], Contents], pixels: bool) -> None:
    for left_over in images.parent.glob(f"{images.stem}.*.part"):  # of a killed process: whoever holds the lock may
        left_over.unlink(missing_ok=True)
    part, part_header = (images.with_suffix(f".{os.getpid()}.{kind}.part") for kind in ("npy", "json"))
    try:
        if pixels:
            part.touch()
        rows = Rows(part if pixels else None)
        contents = build(rows)
        keep = np.ones(len(rows.digests), bool)
        keep[list(contents.broken)] = False
        labels = np.concatenate([contents.train_labels, contents.test_labels])
        assert len(labels) == len(keep), f"{len(labels)} labels for {len(keep)} rows"
        train = len(contents.train_labels)
        _each_class_has_images(labels, keep, train, contents)
        rows.finish(keep)
        seen = hashlib.sha256(json.dumps([contents.classes, int(keep[:train].sum())]).encode())
        seen.update(rows.digests[keep].tobytes() + labels[keep].astype("<i8").tobytes())
        header = {
            "train": int(keep[:train].sum()),
            "shape": [int(keep.sum()), *rows.shape[1:]],
            "fingerprint": seen.hexdigest()[:16],
            "classes": contents.classes,
            "broken": list(contents.broken.values()),
            "warnings": contents.find_warnings(rows.digests),
            "labels": labels[keep].tolist(),
        }
        if pixels:
            header["sample"] = _sample(part)
        else:
            header |= {"dropped": sorted(contents.broken), "digests": rows.digests[keep].tobytes().hex()}
        with open(part_header, "w", encoding="utf-8") as file:
            json.dump(header | {"digest": _digest(header)}, file)
            file.flush()
            os.fsync(file.fileno())
        if pixels:
            os.replace(part, images)
        os.replace(part_header, images.with_suffix(".json"))
        folder = os.open(images.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        part.unlink(missing_ok=True)
        part_header.unlink(missing_ok=True)


def _each_class_has_images(labels: np.ndarray, keep: np.ndarray, train: int, contents: Contents) -> None:
    K = len(contents.classes)
    for split, part in (("train", slice(None, train)), ("test", slice(train, None))):
        empty = np.flatnonzero(np.bincount(labels[part][keep[part]], minlength=K) == 0)
        if len(empty):
            names = listed([contents.classes[k] for k in empty], "class")
            why = f" after {listed(list(contents.broken.values()), 'broken file')}" if contents.broken else ""
            raise DataError(f"no {split} images are left of {names}{why}")


def _open(images: Path, files: Reader | None = None) -> tuple[Dataset, list[str]] | None:
    """The data set and its broken files, or None if there is no whole one here."""
    try:
        header = json.loads(images.with_suffix(".json").read_bytes())
        if header.pop("digest") != _digest(header):
            return None
        shape = tuple(header["shape"])
        if files:
            digests = np.frombuffer(bytes.fromhex(header["digests"]), np.uint8).reshape(-1, 16)
            pixels: Any = files(shape, header["dropped"], digests)
        elif images.stat().st_size != HEADER + math.prod(shape) or _sample(images) != header["sample"]:
            return None
        else:  # "r", not "c": the system refuses a map for copy on write that is larger than its memory
            pixels = np.asarray(np.memmap(images, np.uint8, "r", HEADER, shape))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):  # no pair, or no JSON of ours
        return None
    except OSError as error:
        raise StorageError(f"data.cache={images.parent}: cannot read {images.name}: {error.strerror}") from error
    labels, train, classes = np.array(header["labels"], np.int64), header["train"], tuple(header["classes"])
    dataset = Dataset(
        train=Split(pixels[:train], labels[:train], classes),
        test=Split(pixels[train:], labels[train:], classes),
        fingerprint=header["fingerprint"],
        warnings=tuple(header["warnings"]),
    )
    return dataset, header["broken"]


def _digest(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _sample(path: Path) -> str:
    """Hash of 16 blocks from the first byte to the last: a file that a crash or a copy left incomplete differs."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        end = max(0, os.fstat(file.fileno()).st_size - 4096)
        for i in range(16):
            digest.update(os.pread(file.fileno(), 4096, end * i // 15))
    return digest.hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is decoding the same images; waiting for {path}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """OSErrors of the disk and of permissions as one line that starts with the setting."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        name = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        reason = (
            "a file is where a folder is needed" if error.errno in (errno.ENOTDIR, errno.EEXIST) else error.strerror
        )
        raise StorageError(f"{where}: {reason}{name}") from error


def listed(names: list[str], noun: str, most: int = 5) -> str:
    """`3 broken files: a, b, c`, with the names after the first few counted."""
    plural = {"class": "classes"}.get(noun, noun + "s")
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{len(names):,} {noun if len(names) == 1 else plural}: {', '.join(names[:most])}{more}"


def duplicates(
    digests: np.ndarray, *, names: list[str], labels: np.ndarray, train: int, broken: Container[int] = ()
) -> list[str]:
    """Images whose decoded pixels are the same, where that spoils a measurement."""
    places = defaultdict(list)
    for row, digest in enumerate(digests):
        if row not in broken:
            places[digest.tobytes()].append(row)
    leaked, contradictory = [], []
    for first, *others in places.values():
        if first < train and others and others[-1] >= train:
            leaked.append(f"{names[first]} = {names[others[-1]]}")
        if unlike := [row for row in others if labels[row] != labels[first]]:
            contradictory.append(f"{names[first]} = {names[unlike[0]]}")
    notes = [f"in train and in test: {listed(leaked, 'image')}"] if leaked else []
    return notes + ([f"under two classes: {listed(contradictory, 'image')}"] if contradictory else [])
