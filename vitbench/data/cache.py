"""Writes decoded images into one file, once, which all runs and processes share.

`<cache>/<name>-<key>.npy` holds the training images, then the test images. `<name>-<key>.json` is its header: it holds
labels, classes and fingerprint, and is written last. The key is a hash of all that identifies the source (for a folder:
its path, the names, sizes and times of its files, and the image size), so changed data get a new file and nothing is
ever overwritten. The two files are used if the header agrees with its own hash and with the images; for this it holds
their length and a hash of 16 blocks spread over them. Otherwise the source is decoded again. The header also holds a
digest of each image, which is checked when the image is loaded (`stored.py`). A header of an older vitbench has no
digests: then all images are read once and checked against the fingerprint, which is made from the digests.

If images are decoded whenever they are needed (`files.py`), only a header is kept, `<name>-<key>-files.json`.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitbench.data.split import Dataset, Split
from vitbench.data.stored import HEADER, ImageFile, Stored, digests_of, locked, pixel_digest
from vitbench.errors import DataError, StorageError
from vitbench.machine.disk import LARGE, read_json, write

MOST_ROWS, MOST_PIXELS = 2**40, 100_000  # bounds of a valid header: images of a set, and pixels along a side
FORMAT = 1  # raise this when the format of the two files changes
NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST}
STORAGE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO} | NOT_A_FOLDER


@dataclass(frozen=True)
class Contents:
    """What a source knows about the rows (images) that it wrote: training images first, then test images."""

    train_labels: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    broken: dict[int, str] = field(default_factory=dict)  # row -> what is wrong with it; these rows are dropped
    find_warnings: Callable[[np.ndarray], list[str]] = lambda digests: []  # takes the digests (M,16) of all rows


# Takes the shape (M,C,H,W), the dropped rows and the digests (M,16) of the others; returns an array-like of their
# pixels.
Reader = Callable[[tuple[int, ...], list[int], np.ndarray], Any]


class Rows:
    """Writes the images of one cache file, in any order and from several processes, and keeps a digest of each.

    It writes with `pwrite`, which raises OSError on a full disk; writing through a memory map would end the process
    with a bus error. Without a path, nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.shape, self.digests = path, (0, 0, 0, 0), np.empty((0, 16), np.uint8)

    def allocate(self, images: int, channels: int, size: int, alternative: str = "") -> None:
        """Sets the shape. If the disk has too little room, raises StorageError, which also names the `alternative`."""
        self.shape, self.digests = (images, channels, size, size), np.zeros((images, 16), np.uint8)
        if self.path is None:
            return
        needed, free = images * channels * size * size, shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise StorageError(
                f"data.cache={self.path.parent}: {images:,} decoded images of {size} px need {needed / 1e9:,.1f} GB, "
                f"and {free / 1e9:,.1f} GB are free; set data.cache to a folder on another disk{alternative}"
            )

    def write(self, row: int, images: np.ndarray) -> None:
        self.digests[row : row + len(images)] = write_rows(self.path, row, images)

    def finish(self, keep: np.ndarray) -> None:
        """Removes the rows that are not kept, then writes the npy header, without which a file cannot be opened."""
        _, C, H, W = self.shape
        if self.path is None:
            return
        with open(self.path, "r+b") as file:
            for new_row, old_row in enumerate(np.flatnonzero(keep).tolist()):
                if new_row != old_row:
                    image = os.pread(file.fileno(), C * H * W, HEADER + old_row * C * H * W)
                    _pwrite(file.fileno(), memoryview(image), HEADER + new_row * C * H * W)
            M = int(keep.sum())
            file.truncate(HEADER + M * C * H * W)
            header, description = io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": (M, C, H, W)}
            np.lib.format.write_array_header_1_0(header, description)
            assert header.tell() == HEADER, header.tell()
            file.write(header.getvalue())
            file.flush()
            os.fsync(file.fileno())


