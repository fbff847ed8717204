"""Files that are written whole or not at all, whatever ends the process or fills the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitbench.errors import StorageError


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line with the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def write(path: Path, blob: bytes) -> None:
    """Writes a file whole or not at all."""
    fresh = write_beside(path, blob)
    with storage(path):
        os.replace(fresh, path)


def write_beside(path: Path, blob: bytes) -> Path:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage(path):
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(descriptor, blob)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    return fresh


def write_all(descriptor: int, blob: bytes) -> None:
    view = memoryview(blob)
    while view:
        view = view[os.write(descriptor, view) :]
