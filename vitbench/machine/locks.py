"""Finds out who owns a lock file, and whether a process holds it, without writing, so it works on a read-only disk."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitbench.errors import StorageError


@contextmanager
def lock_errors(path: Path) -> Iterator[None]:
    """Turns an error about an existing lock into a StorageError with the file, its owner and what to do."""
    try:
        yield
    except OSError as error:
        if line := _hindrance(path, error):
            raise StorageError(line) from error
        raise


def _hindrance(path: Path, error: OSError) -> str | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None  # there is no lock, so the error is about its folder
    if not stat.S_ISREG(status.st_mode):
        what = "is a link" if stat.S_ISLNK(status.st_mode) else "is not a file"
        return f"{path} {what}, but a lock must be a file; remove it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{path} belongs to {owner_of(status)}, and you have no permission to open it; ask {owner_of(status)} to "
            "remove it, or choose another folder"
        )
    return None


def owner_of(status: os.stat_result) -> str:
    """Returns the name of a file's owner, or the number if there is no name."""
    try:
        import pwd

        return f"user {pwd.getpwuid(status.st_uid).pw_name}"
    except (ImportError, KeyError):
        return f"user {status.st_uid}"


def is_held(path: Path) -> bool:
    """Returns whether a process holds a lock now; False if it is not known."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing the file releases the lock
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False
