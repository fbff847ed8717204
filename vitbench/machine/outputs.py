"""Writes files that a user asked for, such as tables and figures, and never replaces files that others wrote.

vitbench recognises its own files by their content: outputs.txt in the cache folder has a line for each file that it
wrote, with the SHA-256 of the content. So files of other people, and files that were changed since, are safe, and no
format needs a mark. If the list is missing, or on another machine, `replace=true` replaces a file anyway.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from vitbench.errors import StorageError, UserError
from vitbench.machine.disk import LARGE, read_file, sha256_of, storage, write_all, write_beside
from vitbench.machine.terminal import shown_path


def check_output(path: Path, setting: str = "file", replace: bool = False, blob: bytes | None = None) -> None:
    """Raises UserError if there is a file that vitbench did not write; with `replace`, only if it is not a file.

    Raises StorageError if nothing can be written, for example because a parent folder is a file. `blob` is the new
    content, if it is known: a file that already has this content may be replaced.
    """
    try:
        status = os.lstat(path)
        is_file = stat.S_ISREG(status.st_mode) or (stat.S_ISLNK(status.st_mode) and path.is_file())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot write {shown_path(path)}: {error.strerror}") from None
    if not is_file:
        raise UserError(f"{setting}={shown_path(path)}: exists already and is not a file; type another name")
    if replace:
        return
    try:
        digest = sha256_of(path)
        is_own = digest in known_outputs() or (blob is not None and digest == _digest(blob))
        why = "vitbench did not write it, or it was changed since"
    except OSError as error:
        is_own, why = False, f"cannot be read ({error.strerror})"
    if not is_own:
        raise UserError(
            f"{setting}={shown_path(path)}: exists already, and {why}; type another name, or replace=true to replace it"
        )


def write_output(path: Path, blob: bytes, setting: str = "file", replace: bool = False) -> None:
    """Writes a file that a user asked for, completely or not at all, with its parent folders. Raises as `check_output`.

    It is noted in the list before it is put in place, so two commands that write the same file at once can replace each
    other's.
    """
    check_output(path, setting, replace, blob)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_beside(path, blob)
    try:
        _note(path, _digest(blob))
        check_output(path, setting, replace, blob)  # again, because writing took some time
        with storage(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def output_file(path: Path, setting: str = "file", replace: bool = False) -> Iterator[BinaryIO]:
    """Does the same for a file that may not fit into memory. It is put in place at the end of the `with` block."""
    check_output(path, setting, replace)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storage(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _note(path, sha256_of(temporary))
        check_output(path, setting, replace)
        with storage(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def known_outputs() -> set[str]:
    """Returns the SHA-256 of each file that vitbench wrote here; none if the list cannot be read."""
    try:
        lines = read_file(_list(), LARGE).splitlines()
    except OSError:
        return set()
    return {line[:64].decode("ascii", "replace") for line in lines}


def _note(path: Path, digest: str) -> None:
    """Adds a line to the list by a single write, in the form of `sha256sum`. If this fails, it prints a line."""
    try:
        if digest in known_outputs():
            return
        _list().parent.mkdir(parents=True, exist_ok=True)
        line = f"{digest}  {shown_path(path.absolute())}\n".encode("utf-8", "backslashreplace")
        descriptor = os.open(_list(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        print(
            f"vitbench: {shown_path(path)} cannot be noted as written by vitbench ({error.strerror}); to write it "
            "again, type replace=true",
            file=sys.stderr,
        )


def _list() -> Path:
    """Returns the path of the list, which is in the default folder of data.cache, because tables have no data.cache."""
    folder = os.path.expanduser(os.environ.get("VITBENCH_CACHE") or "~/.cache/vitbench")
    if folder.startswith("~"):
        raise OSError(errno.ENOENT, "no home folder is known, and VITBENCH_CACHE is not set")
    return Path(folder) / "outputs.txt"


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()