def write_rows(path: Path | None, row: int, images: np.ndarray) -> np.ndarray:
    """Writes uint8 images (M,C,H,W) from this row on, if there is a path; returns a digest of each, uint8 (M,16)."""
    data = np.ascontiguousarray(images)
    if path is not None:
        image_bytes = data[0].nbytes if len(data) else 0
        with open(path, "r+b") as file:
            _pwrite(file.fileno(), data.reshape(-1).data, HEADER + row * image_bytes)
    return digests_of(data)


def _pwrite(file: int, rest: memoryview, offset: int) -> None:
    while rest:  # a write may write only a part, for example at the last free byte
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def cached(
    cache: Path,
    name: str,
    identity: Any,
    build: Callable[[Rows], Contents],
    *,
    skip_broken: bool = True,
    reader: Reader | None = None,
) -> Dataset:
    """Opens the data set of this identity; the first process that asks for it builds it.

    With a `reader`, the pixels are not stored, and the reader returns an array-like that decodes them. All broken files
    are found before any is reported, and the other images are kept, so repeating the command with
    `data.skip_broken=true` decodes nothing again. Raises DataError if a file is broken and `skip_broken` is false.
    """
    key = hashlib.sha256(json.dumps([FORMAT, identity], sort_keys=True, default=str).encode()).hexdigest()[:16]
    images = cache / f"{name}-{key}{'-files' if reader else ''}.npy"
    if (opened := _open(images, reader)) is None:
        with storage_errors(f"data.cache={cache}"):
            cache.mkdir(parents=True, exist_ok=True)
            with locked(images.with_suffix(".lock")):
                if (opened := _open(images, reader)) is None:
                    _build(images, build, pixels=reader is None)
                    opened = _open(images, reader)
    assert opened is not None, f"{images} was written and cannot be read"
    dataset, broken = opened
    if not broken:
        return dataset
    broken_files = listed(broken, "broken file", most=20)
    if len(broken) > 20:
        broken_files += f", all in {images.with_suffix('.json')}"
    if not skip_broken:
        raise DataError(f"{broken_files}; repair or remove them, or set data.skip_broken=true")
    return replace(dataset, warnings=(f"skipped {broken_files}", *dataset.warnings))


