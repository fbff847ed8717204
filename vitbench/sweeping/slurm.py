"""The submitit launchers: they do runs as jobs in SLURM's queue, or as processes on this machine.

A run's folder says whether the run has ended; its job does not. hydra-submitit-launcher brings the settings
(`hydra.launcher.partition=gpu`) and what a job does. Its own `launch` is not used: where SLURM keeps no accounts, it
waits for ever for a job that was killed, and it cannot return before the jobs end.
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
from dataclasses import fields
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import read_json, storage, write
from vitbench.machine.provenance import cores, now
from vitbench.runs.run import Run
from vitbench.sweeping.launch import POLL_SECONDS, Execute

QUEUE_SECONDS = 5.0  # SLURM's queue is read again after so many seconds
SILENT_SECONDS = 600.0  # if SLURM has not answered for so long, we take it to have no jobs
JOBS_FOLDER = ".submitit"  # beside the runs; it holds which job has which run, and what the jobs printed


class Queue:
    """The jobs of a sweep in SLURM."""

    def __init__(self, launcher: Any, overrides: Mapping[str, list[str]], runs: Mapping[str, Run]):
        """`launcher` is the one of hydra-submitit-launcher; `overrides` and `runs` are by the id of the run."""
        self.launcher, self.overrides, self.runs = launcher, overrides, runs
        self.folder = next(iter(runs.values())).folder.parent / JOBS_FOLDER
        if shutil.which("sbatch") is None:
            raise UserError(
                "hydra/launcher=submitit_slurm: this machine has no sbatch; type it on a login node of a SLURM cluster"
            )

    def submit(self, run_ids: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Submits, as one array, the runs that no job and no process has yet.

        Returns two mappings from the id of a run to its job: jobs that were in the queue before, and new ones. Raises
        UserError where SLURM refuses; then nothing was submitted.
        """
        in_queue = queued(self.folder)
        before = {run_id: in_queue[run_id] for run_id in run_ids if run_id in in_queue}
        new = [run_id for run_id in run_ids if run_id not in before and not self.runs[run_id].held()]
        if not new:
            return before, {}
        folder = self.folder / f"{now().replace(':', '')}-{os.getpid()}"
        try:
            with redirect_stderr(io.StringIO()):  # submitit prints what sbatch says, and raises it as well
                jobs = _submit(self.launcher, "slurm", folder, [self.overrides[run_id] for run_id in new])
        except (RuntimeError, ValueError, TypeError) as error:  # submitit raises these where it or sbatch refuses
            shutil.rmtree(folder, ignore_errors=True)
            lines = [line for line in str(error).splitlines() if line.strip()]
            refusal = next((line for line in lines if "error:" in line), lines[0] if lines else repr(error))
            raise UserError(f"hydra/launcher=submitit_slurm: nothing was submitted: {refusal.strip()}") from None
        job_ids = {run_id: str(job.job_id) for run_id, job in zip(new, jobs, strict=True)}
        write(folder / "jobs.json", json.dumps(job_ids, indent=1).encode())
        return before, job_ids

    def executor(self, ended: Callable[[Run], str | None], say: Callable[[str], None]) -> Execute:
        """Returns an Execute that submits runs, and waits until each has ended or its job has left the queue."""

        def execute(run_ids: list[str]) -> dict[str, str]:
            before, new = self.submit(run_ids)
            say(submission_line(run_ids, before, new))
            return self._wait({run_id: self.runs[run_id] for run_id in run_ids}, before | new, ended)

        return execute

    def _wait(self, left: dict[str, Run], jobs: dict[str, str], ended: Callable[[Run], str | None]) -> dict[str, str]:
        """Waits until each run has ended or its job is gone; returns, by id, a line about each unfinished run."""
        times_missed: dict[str, int] = {}
        lost: dict[str, str] = {}
        last_answer = time.monotonic()
        while True:
            left = {run_id: run for run_id, run in left.items() if ended(run) is None and run_id not in lost}
            if not left:
                return lost
            live = _live_jobs()
            if live is not None:
                last_answer = time.monotonic()
            elif time.monotonic() - last_answer > SILENT_SECONDS:
                live = set()
            for run_id, run in left.items():
                if live is None or jobs.get(run_id) in live or run.held() or ended(run) is not None:
                    times_missed.pop(run_id, None)
                else:  # a shared file system can show a record late, so a run is lost only when missed twice
                    times_missed[run_id] = times_missed.get(run_id, 0) + 1
                    if times_missed[run_id] > 1:
                        lost[run_id] = (
                            f"lost: job {jobs.get(run_id, '')} left SLURM's queue before the run was finished; repeat"
                            " the command to continue"
                        )
            time.sleep(QUEUE_SECONDS)


