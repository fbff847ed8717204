"""Files that a user asked for: tables, figures, pages, networks. None replaces a file that vitbench did not write.

vitbench knows its own by what is in them: outputs.txt in the cache folder has a line for each file that it wrote, with
the SHA-256 of the content. So a file of somebody else, or one that was changed since, is safe in any format, and no
format needs a mark. Where the list is gone, or was written on another machine, `replace=true` replaces all the same.
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
    """Raises UserError where a file is there that vitbench did not write; with `replace`, where it is no file.

    StorageError where nothing can be written, as in a folder that is a file.

    `blob` is what is to be written, if that is known: a file that holds it already is no loss.
    """
    try:
        status = os.lstat(path)
        is_file = stat.S_ISREG(status.st_mode) or (stat.S_ISLNK(status.st_mode) and path.is_file())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot write {shown_path(path)}: {error.strerror}") from None
    if not is_file:
        raise UserError(f"{setting}={shown_path(path)}: is there already, and is no file")
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
            f"{setting}={shown_path(path)}: is there already, and {why}; type another name, or replace=true to lose it"
        )


def write_output(path: Path, blob: bytes, setting: str = "file", replace: bool = False) -> None:
    """Writes a file that a user asked for, whole or not at all, with the folders around it; UserError as check_output.

    It is noted before it is there, so of two commands that write one file at once, each takes the other's for its own.
    """
    check_output(path, setting, replace, blob)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_beside(path, blob)
    try:
        _note(path, _digest(blob))
        check_output(path, setting, replace, blob)  # to write it took a while
        with storage(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def output_file(path: Path, setting: str = "file", replace: bool = False) -> Iterator[BinaryIO]:
    """The same for a file that may be too large for the memory: what is written is in place where `with` ends well."""
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
    """The SHA-256 of each file that vitbench wrote here; none where the list cannot be read."""
    try:
        lines = read_file(_list(), LARGE).splitlines()
    except OSError:
        return set()
    return {line[:64].decode("ascii", "replace") for line in lines}


def _note(path: Path, digest: str) -> None:
    """Adds a line to the list, as `sha256sum` writes it, by one write; where it cannot, that is told."""
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
            f"vitbench: {shown_path(path)} cannot be noted as vitbench's own ({error.strerror}); to write it again,"
            " type replace=true",
            file=sys.stderr,
        )


def _list() -> Path:
    """It is in the folder of decoded images of those who type no data.cache, which tables and figures do not have."""
    folder = os.path.expanduser(os.environ.get("VITBENCH_CACHE") or "~/.cache/vitbench")
    if folder.startswith("~"):
        raise OSError(errno.ENOENT, "no home folder is known, and VITBENCH_CACHE is not set")
    return Path(folder) / "outputs.txt"


def _digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()
