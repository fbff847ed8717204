"""Fixtures that all tests share: a command line in this process, and one cache of drawn images for the session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vitbench import cli

# Settings of a run that takes about a second: 180 training images, 20 for validation, 50 for testing.
TINY_32 = [
    "data.train_images=200",
    "data.test_images=50",
    "optim.steps=6",
    "optim.batch_size=16",
    "eval_every=2",
    "machine.threads=1",
]
TINY = [*TINY_32, "data.image_size=16"]  # takes about half of that time


class Output(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Output]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    os.environ["VITBENCH_CACHE"] = str(folder)
    return folder


@pytest.fixture
def impatient() -> Iterator[None]:
    """Fails a test after 20 s if it waits without end or fills the memory."""

    def give_up(*_: object) -> None:
        raise TimeoutError("20 s have passed")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def vitbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Output]:
    """Runs `vitbench("train", "seed=1")` in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))

    def call(*words: str) -> Output:
        capsys.readouterr()
        code = cli.run(list(words))
        printed = capsys.readouterr()
        return Output(code, printed.out, printed.err)

    return call


def process(*words: str, cwd: Path, **options: object) -> subprocess.Popen[str]:
    """Starts the same as a separate process, for tests about signals and imports."""
    command = [sys.executable, "-W", "error", "-c", "from vitbench.cli import main; main()", *words]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]
