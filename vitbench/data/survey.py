"""Looks at every file of a folder once: what its header says, a thumbnail, and whether it can be read whole.

What was found is kept in the cache, so that the second look at the same files takes no time.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from vitbench.data.decode import decode_and_notice, mapped, opened, other_profile, turn_of
from vitbench.data.similar import SIDE
from vitbench.errors import StorageError
from vitbench.machine.disk import write
from vitbench.machine.progress import progress as progress_bar

FORMAT = 4  # bump when what is kept changes
CHUNK = 64  # files that a process looks at a time


@dataclass(frozen=True)
class Facts:
    """What there is to say of one file; of one that cannot be read, `error` says why, and the rest may be empty."""

    digest: str  # of the bytes of the file; empty where the system refuses to read it
    width: int = 0  # pixels, before it is turned
    height: int = 0
    mode: str = ""  # Pillow's: RGB, L, CMYK, I;16, P, RGBA ...
    format: str = ""  # JPEG, PNG ...
    frames: int = 1
    turned: bool = False  # EXIF says that it has to be turned or mirrored
    transparent: bool = False
    profile: str = ""  # the name of a colour profile that it carries, other than sRGB
    dim: bool = False  # grey of 12 or 16 bits, of which it uses less than a sixteenth
    error: str | None = None


@dataclass(frozen=True)
class Survey:
    facts: list[Facts]  # N, in the order of the paths
    thumbnails: NDArray[np.uint8]  # (N, 3, 32, 32), what a network of 32 px sees; black where a file cannot be read


def survey(
    paths: Sequence[str],
    stamps: Sequence[tuple[str, int, int]],
    cache: Path,
    *,
    progress: bool = False,
    workers: int | None = None,
) -> Survey:
    """Looks at files, or remembers what was found. `stamps` hold name, bytes and time of each, in the same order."""
    kept = place_of(paths, stamps, cache).with_suffix(".npz")
    with suppress(OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return _read(kept, len(paths))
    jobs = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    facts: list[Facts] = []
    thumbnails = np.zeros((len(paths), 3, SIDE, SIDE), np.uint8)
    with (
        mapped(workers, len(jobs)) as map_jobs,
        progress_bar("looking", len(paths), "images", None if progress else False) as bar,
    ):
        for found, pictures in map_jobs(_look_at, jobs):
            thumbnails[len(facts) : len(facts) + len(found)] = pictures
            facts += found
            bar.update(len(facts))
    found = Survey(facts, thumbnails)
    if all(one.digest for one in facts):  # a permission that is lacking may be given the next time
        with suppress(StorageError):  # a memory that cannot be written is not needed
            _keep(kept, found)
    return found


def place_of(paths: Sequence[str], stamps: Sequence[tuple[str, int, int]], cache: Path) -> Path:
    """Where in the cache, but for the ending, what was found of these files is kept."""
    key = hashlib.sha256(json.dumps([FORMAT, SIDE, list(paths), list(stamps)]).encode()).hexdigest()[:16]
    return cache / "surveys" / key


def _look_at(paths: Sequence[str]) -> tuple[list[Facts], NDArray[np.uint8]]:
    looked = [look_at(path) for path in paths]
    return [facts for facts, _ in looked], np.stack([thumbnail for _, thumbnail in looked])


def look_at(path: str) -> tuple[Facts, NDArray[np.uint8]]:
    """The facts of one file, and its thumbnail (3, 32, 32)."""
    thumbnail = np.zeros((3, SIDE, SIDE), np.uint8)
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return Facts("", error=f"cannot be read: {error.strerror}"), thumbnail
    facts = Facts(digest)
    try:
        with opened(path) as image:
            facts = Facts(
                digest,
                width=image.width,
                height=image.height,
                mode=image.mode,
                format=image.format or "",
                frames=_frames(image),
                turned=turn_of(image) is not None,
                transparent=image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info,
                profile=other_profile(image.info.get("icc_profile")),
            )
        thumbnail, noticed = decode_and_notice(path, SIDE)
        facts = replace(facts, dim=noticed.dim)
    except ValueError as error:
        facts = replace(facts, error=str(error))
    return facts, thumbnail


def _frames(image: Any) -> int:
    """How many frames an image has; 1 where those behind the first cannot be counted, which no training uses."""
    try:
        return int(getattr(image, "n_frames", 1))
    except MemoryError:
        raise
    except Exception:  # Pillow raises what its decoders raise
        return 1


def _keep(path: Path, found: Survey) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, facts=json.dumps([asdict(one) for one in found.facts]), thumbnails=found.thumbnails)
    write(path, buffer.getbuffer(), folders=True)


def _read(path: Path, files: int) -> Survey:
    """What was kept; ValueError where it is not of so many files."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
        found = Survey([Facts(**one) for one in json.loads(str(kept["facts"]))], kept["thumbnails"])
    if len(found.facts) != files or found.thumbnails.shape != (files, 3, SIDE, SIDE):
        raise ValueError("a survey of other files")
    return found
