"""A finding of `doctor` about one thing: whether it is good and, if not, what that means and what to type."""

from __future__ import annotations

from typing import NamedTuple

from vitbench.errors import StorageError, UserError

GOOD, LOOK, WRONG = "good", "look", "wrong"
SETTING, DISK = UserError.exit_code, StorageError.exit_code  # the exit codes of wrong settings and of a wrong disk


class Finding(NamedTuple):
    what: str
    found: str
    verdict: str = GOOD
    means: str = ""  # a sentence that says what it means, where it is not good
    type: str = ""  # what to type to mend it
    exit_code: int = SETTING  # the exit code of doctor, where it is wrong


def spoken_bytes(size: float) -> str:
    """Writes a size as 512 bytes, 3.4 MB, 71 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            number = size / factor
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{size:.0f} bytes"
