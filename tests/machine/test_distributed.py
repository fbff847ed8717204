"""A run in several processes has the numbers of one process, prints once, and ends in time if a process is killed."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY_32, Output
from tests.training.test_train import Cli, cut_run, folder, record, without_times
from vitbench import cli
from vitbench.machine import distributed, hardware, provenance
from vitbench.runs import run as runs_module

UNEVEN = [word for word in TINY_32 if not word.startswith("data.test_images")] + ["data.test_images=203"]
LONG = [word for word in TINY_32 if not word.startswith(("optim.steps", "eval_every"))]
LONG += ["optim.steps=100000", "eval_every=2", "runs=r"]


def ranks(*words: str, cwd: Path, count: int = 2, **options: Any) -> list[Output]:
    """Runs the processes of one run without torchrun, which would take as long as a rank to import torch."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(unused.getsockname()[1])}
    command = [sys.executable, "-W", "error", "-m", "vitbench", *words]
    options |= {"cwd": cwd, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    children = []
    for rank in range(count):
        position = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        environment = os.environ | address | {key: str(value) for key, value in position.items()}
        children.append(subprocess.Popen(command, env=environment, **options))
    streams = [child.communicate(timeout=240) for child in children]
    return [Output(child.returncode, *printed) for child, printed in zip(children, streams, strict=True)]


def torchrun(*words: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vitbench"]
    return subprocess.Popen([*command, *words], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def begun(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """torchrun in the middle of a long run, and the ids of its two processes by rank."""
    agent = torchrun("train", *LONG, cwd=tmp_path)
    while not list(tmp_path.glob("r/*/state.previous.safetensors")):
        assert agent.poll() is None, agent.communicate()
        time.sleep(0.05)
    children: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if int(path.read_text().rpartition(")")[2].split()[1]) == agent.pid:
            environment = (path.parent / "environ").read_bytes().split(b"\0")
            rank = next(int(entry[5:]) for entry in environment if entry.startswith(b"RANK="))
            children[rank] = int(path.parent.name)
    return agent, [children[0], children[1]]


def assert_same_numbers(one: Path, other: Path, tolerance: float) -> None:
    curves = [without_times(path / "metrics.csv") for path in (one, other)]
    assert [row["step"] for row in curves[0]] == [row["step"] for row in curves[1]]
    for key in ("train_loss", "val_loss"):
        values = [[float(row[key]) for row in rows] for rows in curves]
        assert values[0] == pytest.approx(values[1], abs=tolerance), key
    records = [json.loads((path / "record.json").read_text()) for path in (one, other)]
    assert records[0]["test_images"] == records[1]["test_images"]
    assert records[0]["test_loss"] == pytest.approx(records[1]["test_loss"], abs=tolerance)


def assert_one_voice(outputs: list[Output]) -> None:
    assert not any(output.out or output.err for output in outputs[1:]), outputs


# --------------------------------------------------------------------------------------------------------- same numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "tolerance"),
    [
        (["model=vit", "augment=light", "model.drop_path=0.2", "optim.ema=0.9", "optim.clip=1"], 1e-5),
        (["model=vit", "pe=rope", "augment=strong", "data.flip=true", "machine.images=cache"], 1e-5),
        # with the recipe's learning rate, 0.1, rounding alone would move a loss by 0.01 in ten steps
        (["model=resnet", "augment=light", "optim.lr=0.001"], 1e-4),
    ],
)
def test_two_processes_give_the_numbers_of_one(
    vitbench: Cli, tmp_path: Path, words: list[str], tolerance: float
) -> None:
    outputs = ranks("train", *UNEVEN, *words, "runs=two", cwd=tmp_path)
    assert [output.code for output in outputs] == [0, 0], outputs
    assert_one_voice(outputs)
    assert outputs[0].out.count("\n") == 1 and "203 images" in outputs[0].out and not outputs[0].err
    assert vitbench("train", *UNEVEN, *words, "runs=one").code == 0
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    assert_same_numbers(one, two, tolerance)
    assert (np.load(one / "predictions.npy") == np.load(two / "predictions.npy")).mean() > 0.98
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    hardware = [record(tmp_path / runs)["hardware"] for runs in ("one", "two")]
    assert "processes" not in hardware[0] and hardware[1]["processes"] == 2


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_parts_of_the_processes_hold_every_row_once(monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    monkeypatch.setattr(distributed, "WORLD_SIZE", world)
    for total in range(12):
        parts = []
        for rank in range(world):
            monkeypatch.setattr(distributed, "RANK", rank)
            parts.append(distributed.mine(torch.arange(total)))
        assert torch.equal(torch.cat(parts), torch.arange(total))
        assert max(map(len, parts)) == -(-total // world)


@pytest.mark.slow
def test_more_processes_than_validation_images_evaluate_each_once(vitbench: Cli, tmp_path: Path) -> None:
    words = ["data.train_images=200", "data.test_images=50", "data.val_fraction=0.01", "optim.batch_size=15"]
    words += ["model=resnet", "optim.lr=0.001", "optim.steps=4", "eval_every=2"]
    outputs = ranks("train", *words, "runs=three", cwd=tmp_path, count=3)
    assert [output.code for output in outputs] == [0, 0, 0], outputs
    assert vitbench("train", *words, "runs=one").code == 0
    assert record(tmp_path / "one")["val_images"] == 2
    assert_same_numbers(folder(tmp_path / "one"), folder(tmp_path / "three"), 1e-4)


@pytest.mark.slow
def test_a_run_begun_by_two_processes_is_finished_by_one_and_the_other_way_round(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["model=vit", "augment=light", "optim.ema=0.9"]
    assert vitbench("train", *TINY_32, *words, "runs=whole").code == 0
    cut_run(vitbench, monkeypatch, *words, "runs=one_two", base=TINY_32)
    outputs = ranks("train", *TINY_32, *words, "runs=one_two", cwd=tmp_path)
    assert [output.code for output in outputs] == [0, 0], outputs
    assert_same_numbers(folder(tmp_path / "whole"), folder(tmp_path / "one_two"), 1e-5)

    agent = torchrun("train", *TINY_32, *words, "runs=two_one", cwd=tmp_path)
    while not list(tmp_path.glob("two_one/*/state.safetensors")):
        assert agent.poll() is None, agent.communicate()
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=30)
    assert not (folder(tmp_path / "two_one") / "record.json").exists()
    assert vitbench("train", *TINY_32, *words, "runs=two_one").code == 0
    assert_same_numbers(folder(tmp_path / "whole"), folder(tmp_path / "two_one"), 1e-5)


# ----------------------------------------------------------------------------------------------------------- one voice


def test_a_finished_run_is_answered_by_each_process_alone(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY_32, "runs=r")
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"}
    command = [sys.executable, "-m", "vitbench", "train", *TINY_32, "runs=r"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_batch_that_cannot_be_shared_equally_is_refused(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "WORLD_SIZE", 3)
    output = vitbench("train", *TINY_32, "runs=r")
    assert output.code == 2 and "optim.batch_size=16" in output.err and "15 or 18 works" in output.err
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("words", [["sweep", "study=quickstart"], ["train", "-m", "seed=0,1"]])
def test_several_runs_are_refused_under_torchrun(
    vitbench: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(cli, "WORLD_SIZE", 2)
    output = vitbench(*words)
    assert output.code == 2 and "torchrun shares one run" in output.err and output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("said", "processes", "threads"),
    [("1", 1, 1), ("3,2", 1, 3), ("", 1, 8), ("0", 1, 8), ("all", 1, 8), ("²", 1, 8), ("1", 2, 4)],  # torchrun says 1
)
def test_omp_num_threads_is_honoured_where_no_number_of_threads_is_typed(
    said: str, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(provenance, "cores", lambda: 8)
    monkeypatch.setattr(hardware, "LOCAL_WORLD_SIZE", processes)
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    for typed in (None, 5):
        machine = hardware.Machine.of(device="cpu", precision="float32", compile=False, threads=typed)
        assert machine.threads == told.pop() == (typed or threads)


def test_python_m_vitbench_is_the_program(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "vitbench", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("  vitbench train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["data.fracton=1"], 2, "did you mean data.fraction"),
        (["data=imagefolder", "data.root=nowhere"], 3, "nowhere: no such folder"),
        ([*TINY_32, "model.patch_size=5"], 2, "model.patch_size=5"),
    ],
)
def test_a_refusal_is_told_once_and_ends_all_with_its_code(
    tmp_path: Path, words: list[str], code: int, line: str
) -> None:
    begin = time.monotonic()
    outputs = ranks("train", *words, "runs=r", cwd=tmp_path)
    assert [output.code for output in outputs] == [code, code], outputs
    assert_one_voice(outputs)
    assert line in outputs[0].err and outputs[0].err.count("\n") == 1
    assert time.monotonic() - begin < 60 and not list(tmp_path.glob("r/*"))


@pytest.mark.slow
def test_a_held_run_is_refused_to_all(vitbench: Cli, tmp_path: Path) -> None:
    vitbench("train", *TINY_32, "runs=r")
    run_folder = folder(tmp_path / "r")
    (run_folder / "record.json").unlink()
    with runs_module.Run(run_folder, {}).claim():
        outputs = ranks("train", *TINY_32, "runs=r", cwd=tmp_path)
    assert [output.code for output in outputs] == [75, 75]
    assert f"process {os.getpid()}" in outputs[0].err
    assert_one_voice(outputs)


@pytest.mark.slow
def test_what_process_0_cannot_write_ends_all_with_exit_4(tmp_path: Path) -> None:
    outputs = ranks("train", *TINY_32, "runs=r", cwd=tmp_path, preexec_fn=limit_files)
    assert [output.code for output in outputs] == [4, 4], outputs
    assert "state.safetensors" in outputs[0].err and "File too large" in outputs[0].err
    assert_one_voice(outputs)


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))


# ------------------------------------------------------------------------------------------------------- an end in time


@pytest.mark.slow
@pytest.mark.parametrize("receivers", ["torchrun", "one process"])
def test_after_a_signal_all_stop_at_one_step_and_it_is_saved(tmp_path: Path, receivers: str) -> None:
    agent, processes = begun(tmp_path)
    os.kill(agent.pid if receivers == "torchrun" else processes[1], signal.SIGTERM)
    out, errors = agent.communicate(timeout=30)
    assert agent.returncode == 1 and not out  # 1 is torchrun's own code; it prints the codes of the processes
    assert errors.count("vitbench: vit-") == errors.count("saved at step") == 1
    assert not any(Path(f"/proc/{process}").exists() for process in processes)
    assert not list(tmp_path.glob("r/*/.holder.json")) and not list(tmp_path.glob("r/*/failure.json"))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_all_end_in_time_and_the_run_goes_on(tmp_path: Path, victim: int) -> None:
    agent, processes = begun(tmp_path)
    begin = time.monotonic()
    os.kill(processes[victim], signal.SIGKILL)
    _, errors = agent.communicate(timeout=30)
    assert agent.returncode == 1 and time.monotonic() - begin < 30
    assert errors.count("vitbench: another of the 2 processes has ended") == 1
    assert not any(Path(f"/proc/{process}").exists() for process in processes)
    before = len(without_times(folder(tmp_path / "r") / "metrics.csv"))
    again = torchrun("train", *LONG, cwd=tmp_path)
    while len(without_times(folder(tmp_path / "r") / "metrics.csv")) < before + 2:
        assert again.poll() is None, again.communicate()
        time.sleep(0.1)
    again.terminate()
    _, errors = again.communicate(timeout=30)
    steps = [int(row["step"]) for row in without_times(folder(tmp_path / "r") / "metrics.csv")]
    assert "saved at step" in errors and steps == [*range(2, 2 * len(steps) + 1, 2)]
