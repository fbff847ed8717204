"""Handing the jobs of a sweep over, again where a worker was killed, and ending them when a signal ends the sweep."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitbench.errors import StorageError, UserError
from vitbench.machine.interrupt import STOPPING, Stopped
from vitbench.runs.run import Run

SECONDS_TO_SAVE = 8.0  # for workers to save after a signal
LAUNCHES = 4  # the first and three after a worker was killed: a run that needs more memory than there is kills each
POLL_SECONDS = 0.5
IN_PROCESS = ("basic", "stacked")  # launchers that are not asked to compose again

Hand = Callable[
    [list[str]], dict[str, str]
]  # does runs by their ids; what jobs raised beside what their runs wrote down


def in_process(work: Callable[[dict[str, Any]], object], settings: Mapping[str, dict[str, Any]]) -> Hand:
    """One run after the other, here: the data set stays open, and nothing is composed again."""

    def hand(names: list[str]) -> dict[str, str]:
        errors: dict[str, str] = {}
        for name in names:
            try:
                work(settings[name])
            except Stopped:
                raise
            except StorageError as error:
                errors[name] = str(error)
            except UserError:
                pass  # it is in the run's folder, or another process holds the run
            except Exception as error:
                errors[name] = repr(error)
        return errors

    return hand


def through(launcher: Any, jobs: Mapping[str, list[str]]) -> Hand:
    """A Hydra launcher that returns when its jobs (run id -> overrides) are done."""
    from hydra.core.utils import JobStatus

    def hand(names: list[str]) -> dict[str, str]:
        try:
            returns = launcher.launch([jobs[name] for name in names], initial_job_idx=0)
        except SystemExit as stopped:  # a worker was asked to end, and saved
            raise BrokenProcessPool(str(stopped)) from None
        failed = [
            (name, job._return_value)
            for name, job in zip(names, returns, strict=True)
            if job.status == JobStatus.FAILED
        ]
        return {name: str(error) if isinstance(error, UserError) else repr(error) for name, error in failed}

    return hand


def launch(
    hand: Hand, runs: Mapping[str, Run], ended: Callable[[Run], str | None], say: Callable[[str], None]
) -> dict[str, str]:
    """Sees to it that every run ends, here or in another sweep; returns what `hand` did.

    What a killed worker left, or a sweep that held a run and was killed, is handed over again. A signal is passed on to
    the workers, which save; it then ends with Stopped, and none of them is left behind.
    """
    received: int | None = None
    how = "stopped"

    def stop(number: int, frame: Any) -> None:
        """Waits here, where the signal arrives: joblib kills its workers as soon as an exception passes through it."""
        nonlocal received, how
        if received is None:
            received = number
            saved = _stop_workers(runs.values())
            how = "stopped and saved" if saved else f"stopped; some runs did not save in {SECONDS_TO_SAVE:.0f} s"
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOPPING}
    errors: dict[str, str] = {}
    left = list(runs)
    try:
        for _ in range(LAUNCHES):
            killed = False
            try:
                errors |= hand(left)
            except BrokenProcessPool:
                killed = True
            _wait_for_others([runs[name] for name in left], say)
            left = [name for name in left if ended(runs[name]) is None and name not in errors]
            if not left:
                break
            what = "a worker process was killed (memory?)" if killed else "a process that held runs ended without them"
            say(f"{what}; {len(left)} {'run goes' if len(left) == 1 else 'runs go'} on in new ones")
    except KeyboardInterrupt:
        raise Stopped(f"{how}; repeating the command goes on", received or signal.SIGINT) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return errors


def _wait_for_others(runs: Iterable[Run], say: Callable[[str], None]) -> None:
    """Until no other process holds one of the runs: another sweep of the study, which shares the work."""
    said = set()
    for run in runs:
        while holder := run.held():
            if holder not in said:
                said.add(holder)
                say(f"waiting for {run.id}, {holder}")
            time.sleep(POLL_SECONDS)


def _stop_workers(runs: Iterable[Run]) -> bool:
    """Asks every process that this one started and that holds a run to save; whether all did within SAVE_SECONDS.

    Only those: a process between two runs has nothing to save, and joblib's resource tracker ends by itself.
    """
    asked: set[tuple[str, int]] = set()
    deadline = time.monotonic() + SECONDS_TO_SAVE
    while time.monotonic() < deadline:
        working = False
        for run in runs:
            worker = _worker(run)
            if worker is None or run.held() is None:
                continue
            working = True
            if (run.id, worker) not in asked:
                asked.add((run.id, worker))
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGTERM)
        if not working:
            return True
        time.sleep(0.1)
    return False


def _worker(run: Run) -> int | None:
    """The process that holds a run, where it descends from this one."""
    try:
        about = json.loads((run.folder / ".holder.json").read_text())
        holder, here = int(about["pid"]), about["host"] == socket.gethostname()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not here:
        return None
    process = holder
    while process > 1:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return None
        if process == os.getpid():
            return holder
    return None
