"""What is written to runs.csv is read again unchanged, and a damaged file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fake_runs
from vitbench.comparing.evidence import evidence_text, read_evidence
from vitbench.comparing.select import UNIMPORTANT_KEYS, Runs, select_runs
from vitbench.errors import DataError


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


def test_a_file_without_any_result_is_refused(tmp_path: Path) -> None:
    text = evidence_text(select_runs(str(fake_runs.quickstart(tmp_path / "runs")), {}), {}).splitlines()[0]
    with pytest.raises(DataError, match="no run there has ended"):
        kept(tmp_path, f"{text}\n")
