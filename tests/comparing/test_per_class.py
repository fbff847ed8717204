"""`table per=class`, `table per=confusion` and `plot per=confusion`, of runs with known predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests import fake_runs
from tests.comparing.printed import NASTY, rows_of
from tests.conftest import Output
from vitbench.comparing.confusion_figure import class_order, drawn_classes
from vitbench.comparing.per_class import networks_of
from vitbench.comparing.select import select_runs

Cli = Callable[..., Output]

LABELS = [0] * 4 + [1] * 4 + [2] * 2
CLASSES = ["ant", "bee", "cat", "dog"]  # there are no dogs


def write(runs: Path, name: str, predictions: Sequence[int], model: str = "resnet", seed: int = 0) -> None:
    accuracy = float(np.mean(np.equal(LABELS, predictions)))
    facts = {"result_classes": CLASSES, "result_test_images": len(LABELS), "model.name": model, "seed": seed}
    folder = fake_runs.write(runs, name, accuracy, **facts)
    for file, classes in (("labels", LABELS), ("predictions", predictions)):
        np.save(folder / f"{file}.npy", np.array(classes, np.int16))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write(folder, "a", [0, 0, 0, 0, 1, 1, 0, 0, 2, 1])
    write(folder, "b", [0, 0, 1, 1, 1, 1, 1, 1, 2, 1], seed=1)
    return folder


def test_a_line_is_a_class_with_its_recall_averaged_over_seeds(runs: Path, vitbench: Cli) -> None:
    done = vitbench("table", "per=class", "show=mean")
    assert done.code == 0, done.err
    ant = next(line.split() for line in done.out.splitlines() if line.startswith("ant"))
    assert ant[:3] == ["ant", "4", "75.0"] and ant[-3:] == ["bee", "25", "%"]
    rows = {(row["class"], row["metric"]): row for row in rows_of(vitbench("table", "per=class", "format=csv").out)}
    assert float(rows["ant", "recall"]["mean"]) == 0.75 and rows["ant", "recall"]["n"] == "2"
    assert float(rows["bee", "recall"]["mean"]) == 0.75 and float(rows["cat", "recall"]["mean"]) == 0.5
    assert rows["dog", "recall"]["mean"] == "" and rows["dog", "recall"]["n"] == "0"
    assert "no test images of 1 class: dog" in done.out
    assert "train_images" not in rows["ant", "recall"]  # the costs of the network are no class's


def test_networks_stand_side_by_side(runs: Path, vitbench: Cli) -> None:
    write(runs, "c", LABELS, model="vit")
    head = next(line for line in vitbench("table", "per=class").out.splitlines() if line.startswith("class"))
    assert head.split()[:2] == ["class", "images"] and head.index("vit") < head.index("resnet")


def test_the_confusion_of_one_network_is_a_matrix_of_shares(runs: Path, vitbench: Cli) -> None:
    lines = [line.split() for line in vitbench("table", "per=confusion", "where.seed=0").out.splitlines()]
    assert ["class", "images", *CLASSES] in lines
    assert ["bee", "4", "50", "50", "-", "-"] in lines and ["cat", "2", "-", "50", "50", "-"] in lines
    groups = json.loads(vitbench("table", "per=confusion", "format=json").out)["tables"][0]["groups"]
    shares = {(each["settings"]["class"], each["settings"]["taken_for"]): each["confusion_mean"] for each in groups}
    assert shares["ant", "bee"] == 0.25 and shares["bee", "ant"] == 0.25 and ("ant", "cat") not in shares


def test_captions_are_sentences_in_print(runs: Path, vitbench: Cli) -> None:
    by_class, confusion = (vitbench("table", f"per={per}", "format=tex").out for per in ("class", "confusion"))
    assert (
        r"\caption{Recall of each class in \%, mean" in by_class and "2 seeds, of runs with data=shapes, " in by_class
    )
    assert (
        r"\caption{Share of a class's images (a line) that is taken for each class (a column), in \%, mean" in confusion
    )
    assert "over 2 seeds, by resnet, of runs with data=shapes, " in confusion


def test_the_figure_is_drawn_to_its_own_file_and_names_every_class(runs: Path, vitbench: Cli, tmp_path: Path) -> None:
    assert vitbench("plot", "per=confusion").out == "figures/confusion.svg\n"
    assert (tmp_path / "figures" / "confusion.svg").read_text().count("<?xml") == 1
    assert vitbench("plot", "per=confusion", "file=c.png").code == 0
    assert vitbench("plot", "per=confusion", "file=d.png", "style=dark", "title=Mine, in the dark").code == 0
    assert vitbench("plot", "per=confusion", "file=e.png", "labels={nobody: x}").code == 2


def test_of_many_classes_the_most_confused_are_drawn_and_listed(tmp_path: Path, vitbench: Cli) -> None:
    K = 90
    labels = np.repeat(np.arange(K), 2).astype(np.int16)
    predictions = np.where(labels % 2 == 0, labels + 1, labels).astype(np.int16)  # each even class for the next
    names = [*NASTY, *(f"kind {k}" for k in range(K - len(NASTY)))]
    folder = fake_runs.write(tmp_path / "runs", "a", 0.5, result_classes=names, result_test_images=2 * K)
    np.save(folder / "labels.npy", labels)
    np.save(folder / "predictions.npy", predictions)
    done = vitbench("table", "per=confusion")
    assert "20 of 45 pairs" in done.out and "taken for" in done.out
    assert vitbench("plot", "per=confusion", "file=c.svg").code == 0
    (network,), _, _ = networks_of(select_runs("runs", {}), Path("runs"), "confusion")
    drawn = drawn_classes(network)
    assert len(drawn) == len({*drawn}) == 40 and all(k + 1 in drawn for k in drawn if k % 2 == 0)


def test_classes_that_are_confused_are_drawn_side_by_side() -> None:
    shares = np.eye(20)
    for k in range(10):
        shares[k, k + 10] = 0.3
    order = class_order(shares)
    assert sorted(order) == [*range(20)]
    assert all(abs(order.index(k) - order.index(k + 10)) == 1 for k in range(10))


def test_runs_of_before_there_were_predictions_are_left_out_and_told(runs: Path, vitbench: Cli) -> None:
    facts = {"result_classes": CLASSES, "result_test_images": len(LABELS), "model.name": "vit"}
    fake_runs.write(runs, "old", 0.5, **facts)
    done = vitbench("table", "per=class")
    assert done.code == 0 and "left out: 1 run without predictions, runs/old/labels.npy" in done.out


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("table", ["per=klass"], "per=klass: did you mean class?"),
        ("table", ["per=class", "against=resnet"], "per=class against=resnet: per= lays out everything by itself"),
        ("plot", ["per=class"], "per=class: choices: confusion"),
        ("plot", ["per=confusion", "x=steps"], "per=confusion x=steps"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    runs: Path, vitbench: Cli, command: str, words: list[str], said: str
) -> None:
    done = vitbench(command, *words)
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1


def test_several_networks_and_other_classes_are_one_line(runs: Path, vitbench: Cli) -> None:
    write(runs, "c", LABELS, model="vit")
    done = vitbench("table", "per=confusion")
    assert done.code == 2 and "shows one network, and here are 2 (vit" in done.err
    np.save(runs / "c" / "predictions.npy", np.full(len(LABELS), 9, np.int16))
    assert "names a class that is none of its 4" in vitbench("table", "per=class").out
    fake_runs.write(runs, "d", 0.5)
    done = vitbench("table", "per=class")
    assert done.code == 2 and "different classes" in done.err and done.err.count("\n") == 1
