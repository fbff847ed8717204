"""Decoded images in a file of the cache, each of which is checked against its digest when it is loaded.

They are read, not mapped. Where a mapped file is cut, the next look at what is gone ends the process with a bus error,
and asking for its size before leaves a moment in which it may be cut all the same. A read says how many bytes it got.
That costs about a microsecond an image, once or in each batch, and the system reads ahead as well as it does of a map.

An image is checked when it is loaded for the first time, and once more where the file was written to since. If the file
is damaged, its images are decoded again into a file that takes its place; whoever has the damaged one open keeps it,
and notices the same. Imports no torch.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from vitbench.errors import DataError, StorageError, UserError
from vitbench.machine.disk import storage
from vitbench.machine.locks import lock_errors

HEADER = 128  # bytes before the first pixel, as numpy writes them for these shapes
BLOCK = 1 << 17  # bytes that the system is asked for around a small image, as it brings them of a map by itself
CHECKED_BYTES = 1 << 24  # that are read at a time where a whole file is checked

Indices = NDArray[np.int64]


def pixel_digest(image: NDArray[np.uint8]) -> bytes:
    """16 bytes that stand for the pixels of an image."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def digests_of(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The digest of each image, (M, 16)."""
    return np.frombuffer(b"".join(map(pixel_digest, images)), np.uint8).reshape(len(images), 16)


class ImageFile:
    """An open file of images, uint8 (M, C, H, W). `open_again`, where it is set, decodes them if they are damaged."""

    def __init__(self, path: Path, shape: tuple[int, ...], digests: NDArray[np.uint8]) -> None:
        self.path, self.shape, self.digests = path, shape, digests  # digests (M, 16)
        self.image_bytes = math.prod(shape[1:])
        self.open_again: Callable[[], ImageFile] | None = None
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self._stamp = self._stamp_now()
        self._checked = np.zeros(self.shape[0], bool)

    def _stamp_now(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def announce(self, rows: Indices, exactly: bool) -> None:
        """Tells the system which images are read next: with `exactly` these alone, else what lies around them, too.

        What lies around small images is asked for once: then it is in memory.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        if exactly:
            starts, length = HEADER + rows * self.image_bytes, self.image_bytes
        else:
            new = rows[~self._checked[rows]]
            starts, length = np.unique((HEADER + new * self.image_bytes) // BLOCK) * BLOCK, BLOCK + self.image_bytes
        for start in starts.tolist():
            os.posix_fadvise(self._descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def read(self, rows: Indices, target: NDArray[np.uint8]) -> None:
        """Reads images into an array (B, C, H, W). What is damaged is decoded again; UserError where it cannot be."""
        mended = False
        while (damage := self._read(rows, target)) is not None:
            self._mend(damage, mended)
            mended = True

    def _read(self, rows: Indices, target: NDArray[np.uint8]) -> str | None:
        """Reads and checks images; says what is damaged, if something is."""
        assert target.flags.c_contiguous and target.shape == (len(rows), *self.shape[1:]), target.shape
        file, size, data = self._descriptor, self.image_bytes, target.reshape(-1).data
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # rows that follow each other are read at once
        bounds = [*(starts * size).tolist(), len(data)]
        try:
            for (first, end), offset in zip(pairwise(bounds), (HEADER + rows[starts] * size).tolist(), strict=True):
                part = data[first:end]
                if os.preadv(file, [part], offset) != len(part) and not _pread(file, part, offset):
                    return "it was cut"
            stamp = self._stamp_now()
        except OSError as error:
            raise StorageError(f"data.cache: {self.path} cannot be read: {error.strerror}") from error
        if stamp != self._stamp:  # whoever wrote to it before we read changed its time before, too
            self._checked[:], self._stamp = False, stamp
        new = np.flatnonzero(~self._checked[rows])
        found = digests_of(target if len(new) == len(rows) else target[new])
        wrong = rows[new[(found != self.digests[rows[new]]).any(1)]]
        if len(wrong):
            return f"image {wrong[0]:,} of {self.shape[0]:,} has other pixels"
        self._checked[rows] = True
        return None

    def _mend(self, damage: str, again: bool) -> None:
        """Opens the file that takes the place of this one."""
        told = f"data.cache: {self.path} is damaged ({damage})"
        if again:
            raise StorageError(f"{told}, and was whole a moment ago: does the disk fail?")
        if self.open_again is None:
            raise StorageError(f"{told}; remove it, and its images are decoded again")
        print(f"{told}: its images are decoded again", file=sys.stderr)
        self._discard()
        try:
            fresh = self.open_again()
        except UserError as error:
            raise type(error)(f"{told}, and its images cannot be decoded again: {error}") from error
        if not np.array_equal(fresh.digests, self.digests):
            raise DataError(f"{told}, and the images changed since they were decoded; repeat the command")
        self.path = fresh.path
        self._open()

    def _discard(self) -> None:
        """Makes the next one who asks for these images decode them, unless another process has done so."""
        with storage(self.path), locked(self.path.with_suffix(".lock")):
            try:
                is_there = os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
            except FileNotFoundError:
                return
            if is_there:
                self.path.with_suffix(".json").unlink(missing_ok=True)

    def all_digests(self) -> NDArray[np.uint8] | None:
        """The digests (M, 16) of the pixels that are there, whatever they should be; None where some are missing."""
        images, found = max(1, CHECKED_BYTES // max(1, self.image_bytes)), []
        for first in range(0, self.shape[0], images):
            chunk = np.empty((min(images, self.shape[0] - first), *self.shape[1:]), np.uint8)
            if not _pread(self._descriptor, chunk.reshape(-1).data, HEADER + first * self.image_bytes):
                return None
            found.append(digests_of(chunk))
        return np.concatenate(found) if found else np.empty((0, 16), np.uint8)


class Stored:
    """Stands for images of a file as an array would, uint8 (M, C, H, W), which cannot be written to."""

    dtype = np.dtype(np.uint8)

    def __init__(self, file: ImageFile, rows: range) -> None:
        self.file, self.rows = file, rows
        self.shape = (len(rows), *file.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: Any) -> Any:
        """A slice gives a `Stored` again; an index, indices (B,) or a mask (M,) give a copy of what they name."""
        if isinstance(part, slice):
            return Stored(self.file, self.rows[part])
        if isinstance(part, int | np.integer):
            return Stored(self.file, range(row := self.rows[int(part)], row + 1))[np.zeros(1, np.int64)][0]
        places = np.arange(len(self))[part]
        images = np.empty((len(places), *self.shape[1:]), np.uint8)
        self.read(places, images)
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[np.arange(len(self))], dtype)

    def announce(self, indices: Indices, exactly: bool) -> None:
        self.file.announce(self._rows_at(indices), exactly)

    def read(self, indices: Indices, target: NDArray[np.uint8]) -> None:
        """Reads images into an array (B, C, H, W)."""
        self.file.read(self._rows_at(indices), target)

    def _rows_at(self, indices: Indices) -> Indices:
        if len(indices) and not 0 <= indices.min() <= indices.max() < len(self.rows):
            raise IndexError(f"indices from {indices.min()} to {indices.max()}, of {len(self.rows)} images")
        return self.rows.start + self.rows.step * indices


def _pread(descriptor: int, target: memoryview, offset: int) -> bool:
    """Fills the target; False where the file ends before. The system gives at most 2 GB at a time."""
    while target:
        if (got := os.preadv(descriptor, [target], offset)) == 0:
            return False
        target, offset = target[got:], offset + got
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        with lock_errors(path):
            lock.acquire(timeout=0)
    except Timeout:
        print(f"another process is decoding the same images; waiting for {path}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
