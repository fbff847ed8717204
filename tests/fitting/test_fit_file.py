"""`vitbench fit runs=runs.csv` is tested here, and tables of one's own in test_fit.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Output
from tests.fitting.test_fit import TABLE, study, write
from vitbench.comparing.evidence import evidence_text
from vitbench.comparing.select import select_runs

Cli = Callable[..., Output]


def evidence_of(runs: Path, others: dict[str, str] | None = None) -> list[str]:
    path = runs.parent / "runs.csv"
    path.write_text(evidence_text(select_runs(str(runs), {}), others or {}))
    return path.read_text().splitlines()


def fitted(vitbench: Cli, *words: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(vitbench("fit", "format=json", *words).out)
    return report


def test_runs_csv_says_what_its_runs_say(tmp_path: Path, vitbench: Cli) -> None:
    runs = study(tmp_path / "runs")
    for seed in range(2):
        for share in (0.05, 0.2, 1.0):
            write(
                runs, f"tiny{share}{seed}", 0.5 - share / 4 + seed / 99, "rope", share, seed, **{"model.size": "tiny"}
            )
    evidence_of(runs)
    of_runs, of_file = fitted(vitbench), fitted(vitbench, "runs=runs.csv")
    assert [one["label"] for one in of_file["curves"]] == [
        "vit pe=none model.size=nano",
        "vit pe=learned model.size=nano",
        "vit pe=rope model.size=tiny",
        "resnet model.size=nano",
    ]
    for report in (of_runs, of_file):
        report["notes"] = [note for note in report["notes"] if "McNemar" not in note]
    assert of_file == of_runs


def test_too_few_seeds_are_refused_alike_in_a_folder_and_in_a_table(tmp_path: Path, vitbench: Cli) -> None:
    evidence_of(study(tmp_path / "runs"))
    of_runs, of_file = (vitbench("fit", f"runs={place}", "where.seed=0") for place in ("runs", "runs.csv"))
    assert of_runs.code == of_file.code == 2 and of_runs.err == of_file.err and "one seed; a curve" in of_file.err


def test_rows_that_repeat_or_lack_are_named_by_their_lines(tmp_path: Path, vitbench: Cli) -> None:
    lines = evidence_of(study(tmp_path / "runs"))
    copied = "copy" + lines[4][lines[4].index(",") :]
    gap = "no row with vit pe=none images=2250 seed=0, whose other sizes are in line 2, 7, 10, 13"
    for rows, said in (
        ([*lines, copied], "runs.csv line 47 repeats runs.csv line 5: same"),
        ([*lines, lines[4]], "runs.csv line 47: none-0.05-0 is there twice, in line 5 too"),
        ([*lines[:4], *lines[5:]], f"runs.csv: {gap}"),
    ):
        (tmp_path / "runs.csv").write_text("\n".join(rows) + "\n")
        done = vitbench("fit", "runs=runs.csv")
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1) and said in done.err


def test_rows_of_runs_that_have_not_ended_say_why_a_number_lacks(tmp_path: Path, vitbench: Cli) -> None:
    runs = study(tmp_path / "runs")
    (runs / "none-0.2-1" / "record.json").unlink()
    (runs / "none-0.2-1").rmdir()
    evidence_of(runs, {"none-0.2-1": "failed"})
    notes = fitted(vitbench, "runs=runs.csv")["notes"]
    assert "vit pe=none: seed 1 is left out, it lacks 1 of the 5 sizes" in notes
    assert "1 of the 45 planned runs have no result: 1 failed" in notes


@pytest.mark.parametrize(
    ("words", "code", "said"), [(["value=test_eror"], 2, "test_error"), (["value=test_loss"], 0, "")]
)
def test_another_result_can_be_asked_for(tmp_path: Path, vitbench: Cli, words: list[str], code: int, said: str) -> None:
    evidence_of(study(tmp_path / "runs"))
    done = vitbench("fit", "runs=runs.csv", *words)
    assert done.code == code and said in done.err


def test_an_encoding_tells_curves_apart_in_a_table_of_ones_own(tmp_path: Path, vitbench: Cli) -> None:
    head, *rows = TABLE.splitlines()
    cells = [row.split(",", 1) for row in rows]
    text = "".join(f"vit,{pe},{rest}\n" for name, rest in cells for pe in [{"mine": "none", "theirs": "rope"}[name]])
    text += "".join(f"resnet,,{rest}\n" for name, rest in cells if name == "theirs")
    (tmp_path / "t.csv").write_text(head.replace("model,", "model,pe,") + "\n" + text)
    found = fitted(vitbench, "runs=t.csv")
    assert [one["label"] for one in found["curves"]] == ["vit pe=none", "vit pe=rope", "resnet"]
    assert [(one["model"], one["against"]) for one in found["pairs"]] == [
        ("vit pe=none", "resnet"),
        ("vit pe=rope", "resnet"),
        ("vit pe=rope", "vit pe=none"),
    ]
    assert all(one["costs"] == {} for one in found["pairs"])
