"""Archives of runs, for other labs: a gzipped tar with the files that vitbench writes, and no others.

    sha256sums.txt              of each other file, as `sha256sum -c` reads it
    NAME.yaml                   the study, where the runs are those of one
    runs/.plans/NAME-GRID.json  what sweeps of the study noted
    runs/<id>/                  record.json, config.yaml, metrics.csv, predictions.npy, labels.npy, probabilities.npy,
                                probes/*.csv, and checkpoint*.safetensors where weights were asked for

Files are in the order of their names and have the same owner, time and mode, so that equal files give equal bytes,
unless another version of zlib compresses them. Anyone can have made an archive that we read. So every entry must be a
regular file with such a name and an allowed size, and the unpacked files may not be far larger than the archive.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from vitbench.errors import DataError, StorageError
from vitbench.machine.disk import LARGE, SMALL, check_readable, storage, write_all
from vitbench.numbers.words import printable
from vitbench.settings.compose import MOST_YAML

ENDINGS = (".tar.gz", ".tgz")
SUMS = "sha256sums.txt"
RUN_ID = r"(?!images-)[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}"  # images-... is a folder of runs kept apart (records.py)
STUDY = re.compile(r"[\w-][\w.-]{0,99}\.yaml")
NOTES = re.compile(r"runs/\.plans/[\w-][\w.-]{0,99}-[0-9a-f]{8}\.json")
WEIGHTS = r"checkpoint(\.\d{1,15})?\.safetensors"
TABLES = 100_000_000  # the most bytes of metrics.csv (a line for each evaluation) or a probe's file (for each result)
KINDS = {  # the files that an archive can hold, and the most bytes of each
    re.compile(r"sha256sums\.txt"): TABLES,
    STUDY: MOST_YAML,
    NOTES: SMALL,
    re.compile(rf"runs/{RUN_ID}/record\.json"): SMALL,
    re.compile(rf"runs/{RUN_ID}/config\.yaml"): MOST_YAML,
    re.compile(rf"runs/{RUN_ID}/(metrics\.csv|probes/[a-z0-9_]{{1,60}}(\.(init|\d{{1,15}}))?\.csv)"): TABLES,
    re.compile(rf"runs/{RUN_ID}/(predictions|labels|probabilities)\.npy"): LARGE,
    re.compile(rf"runs/{RUN_ID}/{WEIGHTS}"): 100 * LARGE,
}
MOST_FILES = 500_000
# An archive unpacks to at most MOST_TIMES its size and AND_BYTES more. Deflate packs 2,000 runs, whose records are much
# alike, to a twentieth of their size, and a file of zeros to a thousandth.
MOST_TIMES, AND_BYTES = 200, 100_000_000
BLOCK, CHUNK = tarfile.BLOCKSIZE, 1 << 20
LEVEL = 6  # of gzip
LINE = re.compile(r"([0-9a-f]{64})  ([^\0\n]+)")
ODD_KINDS = {
    **dict.fromkeys((tarfile.SYMTYPE, tarfile.LNKTYPE), "a link"),
    **dict.fromkeys((tarfile.CHRTYPE, tarfile.BLKTYPE), "a device"),
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}


def most_bytes(name: str) -> int | None:
    """Returns the most bytes that a file of this name may have in an archive; None for names vitbench does not give."""
    return next((most for pattern, most in KINDS.items() if pattern.fullmatch(name)), None)


def sums_text(digests: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())).encode()


# ------------------------------------------------------------------------------------------------------------- writing


def write_archive(
    file: BinaryIO, files: Mapping[str, Path | bytes], digests: Mapping[str, str], tell: Callable[[int], None]
) -> None:
    """Writes files, by their names in the archive. `tell` is called with the size in bytes of each block that was read.

    Raises StorageError where a file no longer has its digest.
    """
    with gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=file, mtime=0) as stream:
        for name, content in [(SUMS, sums_text(digests)), *sorted(files.items(), key=lambda each: each[0])]:
            if isinstance(content, bytes):
                stream.write(_header(name, len(content)) + _padded(content))
                continue
            if _copy(content, stream, name, tell) != digests[name]:
                raise StorageError(f"{content} was changed while it was packed; repeat the command")
        stream.write(bytes(2 * BLOCK))


def _copy(path: Path, stream: gzip.GzipFile, name: str, tell: Callable[[int], None]) -> str:
    """Writes a file with its header, and returns the digest of what was written."""
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as file:
            left = size = os.fstat(file.fileno()).st_size
            stream.write(_header(name, size))
            while left and (block := file.read(min(CHUNK, left))):
                sha256.update(block)
                stream.write(block)
                tell(len(block))
                left -= len(block)
    except OSError as error:
        if error.filename is None:  # writing failed, which the caller that opened the archive reports
            raise
        raise StorageError(f"{path} cannot be read: {error.strerror}") from None
    stream.write(bytes(left + -size % BLOCK))  # if the file became shorter, its digest will differ
    return sha256.hexdigest()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)  # owner, time and mode are the same for all
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


def _padded(blob: bytes) -> bytes:
    return blob + bytes(-len(blob) % BLOCK)


# ------------------------------------------------------------------------------------------------------------- reading


def unpack(path: Path, folder: Path, tell: Callable[[int], None] = lambda size: None) -> dict[str, str]:
    """Writes the files of an archive below an empty folder; returns their digests by their names, after checking both.

    Raises DataError where it is not an archive as `vitbench pack` writes it; the folder may then hold some of the
    files.
    """
    size = check_readable(path, "from=")
    digests: dict[str, str] = {}
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        source = _Source(path, file, MOST_TIMES * size + AND_BYTES, tell)
        for name, length in _entries(source, path):
            if name in digests:
                raise DataError(f"{path}: {name} is there twice")
            if len(digests) >= MOST_FILES:
                raise DataError(f"{path} holds more than {MOST_FILES:,} files")
            digests[name] = _write(source, folder / name, length)
    _check_sums(path, folder, digests)
    (folder / SUMS).unlink()
    del digests[SUMS]
    return digests


class _Source:
    """Reads the bytes of an archive in order. Raises DataError where they end too soon or are too many."""

    def __init__(self, path: Path, file: BinaryIO, most: int, tell: Callable[[int], None]):
        self.path, self.most, self.read_so_far = path, most, 0
        self._file, self._tell, self._told = file, tell, 0
        self._stream = gzip.GzipFile(fileobj=file, mode="rb")

    def read(self, size: int) -> bytes:
        """Returns `size` bytes; fewer only at the end."""
        try:
            blob = self._stream.read(size)
        except (OSError, EOFError, zlib.error) as error:
            what = "it is cut" if isinstance(error, EOFError) else printable(str(error))
            raise DataError(f"{self.path} is no whole archive of runs: {what}") from None
        self.read_so_far += len(blob)
        if self.read_so_far > self.most:
            raise DataError(
                f"{self.path} unpacks to more than {self.most / 1e6:,.0f} MB, over {MOST_TIMES} times its size, which "
                "no archive of runs does"
            )
        self._tell(self._file.tell() - self._told)
        self._told = self._file.tell()
        return blob

    def exactly(self, size: int) -> bytes:
        blob = self.read(size)
        if len(blob) < size:
            raise DataError(f"{self.path} is no whole archive of runs: it is cut")
        return blob


def _entries(source: _Source, path: Path) -> Iterator[tuple[str, int]]:
    """Yields the name and the size of each file; the caller must read its bytes before it asks for the next one."""
    while any(block := source.exactly(BLOCK)):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise DataError(f"{path} is no archive of runs: {printable(str(error))}") from None
        name, most = printable(info.name)[:200], most_bytes(info.name)
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = ODD_KINDS.get(info.type, "no regular file")
            raise DataError(f"{path}: {name} is {kind}; `vitbench pack` writes only regular files")
        if most is None:
            raise DataError(f"{path}: {name} is no file that `vitbench pack` writes")
        if not 0 <= info.size <= most:
            raise DataError(f"{path}: {name} has {info.size:,} bytes; such a file has at most {most:,}")
        yield info.name, info.size
        source.exactly(-info.size % BLOCK)
    while rest := source.read(CHUNK):  # tar fills its last block, and the checksum of gzip comes at the end
        if any(rest):
            raise DataError(f"{path}: there are more bytes behind the end of the archive")


def _write(source: _Source, target: Path, size: int) -> str:
    sha256 = hashlib.sha256()
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            while size:
                block = source.exactly(min(CHUNK, size))
                sha256.update(block)
                write_all(descriptor, block)
                size -= len(block)
        finally:
            os.close(descriptor)
    return sha256.hexdigest()


def _check_sums(path: Path, folder: Path, digests: Mapping[str, str]) -> None:
    """Raises DataError where the files are not those that sha256sums.txt lists."""
    if SUMS not in digests:
        raise DataError(f"{path}: {SUMS} is missing; `vitbench pack` writes it")
    lines = [LINE.fullmatch(line) for line in (folder / SUMS).read_bytes().decode(errors="replace").splitlines()]
    expected = {line[2]: line[1] for line in lines if line}
    for name in sorted(expected.keys() | digests.keys() - {SUMS}):
        if expected.get(name) != digests.get(name):
            lacks = "in the archive" if name in expected else f"in {SUMS}"
            why = "is not as it was packed" if {name} <= expected.keys() & digests.keys() else f"is not {lacks}"
            raise DataError(
                f"{path}: {printable(name)[:200]} {why}; a disk or a copy damaged it, or somebody changed it"
            )
