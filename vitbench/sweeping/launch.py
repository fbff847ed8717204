"""Launches the runs of a sweep, launches them again where a worker was killed, and stops them after a signal."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

from vitbench.errors import StorageError, UserError
from vitbench.machine.interrupt import STOPPING, Stopped
from vitbench.runs.run import Run

SECONDS_TO_SAVE = 8.0  # workers have so long to save after a signal
LAUNCHES = 4  # a run is launched at most so often, because one that needs too much memory kills each of its workers
POLL_SECONDS = 0.5
IN_PROCESS = ("basic", "stacked")  # launchers that train in this process, with settings that are composed already

stopped_here: list[Stopped] = []  # the stop of a run of a sweep that this process itself trained

# An Execute does the runs with these ids. It returns, by id, the errors that are not noted in a run's folder.
Execute = Callable[[list[str]], dict[str, str]]


def in_process(work: Callable[[dict[str, Any]], object], settings: Mapping[str, dict[str, Any]]) -> Execute:
    """Returns an Execute that does one run after the other in this process, where the images stay open between runs."""

    def execute(run_ids: list[str]) -> dict[str, str]:
        errors: dict[str, str] = {}
        for run_id in run_ids:
            try:
                work(settings[run_id])
            except Stopped:
                raise
            except StorageError as error:
                errors[run_id] = str(error)
            except UserError:
                pass  # the run's folder says why, or another process holds the run
            except Exception as error:
                errors[run_id] = repr(error)
        return errors

    return execute


def through(launcher: Any, overrides: Mapping[str, list[str]]) -> Execute:
    """Returns an Execute that does runs through a Hydra launcher, which composes each run from its overrides."""

    def execute(run_ids: list[str]) -> dict[str, str]:
        try:
            jobs = launcher.launch([overrides[run_id] for run_id in run_ids], initial_job_idx=0)
        except SystemExit as stopped:  # a run got a signal, and saved
            if stopped_here:  # with one process or one run, joblib trains in this process
                raise Stopped("stopped and saved; repeat the command to continue", stopped_here.pop().number) from None
            raise BrokenProcessPool(str(stopped)) from None
        errors: dict[str, str] = {}
        for run_id, job in zip(run_ids, jobs, strict=True):
            try:
                with redirect_stderr(io.StringIO()):  # Hydra prints the overrides of a job that failed
                    _ = job.return_value  # raises what the job raised
            except UserError as error:
                errors[run_id] = str(error)
            except Exception as error:
                errors[run_id] = repr(error)
        return errors

    return execute


def launch(
    execute: Execute, runs: Mapping[str, Run], ended: Callable[[Run], str | None], say: Callable[[str], None]
) -> dict[str, str]:
    """Calls `execute` until every run has ended, here or in another sweep; returns the errors that it returned.

    It is called again for runs that a killed worker left, or that another sweep held and left when it was killed. After
    a signal the workers are asked to save and end; then Stopped is raised.
    """
    received: int | None = None
    outcome = "stopped"

    def stop(number: int, frame: Any) -> None:
        """Waits for the workers within the signal handler: joblib kills them as soon as an exception reaches it."""
        nonlocal received, outcome
        if received is None:
            received = number
            saved = _stop_workers(runs.values())
            outcome = "stopped and saved" if saved else f"stopped; some runs did not save in {SECONDS_TO_SAVE:.0f} s"
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()  # only the main thread may handle signals
    handlers_before = {number: signal.signal(number, stop) for number in STOPPING} if is_main else {}
    errors: dict[str, str] = {}
    left = list(runs)
    try:
        for _ in range(LAUNCHES):
            killed = False
            try:
                errors |= execute(left)
            except BrokenProcessPool:
                killed = True
            _wait_for_others([runs[run_id] for run_id in left], say)
            left = [run_id for run_id in left if ended(runs[run_id]) is None and run_id not in errors]
            if not left:
                break
            killed_words = "a worker process was killed (perhaps it had too little memory)"
            why = killed_words if killed else "another process ended before its runs were finished"
            say(f"{why}; {len(left)} {'run continues' if len(left) == 1 else 'runs continue'} in a new process")
    except KeyboardInterrupt:
        raise Stopped(f"{outcome}; repeat the command to continue", received or signal.SIGINT) from None
    finally:
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
    return errors


def _wait_for_others(runs: Iterable[Run], say: Callable[[str], None]) -> None:
    """Waits until no other process holds one of the runs. Another sweep of the study may do some of them."""
    announced = set()
    for run in runs:
        while holder := run.held():
            if holder not in announced:
                announced.add(holder)
                say(f"waiting for {run.id}, {holder}")
            time.sleep(POLL_SECONDS)


def _stop_workers(runs: Iterable[Run]) -> bool:
    """Sends SIGTERM to each worker of this sweep that holds a run; returns whether all saved within SECONDS_TO_SAVE.

    Other processes get no signal: a worker between two runs has nothing to save, and joblib's resource tracker ends by
    itself.
    """
    signalled: set[tuple[str, int]] = set()
    deadline = time.monotonic() + SECONDS_TO_SAVE
    while time.monotonic() < deadline:
        working = False
        for run in runs:
            worker = _worker(run)
            if worker is None or run.held() is None:
                continue
            working = True
            if (run.id, worker) not in signalled:
                signalled.add((run.id, worker))
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGTERM)
        if not working:
            return True
        time.sleep(0.1)
    return False


def _worker(run: Run) -> int | None:
    """Returns the process that holds the run, if it descends from this process; otherwise None."""
    worker, host = run.holder() or (0, "")
    if host != socket.gethostname():
        return None
    ancestor = worker
    while ancestor > 1:
        try:
            ancestor = int(Path(f"/proc/{ancestor}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return None
        if ancestor == os.getpid():
            return worker
    return None
