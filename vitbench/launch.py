"""Handing the jobs of a sweep to a Hydra launcher, and ending what it started when a signal ends the sweep."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitbench.interrupt import STOPPING, Stopped
from vitbench.run import Run

SAVE_SECONDS = 8.0  # for workers to save after a signal
LAUNCHES = 4  # the first and three after a worker was killed: a run that needs more memory than there is kills each


def launch(
    launcher: Any,
    jobs: Mapping[str, list[str]],
    runs: Mapping[str, Run],
    ended: Callable[[Run], str | None],
    say: Callable[[str], None],
) -> dict[str, str]:
    """Hands the jobs (run id -> overrides) to the launcher; returns what jobs raised beside what their runs wrote down.

    A worker that is killed breaks joblib's pool; what it left is launched again. A signal to the sweep is passed on to
    its workers, which save; it then ends with Stopped, and none of them is left behind.
    """
    from hydra.core.utils import JobStatus

    left = dict(jobs)
    received: int | None = None
    saved = True

    def stop(number: int, frame: Any) -> None:
        """Waits here, where the signal arrives: joblib kills its workers as soon as an exception passes through it."""
        nonlocal received, saved
        if received is None:
            received = number
            saved = _stop_workers([runs[name] for name in jobs])
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        for _ in range(LAUNCHES):
            if not left:
                break
            try:
                returns = launcher.launch([*left.values()], initial_job_idx=0)
                failed = zip(left, returns, strict=True)
                return {name: repr(job._return_value) for name, job in failed if job.status == JobStatus.FAILED}
            except BrokenProcessPool:
                left = {name: words for name, words in left.items() if ended(runs[name]) is None}
                say(f"a worker process was killed (memory?); {len(left)} runs go on in new ones")
    except KeyboardInterrupt:
        how = "stopped and saved" if saved else f"stopped; some runs did not save in {SAVE_SECONDS:.0f} s"
        raise Stopped(f"{how}; repeating the command goes on", received or signal.SIGINT) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return {}


def _stop_workers(runs: Iterable[Run]) -> bool:
    """Asks every process that this one started and that holds a run to save; whether all did within SAVE_SECONDS.

    Only those: a process between two runs has nothing to save, and joblib's resource tracker ends by itself.
    """
    asked: set[tuple[str, int]] = set()
    deadline = time.monotonic() + SAVE_SECONDS
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
        holder = int(json.loads((run.folder / ".holder.json").read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
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
