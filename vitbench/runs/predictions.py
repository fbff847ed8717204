"""What a run said of each test image: `predictions.npy`, and in the same order the true classes, `labels.npy`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.numbers.words import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Missing(Exception):
    """A file is not there, or is not what it should be; the message names it."""


def read_classes(folder: Path, run: Mapping[str, Any], file: str) -> NDArray[Any]:
    """Reads a class for each test image of a run, a row of a table or a record, below the folder of all runs."""
    import numpy as np

    path = folder / run["id"] / file
    try:
        classes: NDArray[Any] = np.load(path, allow_pickle=False)
    except OSError as error:
        raise Missing(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, EOFError) as error:
        raise Missing(f"{path} is no array: {printable(str(error))[:80]}") from None
    if classes.shape != (run["test_images"],) or classes.dtype.kind not in "iu":
        raise Missing(
            f"{path} holds {classes.dtype} of shape {classes.shape}, not a class of each of {run['test_images']} images"
        )
    return classes
