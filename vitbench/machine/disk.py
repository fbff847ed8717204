"""Files are written whole or not at all, whatever ends the process or fills the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from vitbench.errors import StorageError, UserError


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turns an OSError into a StorageError, one line with the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def write(path: Path, blob: bytes, folders: bool = False) -> None:
    """Writes a file whole or not at all. `folders` also makes the folders around it, for a path that a user chose."""
    if folders:
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_beside(path, blob)
    with storage(path):
        os.replace(temporary, path)


def write_beside(path: Path, blob: bytes) -> Path:
    """Writes a temporary file beside `path`, which the caller renames; on an error nothing is left of it."""
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


def write_all(descriptor: int, blob: bytes) -> None:
    """Writes all bytes; a single `os.write` may stop short."""
    rest = memoryview(blob)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def checksum(path: Path, typed: str = "") -> str:
    """A file's SHA-256, computed again only if it changed. If it is unreadable, a UserError begins with `typed`."""
    try:
        status = path.stat()
        return _checksum(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{typed}{path} cannot be read: {error.strerror}") from None


@cache
def _checksum(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
