"""McNemar's test of pairs of runs: one seed, one subset, the same test images.

It needs what each run predicted (`predictions.npy`) and the true classes in the same order (`labels.npy`, of either run).
Runs with one data fingerprint were tested on the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.comparing.select import Row
from vitbench.numbers.intervals import discordant, mcnemar
from vitbench.numbers.words import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Checkpoints(NamedTuple):
    """Two runs on the same test images."""

    images: int  # that they were trained on
    seed: int
    only_a: int  # test images that a alone has right
    only_b: int
    p: float


class Missing(Exception):
    """What a test would need, and is not there."""


def compare(folder: Path, a: Sequence[Row], b: Sequence[Row], images: float) -> list[Checkpoints]:
    """Each seed that runs of both models have, at one number of training images; Missing says what is lacking."""
    ended = [
        {
            (row.get("data.subset_seed"), row["seed"]): row
            for row in rows
            if row.get("train_images") == images and row.get("test_accuracy") is not None
        }
        for rows in (a, b)
    ]
    made = []
    for key, one in ended[0].items():
        if (other := ended[1].get(key)) is None:
            continue
        if one["data_fingerprint"] != other["data_fingerprint"]:
            raise Missing(f"{one['id']} and {other['id']} were tested on different images")
        labels = _labels(folder, one, other)
        said, other_said = (_classes(folder, row, "predictions.npy") for row in (one, other))
        only_a, only_b = discordant(said, other_said, labels)
        made.append(Checkpoints(int(images), one["seed"], only_a, only_b, mcnemar(only_a, only_b)))
    return made


def _labels(folder: Path, *rows: Row) -> NDArray[Any]:
    for row in rows:
        if (folder / row["id"] / "labels.npy").exists():
            return _classes(folder, row, "labels.npy")
    raise Missing(f"neither {' nor '.join(str(row['id']) for row in rows)} has labels.npy beside its predictions")


def _classes(folder: Path, row: Row, name: str) -> NDArray[Any]:
    """A class per test image, or why there is none."""
    import numpy as np

    path = folder / row["id"] / name
    try:
        classes: NDArray[Any] = np.load(path, allow_pickle=False)
    except OSError as error:
        raise Missing(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, EOFError) as error:
        raise Missing(f"{path} is no array: {printable(str(error))[:80]}") from None
    if classes.shape != (row["test_images"],) or classes.dtype.kind not in "iu":
        raise Missing(
            f"{path} holds {classes.dtype} of shape {classes.shape}, not a class of each of {row['test_images']} images"
        )
    return classes
