from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from vitbench.errors import StorageError, TryAgain
from vitbench.machine.disk import write
from vitbench.runs.run import Run, read_metrics


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "r").mkdir()
    return Run(tmp_path / "r", {"seed": 0})


def break_writes(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    real = os.write

    def half(descriptor: int, data: Any) -> int:
        if len(data) < 8 or descriptor < 3:
            return real(descriptor, data)
        real(descriptor, bytes(data[: len(data) // 2]))
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", half)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_old_file_whole_and_nothing_beside_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = run.folder / "table.csv"
    write(path, b"the old content")
    break_writes(monkeypatch, code)
    with pytest.raises(StorageError, match=str(path)):
        write(path, b"the new content, which is longer")
    assert path.read_bytes() == b"the old content"
    assert [file.name for file in run.folder.iterdir()] == ["table.csv"]


def test_a_full_disk_leaves_both_states_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save_state(b"first generation")
    run.save_state(b"second generation")
    break_writes(monkeypatch, errno.ENOSPC)
    with pytest.raises(StorageError, match="No space left"):
        run.save_state(b"third generation")
    assert [path.read_bytes() for path in run.states()] == [b"second generation", b"first generation"]


def test_a_kill_between_the_two_renames_leaves_a_state(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save_state(b"first generation")
    real, calls = os.replace, []

    def killed(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save_state(b"second generation")
    assert [path.read_bytes() for path in run.states()] == [b"first generation"]


def test_metrics_lines_survive_concurrent_writers_and_a_torn_end(run: Run) -> None:
    for step in range(3):
        run.log({"step": step, "train_loss": 0.1 + 0.2})
    with (run.folder / "metrics.csv").open("a") as lines:
        lines.write("3,0.5")
    rows = read_metrics(run.folder)
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["train_loss"]) == 0.1 + 0.2  # no digit is lost


@pytest.mark.parametrize("damaged", ['2,"0.2', "2," + 200_000 * "9"])
def test_a_line_of_metrics_without_end_is_skipped_and_hides_no_other(run: Run, damaged: str) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "metrics.csv").write_text(f"step,epoch\n1,0.1\n{damaged}\n3,0.3\n")
    assert [row["step"] for row in read_metrics(run.folder)] == ["1", "3"]


@pytest.mark.parametrize("left", ["", "step,epo"])
def test_metrics_without_a_whole_header_get_one_that_names_every_column(run: Run, left: str) -> None:
    (run.folder / "metrics.csv").write_text(left)
    run.rewind(4)
    run.log({"step": 6, "train_loss": 0.5, "spread": 0.25})  # a column that an objective adds
    (row,) = read_metrics(run.folder)
    assert (row["step"], row["spread"]) == ("6", "0.25") and None not in row


def hold(folder: str, seconds: float, report: Any) -> None:
    try:
        with Run(Path(folder), {}).claim():
            report.put("held")
            time.sleep(seconds)
            (Path(folder) / "config.yaml").touch()
    except TryAgain as error:
        report.put(str(error))


def test_of_eight_processes_one_gets_the_run_and_the_others_name_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    report = context.Queue()
    children = [context.Process(target=hold, args=(str(tmp_path / "r"), 4.0, report)) for _ in range(8)]
    for child in children:
        child.start()
    answers = [report.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert answers.count("held") == 1
    assert all("is held by process" in answer for answer in answers if answer != "held")


def test_who_looks_whether_a_run_is_held_does_not_keep_it_from_starting(run: Run) -> None:
    look = FileLock(run.folder / ".lock", thread_local=False)
    look.acquire()
    end = threading.Timer(0.2, look.release)
    end.start()
    with run.claim():
        assert run.held() == f"held by process {os.getpid()} on {socket.gethostname()}"
    end.join()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    report = context.Queue()
    child = context.Process(target=hold, args=(str(tmp_path / "r"), 600.0, report))
    child.start()
    assert report.get(timeout=60) == "held"
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join()
    with Run(tmp_path / "r", {}).claim():
        pass
