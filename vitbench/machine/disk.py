"""Writes files completely or not at all, even if the process is killed or the disk is full.

Small files that other people may have made are read only by `read_file` and `read_json`. These do not wait for pipes,
and do not read devices or files that are too large.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from vitbench.errors import StorageError, UserError

SMALL = 16_000_000  # most bytes of records, settings, notes and tables, which usually have a hundredth of it
LARGE = 1_000_000_000  # most bytes of files with a line for each image of a data set or each run of a study


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turns an OSError into a StorageError of one line with the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def write(path: Path, blob: bytes | memoryview, folders: bool = False) -> None:
    """Writes a file completely or not at all. With `folders`, it also makes the parent folders."""
    if folders:
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_beside(path, blob)
    with storage(path):
        try:
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_beside(path: Path, blob: bytes | memoryview) -> Path:
    """Writes a temporary file beside `path`, which the caller renames. After an error nothing is left of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(descriptor, blob)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    return temporary


def write_all(descriptor: int, blob: bytes | memoryview) -> None:
    """Writes all bytes, because a single `os.write` may write only a part."""
    rest = memoryview(blob)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def check_folder(path: Path, setting: str) -> None:
    """Raises StorageError if something else than a folder is at this path or above it. The folder may be missing."""
    if hindrance := in_place_of_folder(path):
        raise StorageError(f"{setting}={path}: {hindrance}")


def in_place_of_folder(path: Path) -> str | None:
    """Returns what prevents a folder at this path; None if it exists or can be made."""
    for place in (path, *path.parents):
        try:
            if stat.S_ISDIR(os.stat(place).st_mode):
                return None
            kind = "a file"
        except OSError:
            if not os.path.islink(place):
                continue  # nothing is there, or its parent is not a folder
            kind = "a broken link"
        return f"{place} is {kind}, where a folder is needed"
    return None


def read_file(path: Path, most: int = SMALL) -> bytes:
    """Reads a regular file of at most `most` bytes. Raises OSError, with the reason as `strerror`, for any other."""
    _check_regular(path, os.stat(path), most)  # before it is opened, because opening a device can have effects
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        _check_regular(path, status, most)
        size = status.st_size
        blob = file.read(size + 1)  # Python allocates as much memory as is requested
        while size < len(blob) <= most:  # the file grows while it is read
            size = len(blob)
            blob += file.read(min(most - size, 1 << 20) + 1)
    if len(blob) > most:  # the file has grown too large
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return blob


def _check_regular(path: Path, status: os.stat_result, most: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, more than {most:,}", str(path))


def read_json(path: Path, most: int = SMALL) -> dict[str, Any]:
    """Reads the JSON object in a file. Raises OSError like `read_file`, ValueError for other content or a NaN."""
    try:
        content = _JSON.decode(read_file(path, most).decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse)


def sha256_of(path: Path, tell: Callable[[int], None] = lambda size: None) -> str:
    """Returns the SHA-256 of a file of any size; `tell` gets the size of each block. OSError like `read_file`."""
    _check_regular(path, os.stat(path), sys.maxsize)
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
            tell(len(block))
    return sha256.hexdigest()


def checksum(path: Path, typed: str = "") -> str:
    """Returns the SHA-256 of a file, computed again only if it changed. UserError with `typed` if it is unreadable."""
    size = check_readable(path, typed)
    try:
        return _checksum(path, size, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{typed}{path} cannot be read: {error.strerror}") from None


def check_readable(path: Path, typed: str = "") -> int:
    """Returns the size of a regular file. Raises UserError, which begins with `typed`, for anything else."""
    try:
        status = os.stat(path)
        _check_regular(path, status, sys.maxsize)
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise UserError(f"{typed}{path} cannot be read: {error.strerror}") from None
    return status.st_size


@cache
def _checksum(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
