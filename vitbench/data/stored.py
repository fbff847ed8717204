"""Reads decoded images from a file of the cache and checks each one against its digest.

The file is read, not memory-mapped. If a mapped file is truncated, the next access to the missing part ends the process
with a bus error, and checking the size before does not help, because the file may be truncated right after. A read
reports how many bytes it got. It costs about a microsecond per image, and the system reads ahead as well as for a map.

An image is checked when it is loaded for the first time, and again if the file was written to since then. If the file
is damaged, its images are decoded again into a new file that replaces it. Other processes that have the damaged file
open keep it, and detect the damage in the same way. Imports no torch.
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
BLOCK = 1 << 17  # bytes around a small image that the system is asked to read ahead, as it does for a map
CHECKED_BYTES = 1 << 24  # bytes that are read at a time when a whole file is checked

Indices = NDArray[np.int64]


def pixel_digest(image: NDArray[np.uint8]) -> bytes:
    """Returns a hash of the pixels of an image, 16 bytes."""
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def digests_of(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the digest of each image, (M, 16)."""
    return np.frombuffer(b"".join(map(pixel_digest, images)), np.uint8).reshape(len(images), 16)


class ImageFile:
    """An open file of images, uint8 (M, C, H, W). `open_again`, if set, decodes them again if they are damaged."""

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
        """Tells the system which images are read next: with `exactly` only these, else also the bytes around them.

        The bytes around small images are requested only once, because they are in memory then.
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
        """Reads images into an array (B, C, H, W). Damaged images are decoded again. UserError if this fails."""
        mended = False
        while (damage := self._read(rows, target)) is not None:
            self._mend(damage, mended)
            mended = True

    def _read(self, rows: Indices, target: NDArray[np.uint8]) -> str | None:
        """Reads and checks images. Returns a description of the damage, or None if there is none."""
        assert target.flags.c_contiguous and target.shape == (len(rows), *self.shape[1:]), target.shape
        file, size, data = self._descriptor, self.image_bytes, target.reshape(-1).data
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # consecutive rows are read at once
        bounds = [*(starts * size).tolist(), len(data)]
        try:
            for (first, end), offset in zip(pairwise(bounds), (HEADER + rows[starts] * size).tolist(), strict=True):
                part = data[first:end]
                if os.preadv(file, [part], offset) != len(part) and not _pread(file, part, offset):
                    return "it was cut off"
            stamp = self._stamp_now()
        except OSError as error:
            raise StorageError(f"data.cache: {self.path} cannot be read: {error.strerror}") from error
        if stamp != self._stamp:  # a write before our read also changed the file's time before our read
            self._checked[:], self._stamp = False, stamp
        new = np.flatnonzero(~self._checked[rows])
        found = digests_of(target if len(new) == len(rows) else target[new])
        wrong = rows[new[(found != self.digests[rows[new]]).any(1)]]
        if len(wrong):
            return f"image {wrong[0]:,} of {self.shape[0]:,} has other pixels"
        self._checked[rows] = True
        return None

    def _mend(self, damage: str, again: bool) -> None:
        """Decodes the images again and opens the file that replaces this one."""
        told = f"data.cache: {self.path} is damaged ({damage})"
        if again:
            raise StorageError(f"{told}, although it was just written again; the disk may be failing")
        if self.open_again is None:
            raise StorageError(f"{told}; remove it, and its images will be decoded again")
        print(f"{told}: its images are decoded again", file=sys.stderr)
        self._discard()
        try:
            fresh = self.open_again()
        except UserError as error:
            raise type(error)(f"{told}, and its images cannot be decoded again: {error}") from error
        if not np.array_equal(fresh.digests, self.digests):
            raise DataError(f"{told}, and the images have changed since they were decoded; repeat the command")
        self.path = fresh.path
        self._open()

    def _discard(self) -> None:
        """Makes the next request for these images decode them, unless another process has done so already."""
        with storage(self.path), locked(self.path.with_suffix(".lock")):
            try:
                is_there = os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))
            except FileNotFoundError:
                return
            if is_there:
                self.path.with_suffix(".json").unlink(missing_ok=True)

    def all_digests(self) -> NDArray[np.uint8] | None:
        """Computes the digests (M, 16) of the pixels in the file, right or wrong; None if some pixels are missing."""
        images, found = max(1, CHECKED_BYTES // max(1, self.image_bytes)), []
        for first in range(0, self.shape[0], images):
            chunk = np.empty((min(images, self.shape[0] - first), *self.shape[1:]), np.uint8)
            if not _pread(self._descriptor, chunk.reshape(-1).data, HEADER + first * self.image_bytes):
                return None
            found.append(digests_of(chunk))
        return np.concatenate(found) if found else np.empty((0, 16), np.uint8)


class Stored:
    """Behaves like a read-only uint8 array (M, C, H, W) of the images of a file."""

    dtype = np.dtype(np.uint8)

    def __init__(self, file: ImageFile, rows: range) -> None:
        self.file, self.rows = file, rows
        self.shape = (len(rows), *file.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: Any) -> Any:
        """Returns a `Stored` for a slice, and a copy of the images for an index, indices (B,) or a mask (M,)."""
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
    """Fills the target; returns False if the file ends before. One read returns at most 2 GB."""
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
