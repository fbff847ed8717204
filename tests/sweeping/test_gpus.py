"""`hydra/launcher=gpus`: each process sees one GPU, also in place of a killed one. No GPU is needed to show that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY_32, Output, process
from tests.training.test_faults import DATA, terminate
from vitbench.errors import UserError
from vitbench.sweeping.gpus import slots
from vitbench.training.checkpoint import load_tensors

Cli = Callable[..., Output]
ON_TWO = ["hydra/launcher=gpus", "hydra.launcher.devices=[0,1]", "machine.device=cpu"]
GRID = "runs: ['model=vit pe=none,rope seed=0,1']"


def launcher(devices: Any = None, per_gpu: Any = 1) -> dict[str, Any]:
    return {"devices": devices, "per_gpu": per_gpu}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def there_are(count: int, variable: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        if variable is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)

    return there_are


def test_per_gpu_slots_share_one_gpu_and_the_first_slots_have_different_ones() -> None:
    assert slots(launcher([0, 1], 2), ["cpu"]) == ["0", "1", "0", "1"]
    assert slots(launcher("GPU-8c187a6b"), ["cpu", "cpu"]) == ["GPU-8c187a6b"]


def test_all_gpus_are_taken_that_the_sweep_itself_may_see(gpus: Callable[..., None]) -> None:
    gpus(2)
    assert slots(launcher(), ["auto"]) == ["0", "1"]
    gpus(2, "GPU-8c187a6b, 5")
    assert slots(launcher(per_gpu=2), ["cuda"]) == ["GPU-8c187a6b", "5", "GPU-8c187a6b", "5"]
    assert slots(launcher([5]), ["cuda"]) == ["5"]
    gpus(1, "3,17")  # there is no 17, so CUDA sees 3 alone
    assert slots(launcher(), ["auto"]) == ["3"]


@pytest.mark.parametrize(
    ("typed", "devices", "there", "line"),
    [
        (launcher(), {"auto"}, (0,), "hydra/launcher=gpus: no GPU was found here; on a CPU use hydra"),
        (launcher([0, 1]), {"cuda"}, (0,), "hydra/launcher=gpus: no GPU was found here; on a CPU use hydra"),
        (launcher(), {"auto"}, (0, ""), "no GPU was found here with CUDA_VISIBLE_DEVICES=; on a CPU use"),
        (launcher(per_gpu=0), {"auto"}, (1,), "hydra.launcher.per_gpu=0: must be 1 or more processes on each GPU"),
        (launcher(per_gpu=0.5), {"auto"}, (1,), "hydra.launcher.per_gpu=0.5: must be 1 or more"),
        (
            launcher(),
            {"cuda:1"},
            (2,),
            "machine.device=cuda:1: .* or type hydra.launcher.devices=\\[1\\] to use only that GPU",
        ),
        (launcher(), {"cpu"}, (2,), "machine.device=cpu: hydra/launcher=gpus is for GPUs; hydra/launcher=joblib is"),
        (launcher([0, 7]), {"auto"}, (2,), "hydra.launcher.devices=\\[0,7\\]: 7 is none of the GPUs .* here: 0, 1"),
        (launcher([0]), {"auto"}, (2, "4,5"), "hydra.launcher.devices=\\[0\\]: 0 is none of the GPUs .* here: 4, 5"),
        (launcher([0, 0]), {"cpu"}, (0,), "hydra.launcher.devices=\\[0,0\\]: must be GPUs by .*, each once"),
        (launcher([]), {"cpu"}, (0,), "hydra.launcher.devices=\\[\\]: must be GPUs"),
        (launcher("all"), {"cpu"}, (0,), "hydra.launcher.devices=\\[all\\]: must be GPUs"),
    ],
)
def test_what_cannot_be_is_one_line(
    gpus: Callable[..., None], typed: dict[str, Any], devices: set[str], there: tuple[Any, ...], line: str
) -> None:
    gpus(*there)
    with pytest.raises(UserError, match=line) as error:
        slots(typed, devices)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_a_sweep_is_refused_before_anything_is_begun(vitbench: Cli, tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(0)
    (tmp_path / "small.yaml").write_text(GRID)
    for words in ([], ["hydra.launcher.per_gpu=0"], ["machine.device=cuda:1"]):
        output = vitbench("sweep", "study=small.yaml", *TINY_32, "runs=r", "hydra/launcher=gpus", *words)
        assert output.code == 2 and output.err.count("\n") == 1 and not list(tmp_path.glob("*/"))
    alone = vitbench("train", "-m", "seed=0,1", *TINY_32, "runs=r", "hydra/launcher=gpus")
    assert alone.code == 2 and "hydra/launcher=gpus: no GPU was found here" in alone.err


def test_a_study_can_be_listed_where_no_gpu_is(vitbench: Cli, tmp_path: Path, gpus: Callable[..., None]) -> None:
    gpus(0)
    (tmp_path / "small.yaml").write_text(GRID)
    output = vitbench("sweep", "study=small.yaml", *TINY_32, "runs=r", "hydra/launcher=gpus", "dry_run=true")
    assert output.code == 0 and "4 runs, 4 to do" in output.out, output.err


def test_the_time_that_is_left_is_divided_by_the_slots(vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(GRID)
    assert vitbench("sweep", "study=small.yaml", *TINY_32, "runs=r", "seed=0").code == 0
    plan = vitbench(
        "sweep", "study=small.yaml", *TINY_32, "runs=r", *ON_TWO, "hydra.launcher.per_gpu=3", "dry_run=true"
    )
    assert ", 2 at a time, by the runs recorded in r" in plan.out  # two are left, and there are six slots


TAKES_A_SLOT = """
import os, sys
from pathlib import Path
from vitbench.sweeping.gpus import take_slot
for _ in range(2):  # the second run of a process
    take_slot(Path(sys.argv[1]), sys.argv[2:])
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.read()
"""


@contextmanager
def taking_a_slot(folder: Path, *gpus: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has taken a slot, and the GPU that it sees."""
    command = [sys.executable, "-c", TAKES_A_SLOT, str(folder), *gpus]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            yield child, child.stdout.readline().strip()
        finally:
            child.kill()


