"""Reads how a run classified each test image (`predictions.npy`) and, in the same order, the true classes
(`labels.npy`)."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.errors import UserError
from vitbench.machine.disk import LARGE, read_file
from vitbench.numbers.words import printable
from vitbench.runs.records import REMEDY, read_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_HEADER = 10_000  # bytes


class Missing(Exception):
    """A file is missing or damaged; the message names it."""


def read_classes(folder: Path, run: Mapping[str, Any], file: str) -> NDArray[Any]:
    """Reads a file of a run that has a class for each test image. `run` is a row of a table or a record.

    Raises Missing where the file is not there, or differs from what the run wrote.
    """
    import numpy as np

    path, images = folder / run["id"] / file, run["test_images"]
    try:
        blob = read_file(path, MOST_HEADER + 8 * images)
    except OSError as error:
        raise Missing(f"{path}: {error.strerror or 'cannot be read'}") from None
    if _checksum_of(path) not in (None, hashlib.sha256(blob).hexdigest()):
        raise Missing(f"{path} is damaged (its checksum differs): {REMEDY}")
    shape, dtype, start = _header(path, blob)
    if shape != (images,) or dtype.kind not in "iu" or len(blob) != start + images * dtype.itemsize:
        raise Missing(f"{path} holds {dtype} of shape {shape}, not a class for each of {images} images")
    return np.frombuffer(blob, dtype, offset=start)


def check_probabilities(path: Path, images: int) -> None:
    """Raises Missing where a file does not hold the probabilities of all classes for each of so many images."""
    try:
        blob = read_file(path, LARGE)
    except OSError as error:
        raise Missing(f"{path}: {error.strerror or 'cannot be read'}") from None
    shape, dtype, start = _header(path, blob)
    is_table = len(shape) == 2 and shape[0] == images and dtype.kind == "f"
    if not is_table or len(blob) != start + images * shape[1] * dtype.itemsize:
        raise Missing(f"{path} holds {dtype} of shape {shape}, not probabilities for each of {images} images")


def _checksum_of(path: Path) -> str | None:
    """Returns the checksum of a file in the record of its run; None where the record has none."""
    try:
        return read_record(path.parent / "record.json").get("files", {}).get(path.name)
    except (UserError, OSError):
        return None


def _header(path: Path, blob: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Returns the shape and the type of a .npy file, and the byte at which its numbers begin."""
    import numpy as np

    file = io.BytesIO(blob)
    try:
        with warnings.catch_warnings(action="ignore"):
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(file)
    except Exception as error:  # numpy evaluates the header, which can raise anything
        raise Missing(f"{path} is no array: {printable(str(error))[:80]}") from None
    return shape, dtype, file.tell()
