"""What tests share: a command line run in this process, and one cache of drawn images for the whole session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra._internal.hydra import Hydra
from hydra.types import RunMode

from vitbench import cli

# small enough for a second: 180 training images, 20 for validation, 50 for testing
TINY = [
    "data.train_images=200",
    "data.test_images=50",
    "optim.steps=6",
    "optim.batch_size=16",
    "eval_every=2",
    "machine.threads=1",
]


class Output(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    os.environ["VITBENCH_CACHE"] = str(folder)
    return folder


GET_MODE = Hydra.get_mode


def mode_of(hydra: Hydra, config_name: str, overrides: list[str]) -> Any:
    """The mode of a command. Hydra composes all its settings to learn that, and then again: half a test's time."""
    if any(word in ("-m", "--multirun") or ("hydra" in word and "mode" in word) for word in [*overrides, *sys.argv]):
        return GET_MODE(hydra, config_name, overrides)
    return RunMode.MULTIRUN if config_name == "sweep" else RunMode.RUN


@pytest.fixture
def vitbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Output]:
    """`vitbench("train", "seed=1")` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(Hydra, "get_mode", mode_of)

    def call(*words: str) -> Output:
        capsys.readouterr()
        code = cli.run(list(words))
        printed = capsys.readouterr()
        return Output(code, printed.out, printed.err)

    return call


def process(*words: str, cwd: Path, **options: object) -> subprocess.Popen[str]:
    """The same as a process of its own, for signals and for what is imported."""
    command = [sys.executable, "-W", "error", "-c", "from vitbench.cli import main; main()", *words]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]
