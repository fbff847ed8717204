"""The submitit launchers: runs as jobs in SLURM's queue, or as processes here. A run is judged by its folder alone.

hydra-submitit-launcher brings the settings (`hydra.launcher.partition=gpu`) and what a job does. Its own `launch` is not
used: it waits for ever for a job that was killed where SLURM keeps no accounts, and can't return before the jobs end.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import storage, write
from vitbench.machine.provenance import cores, now
from vitbench.runs.run import Run
from vitbench.sweeping.launch import POLL_SECONDS, Hand

QUEUE_SECONDS = 5.0  # between two looks at SLURM's queue
SILENT_SECONDS = 600.0  # after that a SLURM that does not answer has no jobs
MEMORY = ".submitit"  # folder among the runs: what was submitted, and the jobs' output


class Queue:
    """The jobs of a sweep in SLURM."""

    def __init__(self, launcher: Any, jobs: Mapping[str, list[str]], runs: Mapping[str, Run]):
        self.launcher, self.jobs, self.runs = launcher, jobs, runs
        self.folder = next(iter(runs.values())).folder.parent / MEMORY
        if shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=submitit_slurm: there is no sbatch here; it is for a SLURM cluster's login node"
            )

    def submit(self, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Which of the runs were in the queue before, and those put there now, with their jobs; all in one array, or none."""
        there = queued(self.folder)
        before = {name: there[name] for name in names if name in there}
        new = [name for name in names if name not in before and not self.runs[name].held()]
        if not new:
            return before, {}
        folder = self.folder / f"{now().replace(':', '')}-{os.getpid()}"
        try:
            with redirect_stderr(io.StringIO()):  # submitit repeats what sbatch says, beside raising it
                jobs = _submit(self.launcher, folder, [self.jobs[name] for name in new])
        except (RuntimeError, ValueError, TypeError) as error:  # submitit's, for what sbatch or itself refused
            shutil.rmtree(folder, ignore_errors=True)
            lines = [line for line in str(error).splitlines() if line.strip()]
            refusal = next((line for line in lines if "error:" in line), lines[0] if lines else repr(error))
            raise UserError(f"hydra/launcher=submitit_slurm: nothing was submitted: {refusal.strip()}") from None
        ids = {name: str(job.job_id) for name, job in zip(new, jobs, strict=True)}
        write(folder / "jobs.json", json.dumps(ids, indent=1).encode())
        return before, ids

    def hand(self, ended: Callable[[Run], str | None], say: Callable[[str], None]) -> Hand:
        """Submits, and waits until every run has ended or its job has left the queue without it."""

        def hand(names: list[str]) -> dict[str, str]:
            before, new = self.submit(names)
            say(submitted(names, before, new))
            return self._wait({name: self.runs[name] for name in names}, before | new, ended)

        return hand

    def _wait(self, left: dict[str, Run], jobs: dict[str, str], ended: Callable[[Run], str | None]) -> dict[str, str]:
        missed: dict[str, int] = {}
        lost: dict[str, str] = {}
        heard = time.monotonic()
        while True:
            left = {name: run for name, run in left.items() if ended(run) is None and name not in lost}
            if not left:
                return lost
            live = _live()
            if live is not None:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENT_SECONDS:
                live = set()
            for name, run in left.items():
                if live is None or jobs.get(name) in live or run.held() or ended(run) is not None:
                    missed.pop(name, None)
                else:  # twice, because a shared file system shows a record late
                    missed[name] = missed.get(name, 0) + 1
                    if missed[name] > 1:
                        lost[name] = (
                            f"lost: job {jobs.get(name, '')} left SLURM's queue before it was finished; repeating the"
                            " command goes on"
                        )
            time.sleep(QUEUE_SECONDS)


def submitted(names: Sequence[str], before: Mapping[str, str], new: Mapping[str, str]) -> str:
    """A line on the runs of these names, after `submit`."""
    array = {job.partition("_")[0] for job in new.values()}
    said = [f"{len(new)} runs submitted as job {' '.join(array)}" if new else "no run submitted"]
    if before:
        said.append(f"{len(before)} were in the queue before")
    if elsewhere := len(names) - len(before) - len(new):
        said.append(f"{elsewhere} {'is' if elsewhere == 1 else 'are'} held by other processes")
    return "; ".join(said)


def queued(folder: Path) -> dict[str, str]:
    """The runs that wait or work in SLURM, with their jobs, of all that sweeps in this folder of runs submitted."""
    noted: dict[str, str] = {}
    for path in sorted(folder.glob("*/jobs.json")):
        with suppress(OSError, ValueError):
            noted |= json.loads(path.read_bytes())
    live = (_live() or set()) if noted else set()
    return {name: job for name, job in noted.items() if job in live}


def _live() -> set[str] | None:
    """This user's jobs that have not ended, an array's one by one; None where SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(answer.stdout.split()) if answer.returncode == 0 else None


def requeue() -> None:
    """Within a job that saved after a signal: lets SLURM start it again, where it is not ending it for good.

    A cancelled job is no longer RUNNING then, and one that SLURM preempts in order to requeue it comes back by itself.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return
    job = os.environ["SLURM_JOB_ID"]
    with suppress(OSError, subprocess.TimeoutExpired):
        state = subprocess.run(
            ["squeue", "--noheader", "--jobs", job, "--format", "%T"], capture_output=True, text=True, timeout=30
        )
        if state.stdout.split() == ["RUNNING"]:
            subprocess.run(["scontrol", "requeue", job], capture_output=True, timeout=30)


def local(launcher: Any, jobs: Mapping[str, list[str]], runs: Mapping[str, Run]) -> Hand:
    """As processes of submitit's here, as many at a time as the cores allow."""
    folder = next(iter(runs.values())).folder.parent / MEMORY / "local"
    at_once = processes(launcher.params)

    def hand(names: list[str]) -> dict[str, str]:
        waiting: list[str] = list(names)
        at_work: list[Any] = []
        try:
            while waiting or at_work:
                at_work = [job for job in at_work if not job.done()]
                if waiting and len(at_work) < at_once:
                    at_work.extend(_submit(launcher, folder, [jobs[waiting.pop(0)]]))
                else:
                    time.sleep(POLL_SECONDS)
        finally:  # after a signal, when what held a run has saved
            for job in at_work:
                controller = int(job.job_id)
                with suppress(OSError):
                    tasks = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
                    for process in (controller, *map(int, tasks)):
                        os.kill(process, signal.SIGKILL)
                while not job.done():
                    time.sleep(0.05)
        return {}

    return hand


def processes(settings: Any) -> int:
    """How many runs submitit_local does at a time."""
    return max(1, cores() // (settings.get("cpus_per_task") or 1))


def _submit(launcher: Any, folder: Path, jobs: list[list[str]]) -> list[Any]:
    """As the launcher's own `launch` does, without its wait."""
    import submitit
    from hydra.core.singleton import Singleton
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    cluster, common = launcher._EXECUTOR, BaseQueueConf.__dataclass_fields__
    settings = {
        key: value for key, value in launcher.params.items() if key not in ("submitit_folder", "max_num_timeout")
    }
    if settings["name"] == launcher.config.hydra.job.name:
        settings["name"] = "vitbench"
    executor = submitit.AutoExecutor(folder=folder / "%j", cluster=cluster)
    executor.update_parameters(
        **{key if key in common else f"{cluster}_{key}": value for key, value in settings.items()}
    )
    state = Singleton.get_state()
    arguments = [(words, "hydra.sweep.dir", place, str(place), state) for place, words in enumerate(jobs)]
    return executor.map_array(launcher, *zip(*arguments, strict=True))