def submission_line(run_ids: Sequence[str], before: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Says in a line what `submit` did with these runs; `before` and `new` are what it returned."""
    arrays = {job.partition("_")[0] for job in new.values()}
    clauses = [f"{len(new)} runs were submitted as job {' '.join(arrays)}" if new else "no run was submitted"]
    if before:
        clauses.append(f"{len(before)} were in the queue before")
    if elsewhere := len(run_ids) - len(before) - len(new):
        clauses.append(f"{elsewhere} {'is' if elsewhere == 1 else 'are'} held by other processes")
    return "; ".join(clauses)


def queued(folder: Path) -> dict[str, str]:
    """Returns, by the id of the run, those jobs noted in this folder that still wait or run in SLURM."""
    noted: dict[str, str] = {}
    for path in sorted(folder.glob("*/jobs.json")):
        with suppress(OSError, ValueError):
            noted |= {run_id: str(job) for run_id, job in read_json(path).items()}
    live = (_live_jobs() or set()) if noted else set()
    return {run_id: job for run_id, job in noted.items() if job in live}


def _live_jobs() -> set[str] | None:
    """Returns the ids of this user's jobs that have not ended, array jobs one by one; None if SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(answer.stdout.split()) if answer.returncode == 0 else None


def requeue() -> None:
    """Asks SLURM to start this job again, once its run has saved after a signal.

    Only a job that SLURM calls RUNNING needs that. A cancelled job shall end for good, and SLURM itself brings back a
    job that it preempted in order to requeue it.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return
    job = os.environ["SLURM_JOB_ID"]
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%T"]
    with suppress(OSError, subprocess.TimeoutExpired):
        state = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if state.stdout.split() == ["RUNNING"]:
            subprocess.run(["scontrol", "requeue", job], capture_output=True, timeout=30)


def local(launcher: Any, overrides: Mapping[str, list[str]], runs: Mapping[str, Run]) -> Execute:
    """Returns an Execute that does runs in processes which submitit starts here, as many at a time as cores allow."""
    folder = next(iter(runs.values())).folder.parent / JOBS_FOLDER / "local"
    at_once = processes(launcher.params)

    def execute(run_ids: list[str]) -> dict[str, str]:
        waiting: list[str] = list(run_ids)
        at_work: list[Any] = []
        try:
            while waiting or at_work:
                at_work = [job for job in at_work if not job.done()]
                if waiting and len(at_work) < at_once:
                    at_work.extend(_submit(launcher, "local", folder, [overrides[waiting.pop(0)]]))
                else:
                    time.sleep(POLL_SECONDS)
        finally:  # after a signal these processes are idle, because `launch` waited until their runs had saved
            for job in at_work:
                controller = int(job.job_id)
                with suppress(OSError):
                    children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
                    for process in (controller, *map(int, children)):
                        os.kill(process, signal.SIGKILL)
                while not job.done():
                    time.sleep(0.05)
        return {}

    return execute


def processes(settings: Any) -> int:
    """Returns how many runs submitit_local does at a time."""
    return max(1, cores() // (settings.get("cpus_per_task") or 1))


def _submit(launcher: Any, cluster: str, folder: Path, overrides: Sequence[list[str]]) -> list[Any]:
    """Submits a job for each list of overrides, as the launcher's own `launch` does, but does not wait for the jobs.

    `cluster` is slurm or local.
    """
    import submitit
    from hydra.core.singleton import Singleton
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    common = {field.name for field in fields(BaseQueueConf)}
    launcher_only = ("submitit_folder", "max_num_timeout")
    settings = {key: value for key, value in launcher.params.items() if key not in launcher_only}
    if settings["name"] == launcher.config.hydra.job.name:
        settings["name"] = "vitbench"
    parameters = {key if key in common else f"{cluster}_{key}": value for key, value in settings.items()}
    executor = submitit.AutoExecutor(folder=folder / "%j", cluster=cluster)
    executor.update_parameters(**parameters)
    state = Singleton.get_state()
    arguments = [(words, "hydra.sweep.dir", number, str(number), state) for number, words in enumerate(overrides)]
    return executor.map_array(launcher, *zip(*arguments, strict=True))
