"""Reads every file of a folder once: its header, a thumbnail, and whether it can be decoded completely.

The results are kept in the cache, so a second look at the same files takes no time.
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

FORMAT = 4  # raise this when the results that are kept change
CHUNK = 64  # number of files that a process reads at a time


@dataclass(frozen=True)
class Facts:
    """Facts about one file. If it cannot be read, `error` says why, and the rest may be empty."""

    digest: str  # hash of the bytes of the file; empty if the system refuses to read it
    width: int = 0  # in pixels, before the image is turned by EXIF
    height: int = 0
    mode: str = ""  # Pillow's mode: RGB, L, CMYK, I;16, P, RGBA ...
    format: str = ""  # JPEG, PNG ...
    frames: int = 1
    turned: bool = False  # EXIF says that the image has to be turned or mirrored
    transparent: bool = False
    profile: str = ""  # name of a colour profile other than sRGB
    dim: bool = False  # it is grey of 12 or 16 bits and uses at most a sixteenth of their range
    error: str | None = None


@dataclass(frozen=True)
class Survey:
    facts: list[Facts]  # N, in the order of the paths
    thumbnails: NDArray[np.uint8]  # (N, 3, 32, 32), decoded as for a network of 32 px; black if a file cannot be read


def survey(
    paths: Sequence[str],
    stamps: Sequence[tuple[str, int, int]],
    cache: Path,
    *,
    progress: bool = False,
    workers: int | None = None,
) -> Survey:
    """Reads files, or returns the results that were kept. `stamps` have name, bytes and time of each file in order."""
    kept = place_of(paths, stamps, cache).with_suffix(".npz")
    with suppress(OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return _read(kept, len(paths))
    jobs = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    facts: list[Facts] = []
    thumbnails = np.zeros((len(paths), 3, SIDE, SIDE), np.uint8)
    with (
        mapped(workers, len(jobs)) as map_jobs,
        progress_bar("reading", len(paths), "images", None if progress else False) as bar,
    ):
        for found, pictures in map_jobs(_look_at, jobs):
            thumbnails[len(facts) : len(facts) + len(found)] = pictures
            facts += found
            bar.update(len(facts))
    found = Survey(facts, thumbnails)
    if all(one.digest for one in facts):  # a file without permission may be readable the next time
        with suppress(StorageError):  # without this file, the images are read again the next time
            _keep(kept, found)
    return found


def place_of(paths: Sequence[str], stamps: Sequence[tuple[str, int, int]], cache: Path) -> Path:
    """Returns the path, without an ending, at which the cache keeps the results for these files."""
    key = hashlib.sha256(json.dumps([FORMAT, SIDE, list(paths), list(stamps)]).encode()).hexdigest()[:16]
    return cache / "surveys" / key


def _look_at(paths: Sequence[str]) -> tuple[list[Facts], NDArray[np.uint8]]:
    looked = [look_at(path) for path in paths]
    return [facts for facts, _ in looked], np.stack([thumbnail for _, thumbnail in looked])


def look_at(path: str) -> tuple[Facts, NDArray[np.uint8]]:
    """Returns the facts about one file and its thumbnail (3, 32, 32)."""
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
    """Returns the number of frames of an image; 1 if they cannot be counted, because training uses only the first."""
    try:
        return int(getattr(image, "n_frames", 1))
    except MemoryError:
        raise
    except Exception:  # Pillow's decoders may raise anything
        return 1


def _keep(path: Path, found: Survey) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, facts=json.dumps([asdict(one) for one in found.facts]), thumbnails=found.thumbnails)
    write(path, buffer.getbuffer(), folders=True)


def _read(path: Path, files: int) -> Survey:
    """Reads the results that were kept. Raises ValueError if they are not about this number of files."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
        found = Survey([Facts(**one) for one in json.loads(str(kept["facts"]))], kept["thumbnails"])
    if len(found.facts) != files or found.thumbnails.shape != (files, 3, SIDE, SIDE):
        raise ValueError("a survey of other files")
    return found
