from __future__ import annotations

import json
import os
import struct
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


def test_networks_of_a_library_are_listed_with_their_recipe_and_those_of_one_cost_with_that(
    vitbench: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = vitbench("ls", "models", "family=timm", "name=test_res*")
    assert listed.out.split() == ["test_resnet", "optim=resnet"]
    counted: list[str] = []

    def cost(asked: dict[str, object]) -> tuple[int, int] | None:
        counted.append(str(asked["arch"]))
        return None if asked["arch"] == "test_vit" else (1000, 14_900_000 if asked["arch"] == "test_vit2" else 1)

    monkeypatch.setenv("VITBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vitbench.models.build.cost_on_meta", cost)
    words = ("ls", "models", "family=timm", "name=test_vit*", "match=vit.nano")
    for _ in range(2):  # the second time nothing is counted again
        lines = vitbench(*words).out.splitlines()
        assert [line.split()[0] for line in lines[2:]] == ["test_vit2"] and lines[2].endswith("1.00")
        assert len(counted) == len(set(counted)) > 3
    for word, line in {
        "family=tim": "ls models family=tim: did you mean timm?",
        "match=vit.nan": "match=vit.nan: must be a model and a size of ours",
        "name=nothing": "name=nothing: no network of timm is called so",
        "seconds=0": "ls models seconds=0: must be a whole number, 1 or more",
        "size=3": "ls models size=3: choices: family, image_size",
    }.items():
        refused = vitbench(*(each for each in words if each.split("=")[0] != word.split("=")[0]), word)
        assert refused.code == 2 and line in refused.err and refused.err.count("\n") == 1
    for word, line in {"name=nothing": "no network of timm", "image_size=64": "goes with match="}.items():
        refused = vitbench("ls", "models", "family=timm", word)
        assert (refused.code, refused.out) == (2, "") and f"{word}: {line}" in refused.err


def test_studies_are_listed_with_their_question(vitbench: Cli) -> None:
    lines = [line.split(maxsplit=1) for line in vitbench("ls", "studies").out.splitlines()]
    assert any(name == "quickstart" and words.startswith("How much better do a ViT and a CNN") for name, words in lines)


def test_studies_of_ones_own_are_listed_with_their_place(vitbench: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "mine.yaml").write_text("question: What is mine?\nruns: [model=vit]\n")
    (folder / "odd.yaml").write_text("runs: 3\n")
    (folder / "quickstart.yaml").write_text("question: Which one?\nruns: [model=vit]\n")
    lines = dict(line.split(maxsplit=1) for line in vitbench("ls", "studies").out.splitlines())
    assert lines["mine"] == "What is mine? (yours: experiments/mine.yaml)"
    assert lines["odd"] == "cannot be read: experiments/odd.yaml: runs must be a list"
    assert "rename this file, or type study=experiments/quickstart.yaml" in lines["quickstart"]
    assert "(yours" not in lines["data_scaling"] and " mine " in vitbench("ls").out


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
    (runs / "g-stopped").mkdir()
    (runs / "g-stopped" / "config.yaml").write_text("optim: {steps: 1200, epochs: null}\n")
    header = json.dumps({"__metadata__": {"vitbench": f"{'0' * 64} {json.dumps({'step': 7})}"}}).encode()
    (runs / "g-stopped" / "state.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (runs / "h-begun").mkdir()
    (runs / "h-begun" / "config.yaml").write_text("optim: {steps: null, epochs: 3}\n")
    (runs / "h-begun" / "state.safetensors").write_bytes(b"\xff" * 20)
    lines = [line.split(maxsplit=1) for line in vitbench("ls", "runs", "runs=elsewhere").out.splitlines()]
    assert {name: " ".join(rest.split()) for name, rest in lines} == {
        "a-finished": "finished 43.21 %",
        "b-diverged": "diverged",
        "c-failed": "failed: KeyError: 'x'",
        "c-torn": "failed: unreadable failure.json",
        "d-killed": "unfinished: step 600 of 1,200",
        "e-torn": "unreadable: elsewhere/e-torn/record.json is not a whole record (broken JSON)",
        "f-empty": "no run",
        "g-stopped": "unfinished: step 7 of 1,200",
        "h-begun": "unfinished: no step saved of 3 epochs",
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
