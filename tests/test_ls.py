from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fake_runs
from tests.conftest import Output
from vitbench.data.menu import MENU as DATA
from vitbench.menu import Choice
from vitbench.models.menu import SIZES
from vitbench.pe.menu import MENU as ENCODINGS

Cli = Callable[..., Output]


@pytest.mark.parametrize(("word", "menu"), [("pe", ENCODINGS), ("data", DATA)])
def test_a_list_has_a_line_for_each_choice(vitbench: Cli, word: str, menu: dict[str, Choice]) -> None:
    lines = vitbench("ls", word).out.splitlines()
    assert [line.split()[0] for line in lines] == list(menu)
    assert all(line.endswith(choice.help) for line, choice in zip(lines, menu.values(), strict=True))


def test_models_are_listed_in_pairs_with_their_cost(vitbench: Cli) -> None:
    out = vitbench("ls", "models").out
    rows = [line.split() for line in out.splitlines() if line.split()[:1] and line.split()[0] in SIZES]
    assert [(row[0], row[1]) for row in rows] == [(size, model) for size, pair in SIZES.items() for model in pair]
    assert all(0.9 <= float(row[-1]) <= 1.1 for row in rows)
    assert "14.9 M" in out and "15.9 M" in out


def test_studies_are_listed_with_their_question(vitbench: Cli) -> None:
    lines = [line.split(maxsplit=1) for line in vitbench("ls", "studies").out.splitlines()]
    assert any(name == "quickstart" and words.startswith("How much better do a ViT and a CNN") for name, words in lines)


def test_runs_say_how_they_stand(tmp_path: Path, vitbench: Cli) -> None:
    runs = tmp_path / "elsewhere"
    fake_runs.write(runs, "a-finished", 0.4321)
    fake_runs.write(runs, "b-diverged", None)
    (runs / "c-failed").mkdir()
    (runs / "c-failed" / "failure.json").write_text('{"error": "KeyError: \'x\'", "traceback": "..."}')
    (runs / "c-torn").mkdir()
    (runs / "c-torn" / "failure.json").write_text("{")
    (runs / "d-killed").mkdir()
    (runs / "d-killed" / "config.yaml").write_text("optim: {steps: 1200, epochs: null}\n")
    (runs / "d-killed" / "metrics.csv").write_text("step,epoch\n600,1\n1100,")
    fake_runs.write(runs, "e-torn", 0.5).joinpath("record.json").write_text("{")
    (runs / "f-empty").mkdir()
    lines = [line.split(maxsplit=1) for line in vitbench("ls", "runs", "runs=elsewhere").out.splitlines()]
    assert {name: " ".join(rest.split()) for name, rest in lines} == {
        "a-finished": "finished 43.21 %",
        "b-diverged": "diverged",
        "c-failed": "failed: KeyError: 'x'",
        "c-torn": "failed: unreadable failure.json",
        "d-killed": "unfinished: step 600 of 1,200",
        "e-torn": "unreadable: elsewhere/e-torn/record.json is not a whole record (broken JSON)",
        "f-empty": "no run",
    }


def test_no_runs_are_no_error_and_nothing_on_stdout(vitbench: Cli) -> None:
    done = vitbench("ls", "runs")
    assert (done.code, done.out) == (0, "") and "no runs in runs" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["modls"],
            "ls modls: did you mean models? choices: data, images, models, objectives, pe, probes, runs, studies",
        ),
        (["pe", "x"], "ls pe x: takes nothing more"),
        (["runs", "elsewhere"], "ls runs elsewhere: takes runs=FOLDER"),
    ],
)
def test_a_wrong_word_gets_one_line(vitbench: Cli, words: list[str], said: str) -> None:
    done = vitbench("ls", *words)
    assert (done.code, done.out, done.err) == (2, "", f"vitbench: {said}\n")


def test_ls_imports_nothing_heavy_and_makes_nothing(tmp_path: Path) -> None:
    fake_runs.write(tmp_path / "runs", "a", 0.5)
    code = (
        "import sys; from vitbench import cli\nfor word in ('', 'models', 'pe', 'data', 'studies', 'runs'):\n"
        "    cli.run(['ls', word] if word else ['ls'])\n"
        "sys.exit(', '.join({'torch', 'hydra', 'numpy', 'pandas', 'rich', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"") and os.listdir(tmp_path) == ["runs"]
