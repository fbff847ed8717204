"""Faults from outside, as a user's machine makes them: kills at random moments, a full disk, two processes at once."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import process
from tests.training.test_train import assert_same_run, folder

pytestmark = pytest.mark.slow

DATA = ["data.train_images=200", "data.test_images=50"]
WORDS = ["train", *DATA, "optim.steps=60", "optim.batch_size=16", "eval_every=3", "machine.threads=1"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from vitbench.cli import main; main()", *words]


@pytest.mark.parametrize("model", ["vit", "resnet"])
def test_a_run_killed_again_and_again_ends_like_one_that_was_not(tmp_path: Path, model: str) -> None:
    words = [*WORDS, f"model={model}", "augment=light"]
    assert subprocess.run(command(*words, "runs=whole"), cwd=tmp_path, capture_output=True).returncode == 0
    moments = random.Random(0)
    kills = 0
    while kills < 4:
        child = process(*words, "runs=killed", cwd=tmp_path)
        metrics = list((tmp_path / "killed").glob("*/metrics.csv"))
        before = metrics[0].stat().st_size if metrics else 0
        while child.poll() is None:  # wait for a first new line, then strike anywhere in the loop or the writes
            metrics = list((tmp_path / "killed").glob("*/metrics.csv"))
            if metrics and metrics[0].stat().st_size > before:
                time.sleep(moments.uniform(0, 0.25))
                break
            time.sleep(0.01)
        child.kill()
        child.communicate()
        if child.returncode == 0:
            break
        kills += 1
    assert kills >= 3
    assert subprocess.run(command(*words, "runs=killed"), cwd=tmp_path, capture_output=True).returncode == 0
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "killed"))


def test_a_size_limit_stops_training_with_exit_4_and_the_run_resumes(tmp_path: Path) -> None:
    """The kernel refuses the write, because RLIMIT_FSIZE is below the size of a state; no function is patched."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))

    assert subprocess.run(command(*WORDS, "runs=whole"), cwd=tmp_path, capture_output=True).returncode == 0
    done = subprocess.run(command(*WORDS, "runs=r"), cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 4
    assert "state.safetensors" in done.stderr and "File too large" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("r/*/.*.tmp"))
    assert subprocess.run(command(*WORDS, "runs=r"), cwd=tmp_path, capture_output=True).returncode == 0
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "r"))


def can_mount(place: Path) -> bool:
    place.mkdir(exist_ok=True)
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    except FileNotFoundError:
        return False
    return mounted.returncode == 0


