"""What `--help` prints, as a terminal shows it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Output
from vitbench.cli import COMMANDS, PLAIN
from vitbench.settings.command_schemas import CHOSEN_BY_ADVISE

Cli = Callable[..., Output]


def settings_part(text: str) -> list[str]:
    lines = text.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith(("Choices", "Settings")))
    return lines[begin:]


@pytest.mark.parametrize(
    ("command", "columns"), [*((name, 80) for name in COMMANDS if name not in PLAIN), ("train", 120)]
)
def test_no_line_of_settings_is_wider_than_the_terminal(
    vitbench: Cli, monkeypatch: pytest.MonkeyPatch, command: str, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = vitbench(command, "--help")
    assert done.code == 0 and not done.err
    assert done.out.startswith(f"  vitbench {command}"), "it opens with commands to copy"
    assert [line for line in settings_part(done.out) if len(line) > columns] == []


def test_typed_values_are_shown_with_what_they_would_be_otherwise(vitbench: Cli) -> None:
    out = vitbench("train", "model=resnet", "optim.lr=0.2", "--help").out
    assert "  optim.lr=0.2 " in out and "0.1 where it is not typed" in " ".join(out.split())
    assert "optim.optimizer=sgd" in out, "what the choice brings is shown"
    assert "is not typed" not in vitbench("train", "model=resnet", "--help").out


def test_settings_that_the_choices_lack_are_left_out(vitbench: Cli) -> None:
    resnet = vitbench("train", "model=resnet", "data=cifar10", "--help").out
    assert "model.sharing=true" in resnet and "model.window" not in resnet
    assert "pe=" not in "\n".join(settings_part(resnet)) and "data.online" not in resnet
    assert "pe.theta=100" in vitbench("train", "pe=rope", "--help").out


def test_a_run_brings_its_images_to_a_probe_and_a_network_from_outside_does_not(vitbench: Cli) -> None:
    of_run, outside = vitbench("probe", "probe=shift", "--help").out, vitbench("probe", "data=shapes", "--help").out
    assert "data.root=data" in of_run and "data.fraction" not in of_run and "data.fraction=1" in outside
    assert "probe.shift.draws=4" in of_run and "probe.linear" not in of_run
    assert "\n  model=null" in of_run, "as one types it"


def test_help_of_advise_lists_only_what_it_takes(vitbench: Cli) -> None:
    text = vitbench("advise", "--help").out
    assert "data.root=" in text and "data.flip=" in text and "cifar10" not in text
    for key in CHOSEN_BY_ADVISE:
        assert f"{key}=" not in text
        refused = vitbench("advise", f"{key}={'tiles' if key == 'data.permute' else 1 if 'seed' in key else 0.5}")
        assert refused.code == 2, refused.err


def test_filters_are_shown_as_they_were_typed(vitbench: Cli) -> None:
    assert "\n  where.KEY=VALUE " in vitbench("table", "--help").out
    assert "\n  where.data=shapes " in vitbench("table", "where.data=shapes", "--help").out


def test_a_sweep_tells_its_own_settings_first_and_runs_nothing(vitbench: Cli, tmp_path: Path) -> None:
    out = vitbench("sweep", "study=quickstart", "-m", "--help").out
    assert out.index("\n  study=quickstart") < out.index("\n  seed=0")
    assert list(tmp_path.iterdir()) == []


def test_a_slip_beside_help_is_answered_by_its_line(vitbench: Cli) -> None:
    done = vitbench("train", "optim.lrr=1", "--help")
    assert (done.code, done.out) == (2, "") and "did you mean optim.lr" in done.err


def test_choices_of_a_folder_of_ones_own_are_listed(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "wide.yaml").write_text("defaults: [vit]\nwidth: 96\n")
    out = vitbench("train", "--config-dir", "mine", "model=wide", "--help").out
    assert "\n  model=wide " in out and "model.width=96" in out and "vit, wide)" in " ".join(out.split())


@pytest.mark.slow
def test_help_of_train_takes_little_time_and_never_torch(tmp_path: Path) -> None:
    code = (
        "import sys, time; from vitbench import cli; code = cli.run(['train', 'optim.lr=0.1', '--help']);"
        "assert 'torch' not in sys.modules; sys.exit(code or int(time.process_time() > 1.2))"
    )
    best = min(_seconds_of(code, tmp_path) for _ in range(3))
    assert best < 10


def _seconds_of(code: str, folder: Path) -> float:
    begin = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True).returncode == 0
    return time.monotonic() - begin
