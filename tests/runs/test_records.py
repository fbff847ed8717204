"""Records are read as rows; what cannot be read is named, and the others are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import fake_runs
from vitbench.errors import StorageError, UserError
from vitbench.runs.records import RECORD_SCHEMA, find_record, load_runs, read_record
from vitbench.runs.run import Run


def finished(folder: Path, **changes: Any) -> None:
    settings = {"model.pe": {"name": "rope", "theta": 100.0}, "data.fraction": 0.1, "optim.steps": 3, "optim.lr": 0.001}
    fake_runs.write(folder.parent, folder.name, 0.75, **settings)
    fake_runs.change(folder, **{"train_images": 100, "steps": 3, "multiply_adds": 0, "train_seconds": 1.5, **changes})


def test_a_run_is_a_row_with_choices_settings_and_results(tmp_path: Path) -> None:
    finished(tmp_path / "one")
    row = load_runs(tmp_path).iloc[0]
    assert (row["model"], row["pe"], row["data"], row["optim"]) == ("vit", "rope", "shapes", "vit")
    assert (row["pe.theta"], row["data.fraction"], row["optim.lr"]) == (100.0, 0.1, 0.001)
    assert (row["test_accuracy"], row["test_error"]) == (0.75, 0.25)


def test_accuracy_by_cost_is_over_millions_and_seconds_and_not_where_a_cost_is_unknown(tmp_path: Path) -> None:
    finished(tmp_path / "one", parameters=500_000, multiply_adds=3_000_000)
    finished(tmp_path / "two", test_accuracy=None)
    one, two = (load_runs(tmp_path).iloc[i] for i in range(2))
    assert one["test_accuracy_per_million_parameters"] == 1.5 and one["test_accuracy_per_million_multiply_adds"] == 0.25
    assert one["test_accuracy_per_train_second"] == 0.5
    assert two[[key for key in two.index if key.startswith("test_accuracy_per_")]].isna().all()


def test_samples_and_epochs_follow_from_steps(tmp_path: Path) -> None:
    finished(tmp_path / "one", multiply_adds=10, train_eval_accuracy=0.875)
    row = load_runs(tmp_path).iloc[0]
    assert (row["samples_seen"], row["epochs_seen"]) == (3 * 64, 1.92)  # the default batch has 64 images
    assert (row["total_samples_seen"], row["total_multiply_adds"]) == (192, 192 * 3 * 10)
    assert row["train_eval_error"] == 0.125


BROKEN = {
    "half": '{"schema": 1, "con',
    "a list": "[1, 2]",
    "no config": '{"schema": 1}',
    "newer": '{"schema": 99, "config": {}}',
    "no status": '{"schema": 1, "config": {}}',
    "other numbers": json.dumps(
        {
            "schema": 1,
            "results_version": 0,
            "config": {},
            "status": "finished",
            "classes": [],
            "warnings": [],
            "steps": 1,
            "train_images": 1,
            "test_images": 1,
            "train_seconds": 1,
        }
    ),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_one_broken_record_among_many_is_named_and_the_rest_read(tmp_path: Path, kind: str) -> None:
    finished(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "record.json").write_text(BROKEN[kind])
    frame = load_runs(tmp_path)
    assert list(frame["id"]) == ["good"]
    assert len(frame.attrs["problems"]) == 1 and "bad" in frame.attrs["problems"][0]


def test_foreign_files_and_unfinished_runs_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").write_text("seed: 0")
    frame = load_runs(tmp_path)
    assert frame.attrs["unfinished"] == ["begun"]
    assert frame.attrs["problems"] == [f"{tmp_path / 'foreign'} holds no run"]


def test_no_runs_at_all_is_an_empty_table(tmp_path: Path) -> None:
    assert load_runs(tmp_path / "nowhere").empty


def test_a_record_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"schema": 99, "config": {}}')
    with pytest.raises(UserError, match=f"schema 99, but this vitbench reads up to {RECORD_SCHEMA}; upgrade"):
        read_record(tmp_path / "record.json")


def test_a_record_that_cannot_be_read_is_one_line_to_whoever_asks(tmp_path: Path) -> None:
    finished(tmp_path / "good")
    record = tmp_path / "bad" / "record.json"
    record.mkdir(parents=True)  # a folder, which even root cannot read as a file
    line = f"{record} cannot be read: Is a directory"
    for ask in (lambda: read_record(record), lambda: find_record(record.parent), Run(record.parent, {}).record):
        with pytest.raises(StorageError, match=line):
            ask()
    frame = load_runs(tmp_path)
    assert list(frame["id"]) == ["good"] and frame.attrs["problems"] == [line]


@pytest.mark.parametrize(("permute", "share"), [("none", 0), ("tiles", 0.25), ("pixels", 0.25)])
def test_no_tile_is_moved_where_places_are_not_rearranged(tmp_path: Path, permute: str, share: float) -> None:
    fake_runs.write(tmp_path, "run", 0.5, **{"data.permute": permute, "data.permute_share": 0.25})
    assert load_runs(tmp_path).iloc[0]["moved_share"] == share
