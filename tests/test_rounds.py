"""The rounds of kills and faults, `tools/rounds.py`, with rounds of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests import fake_runs
from tools import rounds
from tools.children import Ended, Failed, NotTried, Place, left_by, told
from vitbench.errors import UserError
from vitbench.machine.disk import sha256_of

ROOT = Path(__file__).parent.parent


def test_help_opens_with_commands_to_copy_and_names_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert rounds.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("  make rounds") and all(f"  {kind} " in printed for kind in rounds.KINDS)


@pytest.mark.parametrize("word", ["kinds=kil", "round=3", "rounds=-1", "only=x"])
def test_a_word_that_means_nothing_is_refused(word: str) -> None:
    with pytest.raises(UserError, match=word.partition("=")[0]):
        rounds.typed([word])


def test_a_failed_round_is_counted_with_the_command_that_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[float] = []

    def one(place: Place, name: str, number: int, random: Random) -> str:
        seen.append(random.random())
        if number == 1:
            raise Failed("other numbers")
        if number == 2:
            raise NotTried("strace is not installed")
        return "same"

    monkeypatch.setitem(rounds.KINDS, "kill", (one, 50))
    place = Place(tmp_path, seed=7)
    assert rounds.rounds_of(place, "kill", range(4), keep=False)
    printed = capsys.readouterr().out
    assert "1 FAILED; 1 not tried (strace is not installed); 2 same" in printed
    assert "python tools/rounds.py kinds=kill seed=7 only=1: other numbers" in printed
    assert rounds.rounds_of(place, "kill", [1], keep=True) and seen[-1] == seen[1], "it is the same round again"
    assert not rounds.rounds_of(place, "kill", [0], keep=False)


@pytest.mark.parametrize(
    ("code", "err", "line"),
    [
        (1, "Traceback (most recent call last):\nKeyError: 'a'\n", "a traceback, KeyError"),
        (4, "vitbench: one\nvitbench: two\n", "2 lines with exit code 4"),
        (3, "vitbench: one\n", "exit code 3: vitbench: one"),
        (4, "", "0 lines"),
    ],
)
def test_an_end_without_its_one_line_is_a_failure(code: int, err: str, line: str) -> None:
    with pytest.raises(Failed, match=line):
        told(Ended(code, err, 0.0), 0, 1, 4)


def test_warnings_are_no_lines_of_an_error() -> None:
    assert told(Ended(4, "warning: old\nW1129 05:56 torch] no triton\nvitbench: disk full\n", 0.0), 4).code == 4


def finished(run: Path, change: Callable[[Path], object] = lambda run: None) -> Path:
    """A run of three files that was changed before its record was written."""
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text(f"step,train_loss,train_seconds\n2,0.5,{len(run.name)}\n")
    (run / "predictions.npy").write_bytes(b"\1\2\3")
    change(run)
    files = {path.name: sha256_of(path) for path in run.iterdir()}
    record = fake_runs.record(0.5) | {
        "files": files,
        "created": run.name,
        "train_seconds": len(run.name),
        "warnings": [],
    }
    (run / "record.json").write_text(json.dumps(record))
    return run


def test_other_numbers_are_noticed_and_other_times_are_not(tmp_path: Path) -> None:
    place = Place(tmp_path, 0, left=left_by(finished(tmp_path / "reference"))[0])
    finished(tmp_path / "again" / "runs" / "a_longer_name")
    assert place.same(tmp_path / "again") == "same"
    changes: dict[str, Callable[[Path], object]] = {
        "predictions.npy": lambda run: (run / "predictions.npy").write_bytes(b"\1\2\4"),
        "metrics.csv": lambda run: (run / "metrics.csv").write_text("step,train_loss,train_seconds\n2,0.6,9\n"),
        "labels.npy": lambda run: (run / "labels.npy").write_bytes(b"\1"),
    }
    for name, change in changes.items():
        finished(tmp_path / name / "runs" / "r", change)
        with pytest.raises(Failed, match=f"different results without a warning: {name}"):
            place.same(tmp_path / name)


def test_checksums_that_are_not_those_of_the_files_are_a_failure(tmp_path: Path) -> None:
    run = finished(tmp_path / "r")
    (run / "predictions.npy").write_bytes(b"\1\2\4")
    with pytest.raises(Failed, match="the checksums in the record differ"):
        left_by(run)


@pytest.mark.slow
def test_two_rounds_of_some_kinds_end_like_the_undisturbed_run() -> None:
    command = [sys.executable, str(ROOT / "tools" / "rounds.py"), "kinds=kill,damage,signals,inject", "rounds=2"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert all(f"\n{kind} " in done.stdout for kind in ("kill", "damage", "signals", "inject"))
