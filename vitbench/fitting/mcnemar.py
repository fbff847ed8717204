"""McNemar's test of two runs that share seed, subset and test images.

It needs counts of test images that only one of the two has right. They come from what each run predicted
(`predictions.npy`) and the true classes in the same order (`labels.npy` of either run), or, where the runs are gone,
from the mcnemar.csv that `vitbench report` made of these files. Two runs were tested on the same images if their data
fingerprints are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.comparing.evidence import Counted
from vitbench.comparing.select import Row
from vitbench.numbers.intervals import count_discordant, mcnemar_p
from vitbench.runs.predictions import Missing, read_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# how many test images only the first run, and only the second, classifies correctly; raises Missing if nobody can say
Count = Callable[[Row, Row], tuple[int, int]]


class Checkpoints(NamedTuple):
    """Two runs, a and b, on the same test images."""

    images: int  # the number of training images
    seed: int
    only_a: int  # the number of test images that only a classifies correctly
    only_b: int
    p: float
    id_a: str
    id_b: str
    test_images: int


def compare_checkpoints(count: Count, a: Sequence[Row], b: Sequence[Row], images: float) -> list[Checkpoints]:
    """Tests the two models' runs of each shared seed at one number of training images; raises Missing if it cannot."""
    runs_a, runs_b = (
        {
            (row.get("data.subset_seed"), row["seed"]): row
            for row in rows
            if row.get("train_images") == images and row.get("test_accuracy") is not None
        }
        for rows in (a, b)
    )
    tests = []
    for seeds in runs_a:
        if seeds not in runs_b:
            continue
        run_a, run_b = runs_a[seeds], runs_b[seeds]
        if run_a["data_fingerprint"] != run_b["data_fingerprint"]:
            raise Missing(f"{run_a['id']} and {run_b['id']} were tested on different images")
        only_a, only_b = count(run_a, run_b)
        p, ids = mcnemar_p(only_a, only_b), (run_a["id"], run_b["id"])
        tests.append(Checkpoints(int(images), run_a["seed"], only_a, only_b, p, *ids, run_a["test_images"]))
    return tests


def count_in(folder: Path) -> Count:
    """Returns a function that counts from the predictions of runs in this folder."""

    def count(run_a: Row, run_b: Row) -> tuple[int, int]:
        labels = _read_labels(folder, run_a, run_b)
        predictions_a, predictions_b = (read_classes(folder, run, "predictions.npy") for run in (run_a, run_b))
        return count_discordant(predictions_a, predictions_b, labels)

    return count


def count_by(first: Count, second: Count) -> Count:
    """Returns a function that asks the second where the first lacks what it needs."""

    def count(run_a: Row, run_b: Row) -> tuple[int, int]:
        try:
            return first(run_a, run_b)
        except Missing as missing:
            try:
                return second(run_a, run_b)
            except Missing:
                raise missing from None

    return count


def count_kept(counted: Iterable[Counted]) -> Count:
    """Returns a function that knows the counts of mcnemar.csv, whichever of two runs comes first."""
    kept = {}
    for row in counted:
        kept[row.id, row.against_id] = (row.only_model, row.only_against)
        kept[row.against_id, row.id] = (row.only_against, row.only_model)

    def count(run_a: Row, run_b: Row) -> tuple[int, int]:
        pair = run_a["id"], run_b["id"]
        if pair not in kept:
            raise Missing(f"mcnemar.csv has no counts of {pair[0]} and {pair[1]}")
        return kept[pair]

    return count


def _read_labels(folder: Path, run_a: Row, run_b: Row) -> NDArray[Any]:
    for run in (run_a, run_b):
        if (folder / run["id"] / "labels.npy").exists():
            return read_classes(folder, run, "labels.npy")
    raise Missing(f"neither {run_a['id']} nor {run_b['id']} has labels.npy beside its predictions")
