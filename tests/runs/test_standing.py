"""How a run stands is read from its folder, also from a machine that does not see the locks of another one."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from tests import fake_runs
from vitbench.runs.run import Run
from vitbench.runs.standing import (
    DIVERGED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    NO_RUN,
    RUNNING,
    SILENT_SECONDS,
    UNREADABLE,
    look_at,
    standing_of,
    steps_by,
)

HERE = socket.gethostname()


def begun(folder: Path, host: str | None = None, seconds_ago: float = 0) -> Path:
    """The folder of a run that has not ended, and of which a process on this host noted that it holds it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(fake_runs.record(0.5)["config"]))
    (folder / "metrics.csv").write_text("step,epoch,train_loss,train_seconds\n30,1.0,2.5,60\n60,2.0,2.0,120\n")
    if host is not None:
        (folder / ".holder.json").write_text(json.dumps({"pid": 7, "host": host}))
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds_ago,) * 2)
    return folder


def test_a_run_that_a_process_holds_is_running(tmp_path: Path) -> None:
    run = Run(begun(tmp_path / "a"), {})
    with run.claim():
        standing = standing_of(run.folder)
        assert (standing.state, standing.told) == (RUNNING, f"process {os.getpid()} on {HERE}")
    assert standing.begun is not None and standing.begun.progress == "step 60 of 120"
    assert standing.begun.share == 0.5 and standing.begun.seconds_left == 120
    assert standing_of(run.folder).state == INTERRUPTED


def test_a_run_that_is_tried_again_is_running_and_not_failed(tmp_path: Path) -> None:
    run = Run(begun(tmp_path / "a"), {})
    (run.folder / "failure.json").write_text('{"error": "KeyError: x"}')
    assert (standing_of(run.folder).state, standing_of(run.folder).told) == (FAILED, "KeyError: x")
    with run.claim():
        assert standing_of(run.folder).state == RUNNING


@pytest.mark.parametrize(
    ("host", "seconds_ago", "state", "told"),
    [
        (HERE, 0, INTERRUPTED, f"process 7 on {HERE} was killed"),
        (None, 0, INTERRUPTED, "stopped"),
        ("far", 60, RUNNING, "process 7 on far, by the age of its files, because its lock cannot be seen here"),
        ("far", 2 * SILENT_SECONDS, INTERRUPTED, "process 7 on far is silent"),
    ],
)
def test_a_lock_that_is_not_seen_is_judged_by_the_host_and_the_age_of_the_files(
    tmp_path: Path, host: str | None, seconds_ago: float, state: str, told: str
) -> None:
    standing = standing_of(begun(tmp_path / "a", host, seconds_ago))
    assert (standing.state, standing.told) == (state, told)


def test_a_record_tells_the_result_or_why_there_is_none(tmp_path: Path) -> None:
    done = standing_of(fake_runs.write(tmp_path, "a", 0.4321))
    assert (done.state, done.told, done.accuracy, done.train_seconds) == (FINISHED, "43.2 %", 0.4321, 10.0)
    diverged = standing_of(fake_runs.write(tmp_path, "b", None))
    assert diverged.state == DIVERGED
    assert diverged.told == "diverged, the loss was not finite at step 7; try a smaller optim.lr than 0.001"
    (tmp_path / "a" / "record.json").write_text("{")
    assert standing_of(tmp_path / "a").state == UNREADABLE
    (tmp_path / "c").mkdir()
    assert standing_of(tmp_path / "c").state == NO_RUN


def test_while_nothing_is_seen_to_change_a_run_stands_as_before(tmp_path: Path) -> None:
    folder = begun(tmp_path / "a")
    before = look_at(folder)
    assert look_at(folder) == before
    with (folder / "metrics.csv").open("a") as file:
        file.write("90,3.0,1.5,180\n")
    assert look_at(folder) != before
    with Run(folder, {}).claim():
        assert look_at(folder).locked
    fake_runs.write(tmp_path, "b", 0.5)
    assert [*look_at(tmp_path / "b").files] == ["record.json"], "nothing else of a run that ended is asked for"


@pytest.mark.parametrize(
    ("optim", "steps"),
    [
        ({"steps": 120, "epochs": None}, 120),
        ({"steps": None, "epochs": 8.0, "min_steps": None}, 240),
        ({"steps": None, "epochs": 8.0, "min_steps": 1000}, 1000),
        ({"steps": None, "epochs": "3", "min_steps": None}, None),
        ({"steps": -1}, None),
        ({"steps": None, "epochs": 1e308}, 30_000_000_000),
        ("damaged", None),
    ],
)
def test_the_steps_of_a_run_follow_from_its_settings_and_lines(optim: object, steps: int | None) -> None:
    assert steps_by(optim, [{"step": "60", "epoch": "2.0"}]) == steps
