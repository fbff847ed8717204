"""`vitbench predict`: the classes that a trained network gives files."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import fake_runs
from tests.conftest import Output
from vitbench.data.menu import open_dataset
from vitbench.settings.share import source_options
from vitbench.using.predict import line

Cli = Callable[..., Output]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def images(trained: Path, tmp_path: Path) -> Path:
    """The run's first 20 test images as files; the 4th is hidden, the 5th broken, and another file is no image."""
    record = json.loads((trained / "record.json").read_text())
    dataset = open_dataset(**source_options(record["config"]["data"]), progress=False)
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for number, image in enumerate(np.asarray(dataset.test.images[:20])):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / "below" / f"{number:02}.png")
    (folder / "below" / "03.png").rename(folder / "below" / ".03.png")
    (folder / "below" / "04.png").write_text("no image")
    (folder / "notes.txt").write_text("no image either")
    return folder


def test_files_get_the_classes_that_the_test_gave_the_same_images(trained: Path, images: Path, vitbench: Cli) -> None:
    done = vitbench("predict", f"runs={trained.parent}", f"run={trained.name}", f"images={images}", "probabilities=all")
    assert done.code == 3 and done.err.count("\n") == 1
    assert "1 of 19 images could not be read; the first is " in done.err and "below/04.png (not an image)" in done.err
    rows = {int(Path(row["file"]).stem): row for row in rows_of(done.out)}
    assert [*rows] == [0, 1, 2, *range(4, 20)]
    assert (rows[4]["class"], rows[4]["probability"], rows[4]["problem"]) == ("", "", "not an image")
    record = json.loads((trained / "record.json").read_text())
    predictions, probabilities = (np.load(trained / f"{name}.npy") for name in ("predictions", "probabilities"))
    for number, row in rows.items():
        if number != 4:
            assert row["class"] == record["classes"][predictions[number]] and row["problem"] == ""
            given = [float(row[f"probability.{name}"]) for name in record["classes"]]
            np.testing.assert_allclose(given, probabilities[number], atol=2e-3)
            assert float(row["probability"]) == max(given)


def test_one_file_is_written_to_a_csv_and_its_path_printed(trained: Path, images: Path, vitbench: Cli) -> None:
    words = [f"runs={trained.parent}", f"run={trained.name}", f"images={images / 'below' / '00.png'}"]
    assert vitbench("predict", *words, "file=out/p.csv").out == "out/p.csv\n"
    (row,) = rows_of(Path("out/p.csv").read_text())
    assert [*row] == ["file", "class", "probability", "problem"] and row["file"].endswith("00.png")


def test_text_stays_text_in_a_spreadsheet() -> None:
    assert line("=1.png", np.array([1.0], np.float32), ["a"], False)[0] == "./=1.png"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["images=images"], 2, "run=ID is missing"),
        (["run=RUN"], 2, "images= is missing"),
        (["run=RUN", "images=nowhere"], 3, "images=nowhere: no such file or folder"),
        (["run=RUN", "images=empty"], 3, "images=empty: has no images"),
        (["run=RUN", "images=images", "file=p.txt"], 2, "file=p.txt: must end in .csv"),
        (["run=RUN", "images=images", "probabilities=some"], 2, "probabilities=some: choices: all, top"),
        (["run=begun", "images=images"], 2, "run=begun: has not ended"),
        (["run=diverged", "images=images"], 2, "run=diverged: diverged and left no weights"),
        (["run=bare", "images=images"], 2, "run=bare: has no weights"),
        (["run=bar", "images=images"], 2, "did you mean bare"),
        (["run=bare", "images=images", "-m"], 2, "vitbench predict has no --multirun; it takes one run"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    trained: Path, images: Path, vitbench: Cli, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs / trained.name)
    fake_runs.write(runs, "bare", 0.5)
    fake_runs.write(runs, "diverged", None)
    (runs / "begun").mkdir()
    (runs / "begun" / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "empty").mkdir()
    done = vitbench("predict", *(word.replace("RUN", trained.name) for word in words))
    assert done.code == code and said in done.err and done.err.count("\n") == 1 and done.out == ""