def _build(images: Path, build: Callable[[Rows], Contents], pixels: bool) -> None:
    for left_over in images.parent.glob(f"{images.stem}.*.part"):  # we hold the lock, so its writer was killed
        left_over.unlink(missing_ok=True)
    part, part_header = (images.with_suffix(f".{os.getpid()}.{kind}.part") for kind in ("npy", "json"))
    try:
        if pixels:
            part.touch()
        rows = Rows(part if pixels else None)
        contents = build(rows)
        keep = np.ones(len(rows.digests), bool)
        keep[list(contents.broken)] = False
        labels = np.concatenate([contents.train_labels, contents.test_labels])
        assert len(labels) == len(keep), f"{len(labels)} labels for {len(keep)} rows"
        _check_that_each_class_has_images(labels, keep, contents)
        rows.finish(keep)
        train = int(keep[: len(contents.train_labels)].sum())
        header = {
            "train": train,
            "shape": [int(keep.sum()), *rows.shape[1:]],
            "fingerprint": _fingerprint(contents.classes, train, rows.digests[keep], labels[keep]),
            "classes": contents.classes,
            "broken": list(contents.broken.values()),
            "warnings": contents.find_warnings(rows.digests),
            "labels": labels[keep].tolist(),
            "digests": rows.digests[keep].tobytes().hex(),
        }
        header |= {"sample": _sample(part)} if pixels else {"dropped": sorted(contents.broken)}
        with open(part_header, "w", encoding="utf-8") as file:
            file.write(_sealed(header))
            file.flush()
            os.fsync(file.fileno())
        if pixels:
            os.replace(part, images)
        os.replace(part_header, images.with_suffix(".json"))
        folder = os.open(images.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        part.unlink(missing_ok=True)
        part_header.unlink(missing_ok=True)


def _check_that_each_class_has_images(labels: np.ndarray, keep: np.ndarray, contents: Contents) -> None:
    K, train = len(contents.classes), len(contents.train_labels)
    for split, part in (("train", slice(None, train)), ("test", slice(train, None))):
        empty = np.flatnonzero(np.bincount(labels[part][keep[part]], minlength=K) == 0)
        if len(empty):
            classes = listed([contents.classes[k] for k in empty], "class")
            reason = f" after {listed(list(contents.broken.values()), 'broken file')}" if contents.broken else ""
            raise DataError(f"no {split} images are left of {classes}{reason}")


def _open(images: Path, reader: Reader | None) -> tuple[Dataset, list[str]] | None:
    """Returns the data set and a line for each of its broken files; None if a file of the two is missing or damaged."""
    try:
        header = _read_header(images.with_suffix(".json"))
        shape = tuple(header["shape"])
        if reader:
            pixels: Any = reader(shape, header["dropped"], _kept_digests(header))
        elif images.stat().st_size != HEADER + math.prod(shape) or _sample(images) != header["sample"]:
            return None
        else:
            file = ImageFile(images, shape, np.empty((0, 16), np.uint8))
            if (digests := _kept_digests(header) if "digests" in header else _found_digests(file, header)) is None:
                return None
            file.digests = digests
            pixels = Stored(file, range(shape[0]))
    except (FileNotFoundError, ValueError):  # a file is missing, or vitbench did not write it
        return None
    except OSError as error:
        raise StorageError(f"data.cache={images.parent}: cannot read {images.name}: {error.strerror}") from error
    labels, train, classes = np.array(header["labels"], np.int64), header["train"], tuple(header["classes"])
    dataset = Dataset(
        train=Split(pixels[:train], labels[:train], classes),
        test=Split(pixels[train:], labels[train:], classes),
        fingerprint=header["fingerprint"],
        warnings=tuple(header["warnings"]),
    )
    return dataset, header["broken"]


def damaged(header_file: Path, tell: Callable[[int], None] = lambda size: None) -> list[str]:
    """Reads all pixels of a decoded set and returns a line for each fault; `tell` gets the number of bytes read."""
    try:
        header = _read_header(header_file)
        (images, *shape), labels = header["shape"], np.array(header["labels"])
        if "sample" not in header:
            return []  # images that are decoded whenever they are needed have only a header
        found = []
        with open(header_file.with_suffix(".npy"), "rb") as file:
            file.seek(HEADER)
            for _ in range(images):
                image = file.read(math.prod(shape))
                found.append(pixel_digest(np.frombuffer(image, np.uint8)))
                tell(len(image))
    except _Changed as error:
        return [str(error)]
    except (OSError, ValueError) as error:
        return [f"cannot be read: {getattr(error, 'strerror', None) or 'it is not a header of decoded images'}"]
    digests = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
    wrong = (digests != _kept_digests(header)).any(1) if "digests" in header else np.zeros(images, bool)
    if wrong.any():
        count = int(wrong.sum())
        return [f"{count:,} of {images:,} images have other pixels than were written; the first is {wrong.argmax()}"]
    if header["fingerprint"] != _fingerprint(header["classes"], header["train"], digests, labels):
        return ["its images have other pixels than were written (their fingerprint differs)"]
    return []


class _Changed(ValueError):
    """A header that does not agree with its own hash."""


def _read_header(path: Path) -> Any:
    """Reads a header. Raises ValueError unless it agrees with its own hash and with itself; OSError as `read_json`."""
    header: Any = read_json(path, LARGE)
    if header.pop("digest", None) != _digest(header):
        raise _Changed("its header is damaged (its checksum differs)")
    texts: list[Any] = [header.get(key) for key in ("classes", "broken", "warnings")]
    shape, train, labels = map(header.get, ("shape", "train", "labels"))
    dropped, digests = header.get("dropped", []), header.get("digests", "")
    if not all(isinstance(its, list) for its in (*texts, shape, labels, dropped)) or not isinstance(digests, str):
        raise ValueError("a list is lacking")
    whole = [header.get("fingerprint"), header.get("sample", ""), *(text for its in texts for text in its)]
    if not all(isinstance(text, str) for text in whole):
        raise ValueError("a text is lacking")
    numbers = [train, *shape, *dropped]
    if len(shape) != 4 or not all(type(number) is int and 0 <= number <= MOST_ROWS for number in numbers):
        raise ValueError("no such numbers")
    numbers_of_classes, M = np.array(labels), shape[0]
    if numbers_of_classes.shape != (M,) or numbers_of_classes.dtype != np.int64 or not 0 <= train <= M or not M:
        raise ValueError("not a label for each image")
    if not 0 <= numbers_of_classes.min() <= numbers_of_classes.max() < len(header["classes"]):
        raise ValueError("labels of no class")
    if max(shape[1:]) > MOST_PIXELS or ("sample" in header) == ("dropped" in header):
        raise ValueError("no such images")
    is_old = "digests" not in header and "sample" in header
    if not is_old and len(bytes.fromhex(digests)) != 16 * M:
        raise ValueError("not a digest for each image")
    return header


def _kept_digests(header: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(header["digests"]), np.uint8).reshape(-1, 16)


def _found_digests(file: ImageFile, header: dict[str, Any]) -> np.ndarray | None:
    """Computes and stores the digests of images that an older vitbench wrote; None if the images are damaged."""
    print(f"{file.path}: an older vitbench wrote these images; they are checked once", file=sys.stderr)
    digests, labels = file.all_digests(), np.array(header["labels"])
    if digests is None or header["fingerprint"] != _fingerprint(header["classes"], header["train"], digests, labels):
        return None
    with suppress(StorageError):  # if the digests cannot be stored, the images are checked again the next time
        write(file.path.with_suffix(".json"), _sealed(header | {"digests": digests.tobytes().hex()}).encode())
    return digests


def _fingerprint(classes: Sequence[str], train: int, digests: np.ndarray, labels: np.ndarray) -> str:
    fingerprint = hashlib.sha256(json.dumps([classes, train]).encode())
    fingerprint.update(digests.tobytes() + labels.astype("<i8").tobytes())
    return fingerprint.hexdigest()[:16]


def _sealed(header: dict[str, Any]) -> str:
    """Returns the text of a header together with its own digest."""
    return json.dumps(header | {"digest": _digest(header)})


def _digest(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _sample(path: Path) -> str:
    """Returns a hash of 16 blocks between the first byte and the last, which shows whether a file was cut off."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        end = max(0, os.fstat(file.fileno()).st_size - 4096)
        for i in range(16):
            digest.update(os.pread(file.fileno(), 4096, end * i // 15))
    return digest.hexdigest()


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turns OSErrors of the disk and of permissions into a StorageError that starts with the setting, `where`."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRNOS:
            raise
        name = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        reason = "a file is where a folder is needed" if error.errno in NOT_A_FOLDER else error.strerror
        raise StorageError(f"{where}: {reason}{name}") from error


def listed(names: list[str], noun: str, most: int = 5) -> str:
    """Returns `3 broken files: a, b, c`. Only the first names are listed, and the others are counted."""
    plural = {"class": "classes"}.get(noun, noun + "s")
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{len(names):,} {noun if len(names) == 1 else plural}: {', '.join(names[:most])}{more}"


def duplicates(
    digests: np.ndarray, *, names: list[str], labels: np.ndarray, train: int, broken: Container[int] = ()
) -> list[str]:
    """Returns warnings about images with equal pixels in both splits or in two classes.

    `digests` are (M,16), `names` and `labels` have one entry per row, and the first `train` rows are training images.
    """
    rows_by_digest = defaultdict(list)
    for row, digest in enumerate(digests):
        if row not in broken:
            rows_by_digest[digest.tobytes()].append(row)
    leaked, contradictory = [], []
    for first, *copies in rows_by_digest.values():
        if first < train and copies and copies[-1] >= train:
            leaked.append(f"{names[first]} = {names[copies[-1]]}")
        if of_other_classes := [row for row in copies if labels[row] != labels[first]]:
            contradictory.append(f"{names[first]} = {names[of_other_classes[0]]}")
    warnings = [f"the same image is in train and in test: {listed(leaked, 'image')}"] if leaked else []
    wrong = f"the same image is in two classes: {listed(contradictory, 'image')}"
    return [*warnings, wrong] if contradictory else warnings
