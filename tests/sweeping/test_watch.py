"""`vitbench watch` tells how runs stand by their folders alone, writes nothing, and reads what has ended once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import fake_runs
from tests.conftest import Output
from tests.runs.test_standing import begun
from vitbench.runs import standing
from vitbench.runs.plan import Planned, plan, remember
from vitbench.runs.run import Run, write_record
from vitbench.runs.study import load_study
from vitbench.sweeping import watch
from vitbench.sweeping.watch_lines import BLOCKS, fitted, lines_of, plot
from vitbench.sweeping.watched import Watcher

Cli = Callable[..., Output]
STUDY = "title: Four\nquestion: Q?\nruns:\n  - model=vit pe=none optim.steps=120 optim.batch_size=10 seed=range(4)\n"


@pytest.fixture
def four(tmp_path: Path) -> list[Planned]:
    """The runs of a study of four, in their order."""
    (tmp_path / "four.yaml").write_text(STUDY)
    return plan(load_study(str(tmp_path / "four.yaml")))


def finish(runs: Path, run: Planned, accuracy: float | None = 0.5) -> None:
    its: Any = fake_runs.record(accuracy, result_id=run.id, result_config=run.settings)
    write_record(runs / run.id, its)


def begin(runs: Path, run: Planned, host: str) -> Path:
    folder = begun(runs / run.id, host)
    Run(folder, run.settings)._write_settings()
    return folder


def fail(runs: Path, name: str, error: str) -> None:
    (runs / name).mkdir(parents=True)
    (runs / name / "config.yaml").write_text("seed: 0\n")
    (runs / name / "failure.json").write_text(json.dumps({"error": error}))


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")}


def words(lines: list[Any]) -> str:
    return "\n".join("".join(word for word, _ in line) for line in lines)


def test_json_says_how_every_planned_run_stands(vitbench: Cli, tmp_path: Path, four: list[Planned]) -> None:
    runs = tmp_path / "runs"
    finish(runs, four[0])
    begin(runs, four[1], "far")
    fail(runs, four[2].id, "DataError: no such folder")
    fake_runs.write(runs, "of-another-study", 0.5)
    before = everything(tmp_path)
    told = vitbench("watch", "study=four.yaml", "format=json")
    seen = json.loads(told.out)
    assert told.code == 0 and told.err == "" and everything(tmp_path) == before
    assert {state: count for state, count in seen["counts"].items() if count} == {
        **dict.fromkeys(("finished", "running", "failed", "waiting"), 1)
    }
    assert seen["failed"] == [{"id": four[2].id, "why": "DataError: no such folder"}]
    assert seen["waiting"] == [four[3].id] and not seen["ended"] and seen["problems"] == []
    (running,) = seen["running"]
    assert (running["id"], running["step"], running["steps"]) == (four[1].id, 60, 120)
    assert running["curves"]["train_loss"] == [[30, 2.5], [60, 2.0]]
    assert running["seconds_left"] == pytest.approx(120, abs=30)
    # the one that waits takes as long as the one that finished, 10 s, behind the one that runs
    assert seen["not_counted"] == 0 and seen["seconds_left"] == pytest.approx(130, abs=30)


def test_what_sweeps_asked_for_is_planned_and_their_evidence_does_not_wait(
    vitbench: Cli, tmp_path: Path, four: list[Planned]
) -> None:
    study, other = load_study(str(tmp_path / "four.yaml")), ["data.fraction=0.5"]
    swept = plan(study, other)
    remember(study, swept, tmp_path / "runs", other, [swept[0].id])
    seen = json.loads(vitbench("watch", "study=four.yaml", "format=json").out)
    assert seen["waiting"] == [run.id for run in swept[1:]] and seen["evidence"] == [swept[0].id]
    finish(tmp_path / "runs", swept[1])
    assert json.loads(vitbench("watch", "study=four.yaml", "format=json").out)["seconds_left"] == pytest.approx(20)


def test_watching_imports_no_torch(tmp_path: Path, four: list[Planned]) -> None:
    finish(tmp_path / "runs", four[0])
    begin(tmp_path / "runs", four[1], "far")
    code = (
        "import sys; from vitbench import cli; cli.run(['watch', 'study=four.yaml']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_text_is_printed_once_where_no_terminal_is(vitbench: Cli, tmp_path: Path, four: list[Planned]) -> None:
    finish(tmp_path / "runs", four[0])
    begin(tmp_path / "runs", four[1], "far")
    for run in four[2:]:
        fail(tmp_path / "runs", run.id, "DataError: no such folder")
    told = vitbench("watch", "study=four.yaml")
    assert told.code == 0 and "4 runs: 1 finished, 1 running, 2 failed, 0 waiting" in told.out
    assert re.search(r"training loss 2\.5 █.*▁ 2", told.out) and "step 60 of 120" in told.out
    assert told.out.count("DataError: no such folder") == 1 and f"{four[2].id}" in told.out, "a reason is told once"


def test_foreign_files_are_one_line_each_and_command_no_terminal(vitbench: Cli, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    fake_runs.write(runs, "a", 0.5).joinpath("record.json").write_text("{")
    (runs / "b").mkdir()
    fail(runs, "c\x1b[2J", "Error: \x1b]0;x\x07 \n\n second")
    begun(runs / "d", "far").joinpath("config.yaml").write_text("optim: [\x1b")
    (begun(runs / "e", "far\x1b[31m") / "metrics.csv").unlink()
    os.mkfifo(runs / "e" / "metrics.csv")
    begun(runs / "f").joinpath("metrics.csv").write_text("step,epoch,train_loss\n1,0,nan\n2,inf,1e308\n3,-1,-1e308\n")
    told = vitbench("watch")
    assert told.code == 0 and told.err == "" and "\x1b" not in told.out and "\x07" not in told.out
    problems = [line for line in told.out.splitlines() if line.startswith("  ! ")]
    assert len(problems) == 4
    assert "runs/b holds no run" in told.out and "Error: \\x1b]0;x\\x07 second" in told.out
    seen = json.loads(vitbench("watch", "format=json").out)
    assert len(seen["problems"]) == 4 and seen["counts"]["unreadable"] == 1


def test_what_has_ended_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four: list[Planned]
) -> None:
    runs = tmp_path / "runs"
    for run in four[:3]:
        finish(runs, run)
    read: Counter[str] = Counter()

    def counts(path: Path) -> Any:
        read[path.parent.name] += 1
        return read_record(path)

    read_record = standing.read_record
    monkeypatch.setattr(standing, "read_record", counts)
    watcher = Watcher(runs, load_study(str(tmp_path / "four.yaml")), "four.yaml")
    for _ in range(3):
        snapshot = watcher.look()
    assert read == {run.id: 1 for run in four[:3]} and not snapshot.has_ended
    fake_runs.change(runs / four[0].id, test_accuracy=0.75)
    finish(runs, four[3])
    assert watcher.look().has_ended and read[four[0].id] == 2 and read[four[1].id] == 1 == read[four[3].id]


def test_a_terminal_is_drawn_in_until_all_runs_have_ended(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four: list[Planned]
) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        finish(tmp_path / "runs", four[len(slept) - 1])

    monkeypatch.setattr(watch, "interactive", lambda stream: True)
    monkeypatch.setattr(watch.time, "sleep", sleep)
    told = vitbench("watch", "study=four.yaml", "every=0.5")
    assert told.code == 0 and slept == [0.5] * 4
    assert "4 runs: 4 finished" in told.out and "all have ended" in told.out


def test_ctrl_c_ends_the_watching_with_130_and_says_that_the_runs_go_on(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four: list[Planned]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "interactive", lambda stream: True)
    monkeypatch.setattr(watch.time, "sleep", interrupt)
    finish(tmp_path / "runs", four[0])
    told = vitbench("watch")
    assert told.code == 130 and told.err == "vitbench: watching ended; the runs continue\n"
    assert "1 run: 1 finished" in told.out, "the last picture stays"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("study=quickstrat", "study=quickstrat: did you mean quickstart?"),
        ("every=0", "every=0.0: must be 0.2 to 3600 seconds"),
        ("format=csv", "format=csv: choices: json, text"),
    ],
)
def test_a_slip_gets_one_line(vitbench: Cli, typed: str, said: str) -> None:
    told = vitbench("watch", typed)
    assert told.code == 2 and said in told.err and told.err.count("\n") == 1


@pytest.mark.parametrize("height", [4, 8, 12, 24, 50])
def test_the_lines_fit_a_terminal_of_any_height(tmp_path: Path, height: int) -> None:
    for number in range(12):
        begun(tmp_path / f"run-{number:02}", "far")
        fail(tmp_path, f"failed-{number:02}", f"Error: {number} " + "long " * 100)
    snapshot = Watcher(tmp_path, None, None).look()
    lines = fitted(snapshot, 100, height)
    assert len(lines) <= height and "24 runs: 0 finished, 12 running, 12 failed" in words(lines)
    whole = words(lines_of(snapshot, 100))
    assert all(f"run-{number:02}" in whole and f"Error: {number} " in whole for number in range(12))


def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value() -> None:
    rising = [(step, step / 100) for step in range(0, 101, 10)]
    assert plot(rising, 8, 1) == ["▁▂▃▄▅▆▇█"]
    assert plot([(step, -value) for step, value in rising], 8, 1) == ["█▇▆▅▄▃▂▁"]
    top, bottom = plot(rising, 16, 2)
    assert top[:8].strip() == "" and top[-1] == BLOCKS[-1] and bottom[0] == BLOCKS[1] and bottom[8:] == 8 * BLOCKS[-1]
    assert plot([(5, 1.0), (9, 1.0)], 4, 1) == ["▁▁▁▁"] == plot([(5, 1.0)], 4, 1)


def test_steps_that_are_evaluated_unevenly_stand_at_their_places() -> None:
    (drawn,) = plot([(0, 0.0), (90, 0.0), (100, 1.0)], 21, 1)
    assert drawn[:19] == 19 * "▁" and drawn[-1] == "█"
