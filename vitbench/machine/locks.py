"""Whose a lock is, and whether a process holds it: asked without writing anything, so that a read-only disk will do."""

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
    """Turns what keeps this process from a lock that is there into a StorageError: the file, its owner, what to do."""
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
        return None  # there is no lock: what is wrong is wrong with its folder
    if not stat.S_ISREG(status.st_mode):
        what = "a link" if stat.S_ISLNK(status.st_mode) else "no file"
        return f"{path} is {what}, and a lock is a file; remove it"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{path} belongs to {owner_of(status)}, and you have no right to open it; ask {owner_of(status)} to remove "
            "it, or choose another folder"
        )
    return None


def owner_of(status: os.stat_result) -> str:
    """The name of a file's owner, or the number where it has no name."""
    try:
        import pwd

        return f"user {pwd.getpwuid(status.st_uid).pw_name}"
    except (ImportError, KeyError):
        return f"user {status.st_uid}"


def is_held(path: Path) -> bool:
    """Whether a process holds a lock now; False where that cannot be known."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # it is let go of when it is closed
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False