def test_each_process_takes_one_slot_and_that_of_a_killed_one_is_taken_again(tmp_path: Path) -> None:
    gpus = ("0", "1", "0", "1")
    with (
        taking_a_slot(tmp_path, *gpus) as (_, first),
        taking_a_slot(tmp_path, *gpus) as (killed, second),
        taking_a_slot(tmp_path, *gpus) as (_, third),
        taking_a_slot(tmp_path, *gpus) as (_, fourth),
    ):
        assert [first, second, third, fourth] == ["0", "1", "0", "1"]
        killed.kill()
        with taking_a_slot(tmp_path, *gpus) as (_, fifth):
            assert fifth == second
    taken = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sorted(one["slot"] for one in taken) == [0, 1, 1, 2, 3] and len({one["pid"] for one in taken}) == 5
    assert all(one["device"] == gpus[one["slot"]] for one in taken)


def sweep(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """A sweep on two GPUs, which are not there, with its slots in `slots` and one thread a process."""
    (tmp_path / "small.yaml").write_text(GRID)
    (tmp_path / "slots").mkdir(exist_ok=True)
    environment = os.environ | {"TMPDIR": str(tmp_path / "slots")}
    words = ("sweep", "study=small.yaml", *DATA, "optim.batch_size=16", "runs=r", *ON_TWO, *words)
    return process(*words, cwd=tmp_path, env=environment, start_new_session=True)


def slots_taken(tmp_path: Path) -> dict[int, tuple[int, str]]:
    """By process, the slot and the GPU that it took."""
    files = [json.loads(path.read_text()) for path in tmp_path.glob("slots/vitbench-gpus-*/*.json")]
    return {one["pid"]: (one["slot"], one["device"]) for one in files}


def at_work(tmp_path: Path, seen: dict[str, set[int]]) -> None:
    """Adds to `seen`, for each run, the process that holds it now."""
    for path in tmp_path.glob("r/*/.holder.json"):
        try:
            seen.setdefault(path.parent.name, set()).add(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):
            continue  # the run has just ended


@pytest.mark.slow
def test_a_sweep_trains_each_run_on_one_gpu_and_goes_on_after_a_worker_was_killed(tmp_path: Path) -> None:
    child = sweep(tmp_path, "optim.steps=80", "eval_every=5")
    processes: dict[str, set[int]] = {}
    slot_of: dict[int, tuple[int, str]] = {}
    killed: int | None = None
    while child.poll() is None:
        at_work(tmp_path, processes)
        slot_of |= slots_taken(tmp_path)
        if killed is None and len(slot_of) == 2 and len(list(tmp_path.glob("r/*/state.safetensors"))) == 2:
            killed = next(pid for pid, (slot, _) in slot_of.items() if slot == 1)
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    out, errors = child.communicate()
    assert child.returncode == 0 and "4 of 4 runs finished" in out, errors
    assert "a worker process was killed" in errors and killed is not None
    assert {pid for its in processes.values() for pid in its} <= set(slot_of)  # no process trained without a slot
    others = {pid: taken for pid, taken in slot_of.items() if pid != killed}
    assert set(slot_of.values()) == set(others.values()) == {(0, "0"), (1, "1")}
    assert not list(tmp_path.glob("slots/vitbench-gpus-*"))


@pytest.mark.slow
def test_a_terminated_sweep_saves_its_runs_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    steps: list[dict[str, int]] = []  # at which each run was saved
    for _ in range(2):
        begin = time.time()
        child = sweep(tmp_path, "optim.steps=100000", "eval_every=100000")  # such a run saves only after a signal
        while sum(path.stat().st_mtime > begin for path in tmp_path.glob("r/*/config.yaml")) < 2:
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        terminate(child)
        steps.append(
            {path.parent.name: load_tensors(path)[1]["step"] for path in tmp_path.glob("r/*/state.safetensors")}
        )
    first, second = steps
    assert len(first) == 2 and set(first) == set(second) and all(second[run] > first[run] for run in first)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=1"],
        ["hydra/launcher=gpus", "hydra.launcher.devices=[0]", "machine.device=cpu"],
    ],
    ids=["joblib", "gpus"],
)
def test_a_sweep_of_one_process_is_stopped_by_a_signal_too(tmp_path: Path, launcher: list[str]) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=none seed=0,1']")
    words = [word for word in TINY_32 if not word.startswith(("optim.steps", "eval_every"))]
    endless = ["optim.steps=100000", "eval_every=100000"]
    command = ["sweep", "study=small.yaml", *words, *endless, "runs=r", *launcher]
    child = process(*command, cwd=tmp_path, start_new_session=True)
    while not list(tmp_path.glob("r/*/config.yaml")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    terminate(child)
    assert len(list(tmp_path.glob("r/*/state.safetensors"))) == 1


@pytest.mark.slow
def test_one_run_before_others_leaves_the_slots_to_them(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "runs: ['model=vit pe=none seed=0', 'model=vit pe=none init=seed=0 seed=1,2,3']"
    )
    child = process("sweep", "study=small.yaml", *TINY_32, "runs=r", *ON_TWO, cwd=tmp_path)
    out, errors = child.communicate(timeout=300)
    assert child.returncode == 0 and "4 of 4 runs finished" in out, errors
