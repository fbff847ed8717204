"""What `doctor` found of one thing: is it good, and if not, what does it mean and what can be typed."""

from __future__ import annotations

from typing import NamedTuple

from vitbench.errors import StorageError, UserError

GOOD, LOOK, WRONG = "good", "look", "wrong"
SETTING, DISK = UserError.exit_code, StorageError.exit_code  # which exit code something wrong has


class Finding(NamedTuple):
    what: str
    found: str
    verdict: str = GOOD
    means: str = ""  # where it is not good: a sentence
    type: str = ""  # and a command that mends it, as it is typed
    exit_code: int = SETTING  # of the command, where it is wrong


def spoken_bytes(size: float) -> str:
    """Writes 512 bytes, 3.4 MB, 71 GB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            number = size / factor
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{size:.0f} bytes"
