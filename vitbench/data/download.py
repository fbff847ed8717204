"""Downloads an archive from the first address that works, because the usual one may be dead or slow.

The archive is the same wherever it comes from: a download with another MD5 than expected is not kept.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from vitbench.data.cache import STORAGE_ERRNOS
from vitbench.machine.progress import progress as progress_bar

SILENCE = 20.0  # seconds without a byte after which an address counts as dead
PATIENCE = 20.0  # seconds of download after which its rate is judged
SLOW = 150_000  # bytes per second below which an address is slow; at this rate CIFAR-10 takes 19 minutes
BLOCK = 1 << 16  # bytes


class TooSlow(OSError):
    """An address sends fewer bytes per second than SLOW."""


def bring(archive: Path, md5: str, addresses: Sequence[str], *, progress: bool = False) -> None:
    """Downloads a file unless it is there with this MD5. If no address works, raises the error of the first one.

    A slow address is left for the next one. If no other works, it is tried again without a limit.
    """
    if archive.is_file() and _md5(archive) == md5:
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    errors: list[OSError | HTTPException] = []
    slow: list[str] = []
    attempts = [(address, SLOW) for address in addresses]
    for number, (address, least) in enumerate(attempts):
        try:
            return _download(archive, md5, address, least, progress)
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS:
                raise
            if isinstance(error, HTTPError):
                error.close()
            errors.append(error)
            slow += [address] if isinstance(error, TooSlow) else []
            if number + 1 == len(addresses):
                attempts += [(address, 0) for address in slow]
            if number + 1 < len(attempts):
                print(f"{_host(address)}: {error}; trying {_host(attempts[number + 1][0])}", file=sys.stderr)
    raise errors[0]


def _download(archive: Path, md5: str, address: str, least: float, progress: bool) -> None:
    """Downloads a file completely or not at all. Raises TooSlow below `least` bytes per second."""
    part = archive.with_name(f".{archive.name}.{os.getpid()}.part")
    request = Request(address, headers={"User-Agent": "vitbench"})
    try:
        with urlopen(request, timeout=SILENCE) as response, open(part, "wb") as file:
            megabytes, done, begin = (response.length or 0) / 1e6, 0, time.monotonic()
            with progress_bar(f"downloading {archive.name}", megabytes, "MB", None if progress else False) as bar:
                while block := response.read1(BLOCK):
                    file.write(block)
                    done += len(block)
                    bar.update(done / 1e6)
                    seconds = time.monotonic() - begin
                    if seconds > PATIENCE and done < least * seconds:
                        raise TooSlow(f"{done / seconds / 1e3:.0f} kB a second is too slow")
        if _md5(part) != md5:
            raise OSError(f"it sent another file than {archive.name} with MD5 {md5}")
        os.replace(part, archive)
    finally:
        part.unlink(missing_ok=True)


def _host(address: str) -> str:
    return urlsplit(address).netloc


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
