"""What is written to runs.csv and mcnemar.csv is read again unchanged, and a damaged file is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests import fake_runs
from vitbench.comparing.evidence import (
    SWEPT_COLUMNS,
    Counted,
    counts_text,
    evidence_text,
    joined,
    read_counts,
    read_evidence,
    read_swept,
)
from vitbench.comparing.select import UNIMPORTANT_KEYS, Runs, select_runs
from vitbench.errors import DataError
from vitbench.numbers.text import csv_text


def kept(tmp_path: Path, text: str) -> Runs:
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    return read_evidence(path)


def test_every_value_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = fake_runs.quickstart(tmp_path / "runs")
    fake_runs.write(folder, "odd", 1 / 3, **{"data.name": "3", "augment.name": "true", "model.name": "=1+1"})
    fake_runs.write(folder, "lost", None, **{"optim.lr": 1e-5, "data.name": ""})
    before = select_runs(str(folder), {})
    after = kept(tmp_path, evidence_text(before, {"x": "missing", "y": "failed", "z": "missing"}))
    places = {*UNIMPORTANT_KEYS}
    by_id = {row["id"]: row for row in after.rows}
    for row in before.rows:
        there = {key: value for key, value in row.items() if key not in places}
        assert {key: by_id[row["id"]].get(key) for key in there} == there
    assert set(after.settings) == set(before.settings) - places
    assert after.notes == ["3 of the 23 planned runs have no result: 1 failed, 2 missing"]


def test_rows_from_before_a_setting_have_its_default_but_a_null_that_was_typed_stays(tmp_path: Path) -> None:
    fake_runs.write(tmp_path, "new", 0.5, seed=1, **{"model.name": "vit", "optim.clip": 1.0})
    runs = select_runs(str(tmp_path), {})
    (new,) = runs.rows
    older = {**new, "id": "old", "model.stem": None, "optim.clip": None}  # only a ResNet had a stem then
    del older["model.gate"]
    (_, row) = joined(runs, Runs([older], runs.settings), ["old"]).rows
    assert (row["model.stem"], row["model.gate"], row["optim.clip"]) == ("patch", False, None)
    assert new["model.stem"] == "patch"


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    fake_runs.write(tmp_path, "a", 0.5, **{"data.name": "=cmd|'/C calc'!A0"})
    text = evidence_text(select_runs(str(tmp_path), {}), {})
    assert "=cmd" in text and not any(cell.startswith(("=", "+", "@")) for cell in text.replace("\n", ",").split(","))


def test_the_order_of_folders_decides_nothing(tmp_path: Path) -> None:
    before = select_runs(str(fake_runs.quickstart(tmp_path)), {})
    backwards = Runs(before.rows[::-1], before.settings)
    assert evidence_text(before, {}) == evidence_text(backwards, {})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("id,status", "name,status", "is no runs.csv: its columns must be id, status, settings, schema, results"),
        (",schema,", ",scheme,", "is no runs.csv"),
        ("finished", "finished,", r"line 2: \d+ cells under \d+ column names"),
        ("finished", "finishd", "line 2: status is 'finishd'; choices: finished, diverged, missing, "),
        ("none-0.2-0,", "none-0.05-0,", "none-0.05-0 is there twice, in line 2 too"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = evidence_text(select_runs(str(fake_runs.quickstart(tmp_path / "runs")), {}), {})
    assert old in text
    with pytest.raises(DataError, match=said):
        kept(tmp_path, text.replace(old, new, 1))


def test_a_result_no_run_can_have_is_refused(tmp_path: Path) -> None:
    text = evidence_text(select_runs(str(fake_runs.quickstart(tmp_path / "runs")), {}), {})
    with pytest.raises(DataError, match="line 2: test_images is 'many', which no run can have"):
        kept(tmp_path, text.replace(",1000,", ",many,", 1))


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("pe", '{"a": 1}', "line 2: pe is {'a': 1}; it must be a word, a number or a list"),
        ("test_accuracy", "", "line 2: test_accuracy is empty; each finished run that learned classes has one"),
        ("train_images", "0", r"line 2: train_images is 0, with \d+ steps"),
    ],
)
def test_a_cell_no_run_can_have_is_refused(tmp_path: Path, column: str, cell: str, said: str) -> None:
    head, first, *_ = csv.reader(
        evidence_text(select_runs(str(fake_runs.quickstart(tmp_path / "runs")), {}), {}).splitlines()
    )
    first[head.index(column)] = cell
    with pytest.raises(DataError, match=said):
        kept(tmp_path, csv_text([head, first]))


def test_a_run_that_learned_no_classes_has_no_accuracy(tmp_path: Path) -> None:
    fake_runs.write(tmp_path / "runs", "mae", None, **{"objective.name": "mae"}, result_status="finished")
    text = evidence_text(select_runs(str(tmp_path / "runs"), {}), {})
    assert len(kept(tmp_path, text).rows) == 1


def test_what_a_spreadsheet_saves_is_read_and_an_empty_file_is_refused(tmp_path: Path) -> None:
    runs = select_runs(str(fake_runs.quickstart(tmp_path / "runs")), {})
    assert len(kept(tmp_path, "\ufeff" + evidence_text(runs, {})).rows) == len(runs.rows)
    (tmp_path / "probes.csv").write_text("\ufeff" + ",".join(SWEPT_COLUMNS), encoding="utf-8")
    assert read_swept(tmp_path / "probes.csv") == {}
    with pytest.raises(DataError, match=r"runs\.csv is empty"):
        kept(tmp_path, "")


def test_a_file_without_any_result_is_refused(tmp_path: Path) -> None:
    text = evidence_text(select_runs(str(fake_runs.quickstart(tmp_path / "runs")), {}), {}).splitlines()[0]
    with pytest.raises(DataError, match="no run there has ended"):
        kept(tmp_path, f"{text}\n")


# -------------------------------------------------------------------------------------------------------- mcnemar.csv

COUNTED = [
    Counted("vit pe=none", "resnet", 10_000, seed, f"none-1.0-{seed}", f"None-1.0-{seed}", 1000, 30 + seed, 200)
    for seed in range(2)
]


def counts_kept(tmp_path: Path, text: str) -> list[Counted]:
    rows = select_runs(str(fake_runs.quickstart(tmp_path / "runs")), {}).rows
    path = tmp_path / "mcnemar.csv"
    path.write_text(text, encoding="utf-8")
    return read_counts(path, rows)


def test_counts_come_back_sorted_as_they_were(tmp_path: Path) -> None:
    assert counts_text(COUNTED[::-1]) == counts_text(COUNTED)
    assert counts_kept(tmp_path, counts_text(COUNTED[::-1])) == COUNTED


def test_without_counts_there_is_nothing_to_write_and_without_a_file_nothing_to_read(tmp_path: Path) -> None:
    assert counts_text([]) == "" and read_counts(tmp_path / "mcnemar.csv", []) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("1000,31,200", "1000,x,200", "only_model is 'x'; it must be a whole number from 0 to 1000"),
        ("1000,31,200", "1000,-1,200", "only_model is -1; it must be a whole number"),
        ("1000,31,200", "1000,0.5,200", "only_model is 0.5; it must be a whole number"),
        ("1000,31,200", "1000,31,", "only_against is None; it must be a whole number"),
        ("1000,31,200", "1000,900,200", "only_model \\+ only_against is 1100, above the 1000 test images"),
        ("1000,31,200", "999,31,200", "test_images is 999; runs.csv has 1000 for none-1.0-1"),
        ("10000,1,none", "10001,1,none", "images is 10001; runs.csv has 10000 for none-1.0-1"),
        ("10000,1,none", "10000,0,none", "seed is 0; runs.csv has 1 for none-1.0-1"),
        ("None-1.0-1", "None-1.0-0", "seed is 1; runs.csv has 0 for None-1.0-0"),
        ("none-1.0-1", "none-9-1", "id is 'none-9-1', which is no run with a result in runs.csv"),
        ("1000,31,200", "1000,31", "8 cells under 9 column names"),
        ("10000,1,none-1.0-1,None-1.0-1", "10000,0,none-1.0-0,None-1.0-0", "are there twice, in line 2 too"),
    ],
)
def test_a_damaged_count_is_refused_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = counts_text(COUNTED)
    assert text.count(old) == 1
    with pytest.raises(DataError, match=f"mcnemar.csv line 3: .*{said}"):
        counts_kept(tmp_path, text.replace(old, new))


@pytest.mark.parametrize("text", ["", "a,b\n", counts_text(COUNTED).replace("only_model", "only")])
def test_other_columns_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"mcnemar\.csv line 1: the columns must be model, against, images, seed"):
        counts_kept(tmp_path, text)