def test_a_full_disk_keeps_the_state_before_and_the_run_resumes_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    if not can_mount(disk):
        pytest.skip("a 3 MB disk needs root and mount")
    try:
        full = subprocess.run(command(*WORDS, f"runs={disk}"), cwd=tmp_path, capture_output=True, text=True)
        assert full.returncode == 4 and "No space left on device" in full.stderr and full.stderr.count("\n") == 1
        assert (folder(disk) / "state.safetensors").exists() and not list(folder(disk).glob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
        assert subprocess.run(command(*WORDS, f"runs={disk}"), cwd=tmp_path, capture_output=True).returncode == 0
        assert subprocess.run(command(*WORDS, "runs=whole"), cwd=tmp_path, capture_output=True).returncode == 0
        assert_same_run(folder(tmp_path / "whole"), folder(disk))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        refused = subprocess.run(
            command(*WORDS, "seed=1", f"runs={disk}"), cwd=tmp_path, capture_output=True, text=True
        )
        assert refused.returncode == 4 and "Read-only file system" in refused.stderr
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_eight_processes_on_one_run_do_it_once(tmp_path: Path) -> None:
    children = [process(*WORDS, "runs=r", cwd=tmp_path) for _ in range(8)]
    outputs = [child.communicate() for child in children]
    codes = [child.returncode for child in children]
    assert set(codes) <= {0, 75} and codes.count(0) >= 1
    held = [errors for (_, errors), code in zip(outputs, codes, strict=True) if code == 75]
    assert all("is held by process" in errors and errors.count("\n") == 1 for errors in held)
    assert json.loads((folder(tmp_path / "r") / "record.json").read_text())["status"] == "finished"


def test_a_sweep_that_is_killed_and_repeated_does_no_run_twice(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=none,rope seed=0,1']")
    words = ["sweep", "study=small.yaml", *WORDS[1:], "runs=r", "hydra/launcher=joblib"]
    created: dict[str, str] = {}
    for _ in range(3):
        child = process(*words, cwd=tmp_path, start_new_session=True)
        time.sleep(9)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        for path in (tmp_path / "r").glob("*/record.json"):
            record = json.loads(path.read_text())
            assert created.setdefault(record["id"], record["created"]) == record["created"]
    done = subprocess.run(command(*words), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "4 of 4 runs finished" in done.stdout
    for path in (tmp_path / "r").glob("*/record.json"):
        record = json.loads(path.read_text())
        assert created.get(record["id"], record["created"]) == record["created"]


def test_ctrl_c_twice_stops_at_once_and_tears_nothing(tmp_path: Path) -> None:
    words = [*WORDS, "eval_every=1", "runs=r"]
    words.remove("eval_every=3")
    child = process(*words, cwd=tmp_path)
    while not list((tmp_path / "r").glob("*/state.safetensors")):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130 and "Traceback" not in errors
    assert subprocess.run(command(*words), cwd=tmp_path, capture_output=True).returncode == 0


def test_no_home_no_locale_and_a_closed_pipe_are_no_obstacle(tmp_path: Path) -> None:
    inherited = {key: os.environ[key] for key in ("PATH", "VITBENCH_CACHE")}
    environment = inherited | {"LC_ALL": "C", "COLUMNS": "20"}
    done = subprocess.run(command(*WORDS, "runs=r"), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    table = subprocess.run(command("table", "runs=r"), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert table.returncode == 0 and "vit" in table.stdout
    pipe = subprocess.run(
        f"{' '.join(map(repr, command('table', 'runs=r', 'format=json')))} | head -1",
        shell=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in pipe.stderr


def test_a_killed_worker_does_not_end_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=none,rope seed=0,1']")
    words = [word for word in WORDS if not word.startswith("optim.steps")] + ["optim.steps=150"]
    child = process("sweep", "study=small.yaml", *words[1:], "runs=r", "hydra/launcher=joblib", cwd=tmp_path)
    while not (at_work := list((tmp_path / "r").glob("*/.holder.json"))):
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    time.sleep(1)
    worker = json.loads(at_work[0].read_text())["pid"]
    os.kill(worker, signal.SIGKILL)
    out, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    assert "4 of 4 runs finished" in out and "a worker process was killed" in errors


def test_a_terminated_sweep_saves_and_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=none,rope seed=0,1']")
    endless = ["optim.steps=100000", "eval_every=100000"]  # such a run saves only after a signal
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    words = ["study=small.yaml", *DATA, "machine.threads=1", *endless, "runs=r", *launcher]
    child = process("sweep", *words, cwd=tmp_path, start_new_session=True)
    while len(begun := list((tmp_path / "r").glob("*/config.yaml"))) < 2:
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    terminate(child)
    assert all((path.parent / "state.safetensors").exists() for path in begun)


def terminate(child: subprocess.Popen[str]) -> None:
    """Ends a sweep, the leader of its session, by SIGTERM: in 10 s it has saved, says so, and no process is left."""
    time.sleep(2)  # until its runs are in their loops
    begin = time.monotonic()
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    assert child.returncode == 75 and "stopped and saved; repeat the command to continue" in errors, errors
    assert "Traceback" not in errors and "resource_tracker" not in errors and "was killed" not in errors
    while left := alive(session=child.pid):
        assert time.monotonic() - begin < 10, left


def alive(session: int) -> list[str]:
    """The processes of a session that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process may end between the two
            state, _, _, of, *_ = (path / "stat").read_text().rpartition(")")[2].split()
            if int(of) == session and state != "Z":
                found.append((path / "cmdline").read_text())
    return found
