"""The runs of a study that are missing, through a Hydra launcher. Repeating the command goes on where it ended."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitbench.config import SWEEP_KEYS
from vitbench.errors import RunFailed, UserError, did_you_mean
from vitbench.interrupt import Stopped
from vitbench.progress import Progress, progress
from vitbench.run import Run, read_metrics
from vitbench.study import Planned, load, names, plan, remember
from vitbench.train import main as main  # what a launcher runs for each run

POLL_SECONDS = 0.5
LAUNCHES = 4  # the first and three after a worker was killed: a run that needs more memory than there is kills each


def sweep(config: Any, arguments: list[str], launcher: Any) -> None:
    """Plans the study, launches what is missing, and says how every run ended; raises RunFailed unless all are well."""
    if config.study is None:
        raise UserError(f"study=NAME is missing; {did_you_mean('', names())}")
    study = load(config.study)
    typed = [word for word in arguments if word.partition("=")[0] not in SWEEP_KEYS]
    planned = plan(study, typed, config.confirm)
    runs = {one.id: Run.of(one.settings) for one in planned}
    todo = [
        one for one in planned if runs[one.id].record() is None and (config.retry_failed or not _failure(runs[one.id]))
    ]
    if config.dry_run:
        _print_plan(planned, runs, todo)
        return
    remember(study, planned, Path(config.runs).expanduser())
    parallel = config.hydra.runtime.choices["hydra/launcher"] != "basic"
    handed_on = [f"study={config.study}", "machine.progress=false"]
    if parallel and config.machine.threads is None:
        handed_on.append("machine.threads=1")
    for one in todo:
        (runs[one.id].folder / "failure.json").unlink(missing_ok=True)  # it is tried again
    jobs = {one.id: [w for w in one.overrides if not w.startswith("machine.progress=")] + handed_on for one in todo}
    if jobs:
        with progress(study.title, sum(_steps(one) for one in todo), "steps", config.machine.progress) as display:
            display.say(f"{study.title}: {len(planned)} runs, {len(planned) - len(todo)} of them done before")
            with _watch([(one, runs[one.id]) for one in todo], display):
                _launch(launcher, jobs, runs, display)
    _conclude(runs)


def _launch(launcher: Any, jobs: dict[str, list[str]], runs: dict[str, Run], display: Progress) -> None:
    """Hands the jobs to the launcher. A worker that is killed breaks joblib's pool; what it left is launched again."""
    for _ in range(LAUNCHES):
        if not jobs:
            return
        try:
            launcher.launch([*jobs.values()], initial_job_idx=0)
            return
        except BrokenProcessPool:
            jobs = {name: words for name, words in jobs.items() if _ended(runs[name]) is None}
            display.say(f"a worker process was killed (memory?); {len(jobs)} runs go on in new ones")
        except KeyboardInterrupt:
            raise Stopped("stopped; repeating the command goes on where the sweep ended", signal.SIGINT) from None


def _failure(run: Run) -> str | None:
    """Why a run failed, where it did."""
    try:
        return str(json.loads((run.folder / "failure.json").read_text())["error"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "unreadable failure.json"


def _steps(one: Planned) -> int:
    optim = one.settings["optim"]
    return int(optim["steps"] or 1000) if optim["epochs"] is None else 1000


def _print_plan(planned: list[Planned], runs: dict[str, Run], todo: list[Planned]) -> None:
    missing = {one.id for one in todo}
    for one in planned:
        state = "missing" if one.id in missing else (_failure(runs[one.id]) or "finished")
        print(f"{one.id}  {state}")
    print(f"{len(planned)} runs, {len(todo)} to do")


@contextmanager
def _watch(todo: list[tuple[Planned, Run]], display: Progress) -> Iterator[None]:
    """Reads the runs' own folders while launchers work in whatever process, and shows what it sees."""
    stop = threading.Event()

    def look() -> None:
        open_runs, done = dict(enumerate(todo)), 0
        while True:
            last = stop.is_set()
            completed = float(done)
            for place, (one, run) in list(open_runs.items()):
                line = _ended(run)
                if line is not None:
                    del open_runs[place]
                    done += _steps(one)
                    completed += _steps(one)
                    display.say(f"{len(todo) - len(open_runs)} of {len(todo)}  {line}")
                else:
                    rows = read_metrics(run.folder)
                    completed += int(rows[-1]["step"]) if rows else 0
            display.update(completed, f"{len(todo) - len(open_runs)} of {len(todo)} runs")
            if last:
                return
            stop.wait(POLL_SECONDS)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _ended(run: Run) -> str | None:
    record = run.record()
    if record is not None:
        accuracy = record["test_accuracy"]
        return f"{run.id}: " + (
            f"{100 * accuracy:.1f} %, {record['train_seconds']:.0f} s" if accuracy is not None else "diverged"
        )
    failure = _failure(run)
    return f"{run.id}: failed, {failure}" if failure else None


def _conclude(runs: dict[str, Run]) -> None:
    records = {name: run.record() for name, run in runs.items()}
    finished = sum(record is not None and record["status"] == "finished" for record in records.values())
    diverged = [name for name, record in records.items() if record is not None and record["status"] == "diverged"]
    failed = {
        name: _failure(runs[name]) or runs[name].held() or "lost: its process was killed"
        for name, record in records.items()
        if record is None
    }
    print(f"{finished} of {len(runs)} runs finished")
    lines = [f"{name} diverged" for name in diverged]
    lines += [f"{name}: {reason} (in {runs[name].folder})" for name, reason in failed.items()]
    if lines:
        hint = "; retry_failed=true tries the failed ones again" if failed else ""
        raise RunFailed("\n  ".join([f"{len(lines)} runs did not finish{hint}", *lines]))
