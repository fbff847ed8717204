"""The checksums of a study's files in results/: `sha256sums.txt`, which `sha256sum -c` reads too.

`vitbench report` writes it last. Where it is absent, an older vitbench wrote the files, or a report is being written,
and changes of the files cannot be seen. It does not list what is written by hand (notes.md).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from vitbench.errors import DataError
from vitbench.machine.disk import LARGE, read_file, sha256_of, storage, write

SUMS = "sha256sums.txt"
EVIDENCE = ("runs.csv", "probes.csv", "mcnemar.csv")  # of which a report makes the other files
REPORTED = "`vitbench report` makes it again"
REMEDY = f"a disk or a copy damaged it, or somebody edited it; restore it, or remove {SUMS} if it is right as it is"
LINE = re.compile(r"([0-9a-f]{64})  ([^/\0]+)")


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Notes the checksums of those of the files that are there."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(names) if (folder / name).is_file()]
    write(folder / SUMS, "".join(lines).encode())


def forget_sums(folders: Iterable[Path]) -> None:
    """Removes the lists before files are written, so that a report which is ended leaves no wrong one."""
    for folder in folders:
        with storage(folder):
            (folder / SUMS).unlink(missing_ok=True)


def read_sums(folder: Path) -> dict[str, str]:
    """By the name of a file its SHA-256; empty where there is no such list. DataError where the list is damaged."""
    path = folder / SUMS
    try:
        lines = read_file(path).decode().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', 'no text')}; {REMEDY}") from None
    matches = [LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise DataError(f"{path} is no list of checksums; {REMEDY}")
    return {match[2]: match[1] for match in matches if match}


def read_checked(path: Path) -> bytes:
    """The bytes of a file of results/; DataError where it has another checksum in the list, OSError as `read_file`."""
    blob = read_file(path, LARGE)
    if read_sums(path.parent).get(path.name) not in (None, hashlib.sha256(blob).hexdigest()):
        raise DataError(f"{path} is not as `vitbench report` wrote it (its checksum differs): {REMEDY}")
    return blob


def faults_of(folder: Path, tell: Callable[[int], None] = lambda size: None) -> dict[Path, str]:
    """By each file that is not as its checksum says, what is wrong with it; DataError where the list is damaged."""
    faults = {}
    for name, expected in read_sums(folder).items():
        try:
            if sha256_of(folder / name, tell) != expected:
                faults[folder / name] = f"is not as it was reported: {REMEDY if name in EVIDENCE else REPORTED}"
        except FileNotFoundError:
            faults[folder / name] = f"is missing; {REPORTED}"
        except OSError as error:
            faults[folder / name] = f"cannot be read: {error.strerror}"
    return faults


def check_sums(folder: Path) -> None:
    """Raises DataError for the first file that is not as its checksum says."""
    for path, fault in faults_of(folder).items():
        raise DataError(f"{path} {fault}")
