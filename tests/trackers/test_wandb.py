"""wandb, by a stand-in for its package, and by the package itself where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.trackers.test_trackers import ended
from vitbench.runs.follow import Followed


class FakeRun:
    """What Wandb uses of a run of wandb: a step that is closed takes nothing more."""

    def __init__(self, **options: Any) -> None:
        self.options, self.step, self.disabled = options, 0, False
        self.rows, self.summary, self.is_finished = list[tuple[int, dict[str, float]]](), dict[str, float](), False

    def log(self, values: dict[str, float], step: int) -> None:
        assert step >= self.step
        self.step = step
        self.rows.append((step, values))

    def finish(self) -> None:
        self.is_finished = True


def test_wandb_gets_each_line_once_and_what_a_closed_step_lacks_in_the_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[FakeRun] = []
    fake: Any = types.ModuleType("wandb")
    fake.init = lambda **options: begun.append(FakeRun(**options)) or begun[-1]  # type: ignore[func-returns-value]
    fake.Settings = dict
    monkeypatch.setitem(sys.modules, "wandb", fake)
    first, again = (Followed("wandb", "one", tmp_path, {"seed": 3}) for _ in range(2))
    assert first.hand_over([(2, {"loss": 1.0}), (4, {"loss": 0.5})]) == 2
    begun[0].step = 5  # as a run is that wandb resumed
    assert first.hand_over([(4, {"loss": 0.5}), (4, {"test": 0.9})]) == 1
    first.close()
    assert begun[0].rows == [(2, {"loss": 1.0}), (4, {"loss": 0.5})] and begun[0].summary == {"test": 0.9}
    assert begun[0].options["id"] == "one" and begun[0].options["resume"] == "allow" and begun[0].is_finished
    again = Followed("wandb", "one", tmp_path, {})
    assert again.hand_over([(2, {"loss": 1.0}), (4, {"loss": 0.5, "test": 0.9})]) == 0
    again.close()
    assert len(begun) == 1, "nothing new begins no run"


def test_wandb_itself_stores_no_key_and_no_command_line(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="its packages are many; docs/how-to/trackers.md")
    ended(tmp_path / "runs", "one")
    key = "0123456789abcdef0123456789abcdef01234567"
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_API_KEY": key}
    code = "from vitbench.cli import main; main()"
    for count in (12, 0):
        command = [sys.executable, "-c", code, "track", "trackers=wandb", f"run=[one,{key}]"]
        assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode == 2
        done = subprocess.run(command[:-1], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.stdout == f"wandb: {count} new values; it now has 1 of 1 run\n", done.stderr
    (log,) = tmp_path.glob("wandb/offline-run-*/run-one.wandb")
    assert b"val_accuracy" in log.read_bytes()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if key.encode() in path.read_bytes() or b"trackers=wandb" in path.read_bytes()]
