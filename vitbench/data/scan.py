"""Identifies the files of a source by their names, sizes and times, without decoding any, once per folder and process.

A scan is a shortcut. If two scans are equal, the images are equal. If they differ, `Dataset.fingerprint` decides, which
is the same for a copy of a folder. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vitbench.errors import DataError

T = TypeVar("T")


class Scan(NamedTuple):
    """The state of a source's folder when it was looked at."""

    root: str  # the folder, with symbolic links resolved
    files: str  # a hash of the names, sizes, times and classes of its files


def scan_of_stamps(root: Path, stamps: Any) -> Scan:
    """Returns the scan of a folder. `stamps` are lists with all that identifies its files and how they are decoded."""
    return Scan(str(root.resolve()), hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16])


# -------------------------------------------------------------------------------------------------------------- memory


def remembered(key: Any, look: Callable[[], T]) -> T:
    """Returns what `look` returned the first time, until `forget_scans()`. A DataError is remembered, too."""
    text = json.dumps(key, sort_keys=True)
    if text not in _seen:
        try:
            _seen[text] = look()
        except DataError as error:
            _seen[text] = error
    if isinstance(found := _seen[text], DataError):
        raise found
    return found


def forget_scans() -> None:
    _seen.clear()


_seen: dict[str, Any] = {}
