"""`runs=` takes the runs.csv of a study's results where it takes a folder of runs: `table`, `plot` and `fit`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.comparing.evidence import evidence_text, swept_text
from vitbench.comparing.select import Runs, select_runs

Cli = Callable[..., Output]
RESULTS = Path(__file__).parents[2] / "results"
STUDY = """
title: Fakes
question: What do they show?
runs: [model=vit seed=0]
notes: Not much.
tables: {accuracy: {rows: [model, pe], columns: data.fraction}}
names: {pe: {none: blind}}
"""


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    """A runs.csv of three seeds, beside the probes.csv of what a probe measured along a shift."""
    runs = select_runs(str(fake_runs.quickstart(tmp_path / "runs", seeds=3)), {})
    row = {"column": "shift.length.consistency", "at": 2.0, "at_unit": "px", "value": 0.5}
    swept = {each["id"]: [row, row | {"at": 4.0}] for each in runs.rows}
    folder = tmp_path / "results" / "fakes"
    folder.mkdir(parents=True)
    (folder / "runs.csv").write_text(evidence_text(runs, {}))
    (folder / "probes.csv").write_text(swept_text(Runs(runs.rows, runs.settings, swept=swept), [str(row["column"])]))
    (folder / "study.yaml").write_text(STUDY)
    return folder / "runs.csv"


@pytest.mark.parametrize(
    "words",
    [["table"], ["table", "format=json", "columns=data.fraction"], ["table", "value=[test_accuracy,test_loss]"]],
)
def test_a_table_of_evidence_is_that_of_its_runs(vitbench: Cli, evidence: Path, words: list[str]) -> None:
    of_runs, of_evidence = (vitbench(*words, f"runs={place}", "where.model=vit") for place in ("runs", evidence))
    assert of_evidence.code == 0 and of_evidence.out == of_runs.out and "vit" in of_runs.out


def test_a_study_has_its_tables_words_and_notes_there(vitbench: Cli, evidence: Path) -> None:
    out = vitbench("table", f"study={evidence.with_name('study.yaml')}", f"runs={evidence}").out
    assert out.startswith("Fakes. What do they show?\n") and "blind" in out and out.endswith("\nNot much.\n")


def test_the_committed_tables_of_a_study_come_from_its_evidence(vitbench: Cli) -> None:
    from vitbench.reporting.section import Section

    folder = RESULTS / "quickstart"
    words = [f"study={folder / 'study.yaml'}", f"runs={folder / 'runs.csv'}", "name=accuracy", "format=md"]
    assert vitbench("table", *words).out == Section.read(folder).texts["accuracy.md"]


def test_a_study_of_another_name_gets_a_note(vitbench: Cli, evidence: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(STUDY)
    out = vitbench("table", "study=other.yaml", f"runs={evidence}").out
    fitted = vitbench("fit", "study=other.yaml", f"runs={evidence}").out
    assert "Learning curves" in fitted and not any(
        "What do they" in text or "Not much" in text for text in (out, fitted)
    )
    assert f"{evidence.name} holds the runs of study=fakes, and all of them are shown" in out


def test_a_figure_is_drawn_of_evidence_and_of_what_lies_along_something(vitbench: Cli, evidence: Path) -> None:
    for words in ([], ["y=shift.length.consistency"]):
        done = vitbench("plot", f"runs={evidence}", "file=a.svg", *words)
        assert (done.code, done.out) == (0, "a.svg\n"), done.err


def test_what_lies_along_something_is_not_there_without_its_file(vitbench: Cli, evidence: Path) -> None:
    evidence.with_name("probes.csv").unlink()
    done = vitbench("plot", f"runs={evidence}", "y=shift.length.consistency", "file=a.svg")
    said = "no run has shift.length.consistency; what probes measured along something is in probes.csv, which must be"
    assert done.code == 2 and said in done.err and "vitbench probe" not in done.err


def test_curves_are_fitted_to_some_of_the_evidence(vitbench: Cli, evidence: Path) -> None:
    done = vitbench("fit", f"runs={evidence}", "where.pe=[none,null]", "format=json")
    assert [curve["label"] for curve in json.loads(done.out)["curves"]] == ["vit pe=none", "resnet"], done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["table", "runs=nowhere.csv"], 2, "runs=nowhere.csv: there is no such file or folder"),
        (["plot", "runs=nowhere.csv"], 2, "runs=nowhere.csv: there is no such file or folder"),
        (["table", "runs=results/fakes"], 2, "runs=results/fakes/runs.csv reads the published ones"),
        (["table", "runs=mine.csv"], 3, "mine.csv is no runs.csv: its columns must be id, status, settings"),
        (["plot", "runs=mine.csv"], 3, "mine.csv is no runs.csv: its columns must be id, status, settings"),
        (
            ["fit", "runs=mine.csv", "where.model=vit"],
            2,
            "mine.csv: is read whole; study= and where. choose among runs",
        ),
        (["table", "per=class", "runs=mine.csv"], 2, "per=class runs=mine.csv: predictions are in the folders of runs"),
        (["plot", "per=confusion", "runs=mine.csv"], 2, "type such a folder for runs="),
    ],
)
@pytest.mark.usefixtures("evidence")
def test_a_slip_gets_one_line(vitbench: Cli, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "mine.csv").write_text("model,images,seed,error\nvit,100,0,0.5\n")
    done = vitbench(*words)
    assert (done.code, done.out, done.err.count("\n")) == (code, "", 1) and said in done.err


def test_where_no_run_has_ended_the_published_ones_are_offered(vitbench: Cli, evidence: Path) -> None:
    (Path("results") / "quickstart").mkdir(parents=True)
    shutil.copy(evidence, Path("results") / "quickstart" / "runs.csv")
    done = vitbench("table", "study=quickstart", "runs=nowhere")
    assert done.code == 2 and "runs=results/quickstart/runs.csv reads the published ones" in done.err
