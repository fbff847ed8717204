from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Output
from tests.fitting.test_fit import study
from vitbench.fitting.mcnemar import Missing, compare_checkpoints, count_in
from vitbench.numbers.intervals import mcnemar_p

Cli = Callable[..., Output]
LABELS = np.random.default_rng(0).integers(0, 10, 1000).astype(np.int16)


def predict(folder: Path, right: int, skip: int = 0) -> None:
    """Saves predictions of which `right` are correct, after the first `skip`, which are wrong."""
    classes = (LABELS + 1) % 10
    classes[skip : skip + right] = LABELS[skip : skip + right]
    np.save(folder / "predictions.npy", classes.astype(np.int16))
    np.save(folder / "labels.npy", LABELS)


def predicted(runs: Path) -> Path:
    for folder in runs.glob("*-1.0-*"):
        predict(folder, 700, {"None": 0, "none": 100, "learned": 20}[folder.name.split("-")[0]])
    return runs


def test_runs_of_one_seed_are_compared_on_the_same_images_at_the_largest_size(tmp_path: Path, vitbench: Cli) -> None:
    runs = predicted(study(tmp_path / "runs"))
    predict(runs / "none-1.0-2", 600, 0)
    report: dict[str, Any] = json.loads(vitbench("fit", "format=json").out)
    first = report["pairs"][0]["checkpoints"]
    assert [(one["images"], one["seed"], one["only_a"], one["only_b"]) for one in first] == [
        (45_000, 0, 100, 100),
        (45_000, 1, 100, 100),
        (45_000, 2, 0, 100),
    ]
    assert [one["p"] for one in first] == pytest.approx([mcnemar_p(100, 100)] * 2 + [2.0**-99])
    assert first[2]["p_holm"] == pytest.approx(
        9 * first[2]["p"]
    )  # there are three pairs of models with three seeds each
    assert not any("McNemar" in note for note in report["notes"])


def test_it_is_told_as_a_table_and_in_a_sentence(tmp_path: Path, vitbench: Cli) -> None:
    runs = predicted(study(tmp_path / "runs"))
    for seed in range(2):
        predict(runs / f"none-1.0-{seed}", 500)
    out = vitbench("fit").out
    opening = "  On the same test images, after training on 45,000 images,"
    assert f"{opening} resnet is better in 2 of 3 seeds (McNemar, Holm p < 0.05)." in out
    assert f"{opening} McNemar's test finds no significant difference (3 seeds)." in out
    assert "Runs of one seed on the same test images" in out and "only against" in out
    assert "p_mcnemar_holm" in vitbench("fit", "format=csv").out


def test_without_labels_or_predictions_a_note_says_so_and_nothing_else_changes(tmp_path: Path, vitbench: Cli) -> None:
    runs = study(tmp_path / "runs")
    none = vitbench("fit")
    assert (
        none.code == 0
        and none.out.splitlines()[-1]
        == "no McNemar: neither none-1.0-0 nor None-1.0-0 has labels.npy beside its predictions"
    )
    predicted(runs)
    (runs / "none-1.0-0" / "labels.npy").unlink()  # the labels of the other run are enough
    assert "no McNemar" not in vitbench("fit").out
    (runs / "none-1.0-0" / "predictions.npy").unlink()
    assert "no McNemar: runs/none-1.0-0/predictions.npy: No such file" in vitbench("fit").out
    assert "McNemar" not in vitbench("fit", "value=test_loss").out


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (b"", "is no array"),
        (b"\x93NUMPY\x01\x00garbage", "is no array"),
        (None, "holds float64 of shape (3,), not a class for each"),
    ],
)
def test_a_file_that_is_no_list_of_classes_is_named(
    tmp_path: Path, vitbench: Cli, blob: bytes | None, said: str
) -> None:
    runs = predicted(study(tmp_path / "runs"))
    path = runs / "none-1.0-0" / "predictions.npy"
    np.save(path, np.zeros(3)) if blob is None else path.write_bytes(blob)
    done = vitbench("fit")
    assert done.code == 0 and said in done.out and "none-1.0-0/predictions.npy" in done.out


def test_other_test_images_are_not_compared(tmp_path: Path) -> None:
    rows = [{"id": name, "seed": 0, "train_images": 9, "test_accuracy": 0.5, "data_fingerprint": name} for name in "ab"]
    with pytest.raises(Missing, match="a and b were tested on different images"):
        compare_checkpoints(count_in(tmp_path), rows[:1], rows[1:], 9)
