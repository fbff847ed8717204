"""The submitit launchers at work: with processes here, and with a SLURM cluster of one node where that can be started.

These tests run in one process (`--dist loadgroup`), because the cluster takes fixed ports.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import TINY_32, Output, process
from tests.training.test_faults import alive
from vitbench.runs import run
from vitbench.runs.run import read_metrics
from vitbench.settings.overrides import explain
from vitbench.sweeping import slurm

pytestmark = pytest.mark.xdist_group("slurm")

Cli = Callable[..., Output]
SLURM = "hydra/launcher=submitit_slurm"
WORDS = [*TINY_32[:2], "optim.batch_size=16", "runs=r", "study=small.yaml"]
ENDLESS = [*WORDS, "optim.steps=100000", "eval_every=100000", SLURM]  # such a run saves only after a signal
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "slurmdbd", "mariadbd")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge slurmdbd mariadb-server")
    if os.geteuid() != 0:
        pytest.skip("a SLURM node needs root")
    folder = tmp_path_factory.mktemp("slurm")
    for parent in folder.parents:  # pytest lets nobody else in, and munge and MariaDB have users of their own
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    script = [str(Path(__file__).with_name("slurm.sh"))]
    before = os.environ.get("SLURM_CONF")
    subprocess.run([*script, "up", str(folder), getattr(request, "param", "none")], check=True, timeout=120)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield folder
    finally:
        subprocess.run(["scancel", "--user=root", "--signal=KILL", "--full"], check=False)
        subprocess.run([*script, "down", str(folder)], check=True, timeout=120)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], None]:
    return lambda line: (tmp_path / "small.yaml").write_text(f"runs: ['{line}']") and None


def held(tmp_path: Path, sweep: subprocess.Popen[str], but: int = 0) -> int:
    """Waits until a process other than `but` trains the only run, and returns it."""
    while True:
        assert sweep.poll() is None, sweep.communicate()
        for path in tmp_path.glob("r/*/.holder.json"):
            with suppress(FileNotFoundError):  # `config.yaml` comes after it
                holder = int(json.loads(path.read_text())["pid"])
                if holder != but and (path.parent / "config.yaml").stat().st_mtime > path.stat().st_mtime:
                    time.sleep(3)
                    return holder
        time.sleep(0.1)


def job(tmp_path: Path) -> str:
    (path,) = tmp_path.glob("r/.submitit/*/jobs.json")
    return str(*json.loads(path.read_text()).values())


@pytest.mark.slow
def test_six_runs_are_submitted_once_and_waited_for(cluster: Path, vitbench: Cli, tmp_path: Path, small) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none,rope,learned seed=0,1")
    words = ["sweep", *WORDS, "optim.steps=6", SLURM]
    first = vitbench(*words, "wait=false")
    assert first.code == 0 and first.out.startswith("6 runs were submitted as job ")
    again = vitbench(*words, "wait=false")
    # on a slow machine some of the six have ended by now
    assert again.code == 0 and re.fullmatch(r"no run was submitted; [1-6] were in the queue before\n", again.out)
    planned = vitbench(*words, "dry_run=true").out
    assert re.search(r"6 runs, [0-6] to do: [0-6] finished, 0 failed, .*\b0 missing\n", planned), planned
    waited = vitbench(*words)
    assert waited.code == 0 and waited.out == "6 of 6 runs finished\n", waited.err
    assert len(list(tmp_path.glob("r/.submitit/*/jobs.json"))) == 1
    assert vitbench(*words, "wait=false").out == "6 of 6 runs finished\n"


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["none", "slurmdbd"], indirect=True)
def test_a_killed_job_is_lost_and_never_waited_for(cluster: Path, tmp_path: Path, small) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none seed=0")
    sweep = process("sweep", *ENDLESS, cwd=tmp_path)
    os.kill(held(tmp_path, sweep), signal.SIGKILL)
    _, errors = sweep.communicate(timeout=90)
    assert sweep.returncode == 1
    assert f"lost: job {job(tmp_path)} left SLURM's queue" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_a_preempted_job_saves_and_goes_on_in_the_same_folder(cluster: Path, tmp_path: Path, small) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none seed=0")
    words = [word for word in ENDLESS if not word.startswith(("optim.steps", "eval_every"))]
    sweep = process("sweep", *words, "optim.steps=400", "eval_every=400", cwd=tmp_path)
    first = held(tmp_path, sweep)
    subprocess.run(["scancel", "--signal=TERM", job(tmp_path)], check=True)  # SLURM sends it before it preempts a job
    second = held(tmp_path, sweep, but=first)
    states = list(tmp_path.glob("r/*/state.safetensors"))
    subprocess.run(["scontrol", "requeue", job(tmp_path)], check=True)
    out, errors = sweep.communicate(timeout=180)
    assert sweep.returncode == 0 and out == "1 of 1 runs finished\n", errors
    assert len(states) == 1 and second != first
    (run,) = (path.parent for path in tmp_path.glob("r/*/record.json"))
    assert [int(row["step"]) for row in read_metrics(run)] == [400]
    log = "".join(path.read_text() for path in tmp_path.glob("r/.submitit/*/*/*_log.err"))
    assert log.count(f"{run.name}: saved at step ") == 2


@pytest.mark.slow
@pytest.mark.parametrize("word", ["hydra.launcher.partition=nope", "hydra.launcher.gpus_per_node=1"])
def test_a_rejected_job_is_one_line_and_leaves_nothing(
    cluster: Path, vitbench: Cli, tmp_path: Path, small, word: str
) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none seed=0,1")

    def jobs() -> set[str]:
        return set(subprocess.run(["squeue", "-h", "-o", "%A"], capture_output=True, text=True).stdout.split())

    before = jobs()  # a job of an earlier test may still be ending
    output = vitbench("sweep", *ENDLESS, word, "wait=false")
    assert output.code == 2 and output.err.count("\n") == 1 and "nothing was submitted: sbatch: " in output.err
    assert not list((tmp_path / "r" / ".submitit").glob("*"))
    assert jobs() <= before


def test_without_sbatch_nothing_is_begun(vitbench: Cli, tmp_path: Path, small, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none seed=0")
    monkeypatch.setenv("PATH", str(tmp_path))
    output = vitbench("sweep", *ENDLESS)
    assert output.code == 2 and output.err.splitlines()[-1].startswith(f"vitbench: {SLURM}: this machine has no sbatch")
    assert not list(tmp_path.glob("r/[!.]*"))


def test_wait_false_needs_a_queue(vitbench: Cli, small) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none seed=0")
    output = vitbench("sweep", *WORDS, "wait=false", "hydra/launcher=joblib")
    assert output.code == 2 and "wait=false: needs hydra/launcher=submitit_slurm" in output.err


def test_without_the_extra_one_line_names_it() -> None:
    from hydra.errors import MissingConfigException

    missing = MissingConfigException("", "hydra/launcher/submitit_slurm", ["basic", "joblib"])
    assert str(explain(missing, "sweep", [SLURM])).endswith("pip install 'vitbench[slurm]'")


def test_runs_of_other_studies_in_the_queue_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_live_jobs", lambda: {"7_0", "8_0", "8_1"})
    monkeypatch.setattr(shutil, "which", lambda name: name)
    for array, names in (("7", ["vit-1"]), ("8", ["vit-2", "vit-3"])):
        (tmp_path / slurm.JOBS_FOLDER / array).mkdir(parents=True)
        noted = {name: f"{array}_{place}" for place, name in enumerate(names)}
        (tmp_path / slurm.JOBS_FOLDER / array / "jobs.json").write_text(json.dumps(noted))
    before, new = slurm.Queue(None, {}, {"vit-1": run.Run(tmp_path / "vit-1", {})}).submit(["vit-1"])
    assert (before, new) == ({"vit-1": "7_0"}, {})


def test_wait_false_returns_where_others_hold_every_run(
    vitbench: Cli, tmp_path: Path, small: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    small("model=vit pe=none seed=0")
    monkeypatch.setattr(slurm, "_live_jobs", set)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    name = vitbench("sweep", *ENDLESS, "dry_run=true").out.split()[0]
    with run.Run(tmp_path / "r" / name, {}).claim():
        output = vitbench("sweep", *ENDLESS, "wait=false")
    assert (output.code, output.out) == (0, "no run was submitted; 1 is held by other processes\n"), output.err


@pytest.mark.parametrize("answer", [None, set()], ids=["silent", "empty"])
def test_a_slurm_that_does_not_answer_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: set[str] | None
) -> None:
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.01)
    monkeypatch.setattr(slurm, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(slurm, "_live_jobs", lambda: answer)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    held = run.Run(tmp_path / "vit-1", {})
    lost = slurm.Queue(None, {}, {"vit-1": held})._wait({"vit-1": held}, {"vit-1": "7_0"}, lambda run: None)
    assert lost["vit-1"].startswith("lost: job 7_0 left SLURM's queue")


@pytest.mark.slow
def test_local_jobs_run_and_a_killed_one_is_started_again(tmp_path: Path, small) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none,rope seed=0")
    words = [*WORDS, "optim.steps=100", "eval_every=10", "hydra/launcher=submitit_local"]
    sweep = process("sweep", *words, cwd=tmp_path)
    os.kill(held(tmp_path, sweep), signal.SIGKILL)
    out, errors = sweep.communicate(timeout=180)
    assert sweep.returncode == 0 and out == "2 of 2 runs finished\n", errors


@pytest.mark.slow
def test_a_terminated_sweep_of_local_jobs_saves_and_leaves_none_behind(tmp_path: Path, small) -> None:  # type: ignore[no-untyped-def]
    small("model=vit pe=none,rope seed=0")
    words = [*ENDLESS[:-1], "hydra/launcher=submitit_local"]
    sweep = process("sweep", *words, cwd=tmp_path, start_new_session=True)
    held(tmp_path, sweep)
    sweep.send_signal(signal.SIGTERM)
    _, errors = sweep.communicate(timeout=20)
    assert sweep.returncode == 75 and "repeat the command to continue" in errors and "Traceback" not in errors
    assert list(tmp_path.glob("r/*/state.safetensors"))
    end = time.monotonic() + 5
    while left := alive(session=sweep.pid):
        assert time.monotonic() < end, left
