"""What a source's files are, by their names, sizes and times, without decoding any: one look at each root a process.

A scan is a shortcut. Where it is the same, so are the images; where it is not, `Dataset.fingerprint` decides, which a
copy of a folder shares. Imports no torch.
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
    """What a source's folder held when somebody looked."""

    root: str  # the folder, without links
    files: str  # a hash of the names, sizes and times of its files, and of the classes that they are of


def scan_of_stamps(root: Path, stamps: Any) -> Scan:
    """The scan of a folder of which `stamps`, in lists, say all that tells its files and their decoding from others."""
    return Scan(str(root.resolve()), hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16])


# -------------------------------------------------------------------------------------------------------------- memory


def remembered(key: Any, look: Callable[[], T]) -> T:
    """What `look` found the first time, until `forget_scans()`; also a DataError, which is raised again."""
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
