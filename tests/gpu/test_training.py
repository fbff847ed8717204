"""A run on a GPU is the run that a CPU would do, and a graph, a stream, a stack or a resumption changes nothing."""

from __future__ import annotations

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.conftest import Output
from tests.gpu.conftest import DEVICE, REHEARSAL, Train
from tests.sweeping.test_stacked import assert_equal_runs
from tests.training.test_graph import CASES, RESNET, VIT, WORDS
from tests.training.test_train import assert_same_run
from vitbench.objectives.menu import MENU as OBJECTIVES
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.runs.run import read_metrics
from vitbench.training.checkpoint import load_tensors

Cli = Callable[..., Output]

STEPS = ["optim.steps=50", "optim.batch_size=16", "eval_every=10"]  # ten losses a line
SMALL = ["data.train_images=200", "data.test_images=40", "machine.threads=1"]
FIFTY = [*SMALL, *STEPS]
AS_ON_CPU = {
    **{f"pe={pe}": [*VIT, f"pe={pe}"] for pe in ENCODINGS},
    **{f"objective={name}": [*VIT, f"objective={name}"] for name in OBJECTIVES},
    # batch norm lets rounding grow in proportion to the learning rate (tests/training/test_losses.py)
    "resnet": [*RESNET, "augment=light", "optim.lr=3e-5"],
    "strong": [*VIT, "augment=strong", "data.flip=true"],
    "drop path, average, clipping": [*VIT, "model.drop_path=0.3", "optim.ema=0.9", "optim.clip=0.5"],
}


COMMAND = [sys.executable, "-c", "from vitbench.cli import main; main()"]  # in a process of its own


class DrawnOnTheCpu(TorchFunctionMode):
    """Draws all random numbers on the CPU, whose generator gives others than a GPU's of the same seed."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in (torch.rand, torch.randn, torch.randint) and "device" in kwargs:
            return function(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        if function in (torch.randn_like, torch.rand_like, torch._standard_gamma):
            return function(args[0].cpu(), *args[1:], **kwargs).to(args[0].device)
        return function(*args, **kwargs)


def losses(run: Path) -> list[float]:
    return [float(row["train_loss"]) for row in read_metrics(run)]


@pytest.mark.parametrize("case", AS_ON_CPU)
def test_fifty_losses_are_those_of_the_cpu(train: Train, case: str) -> None:
    with DrawnOnTheCpu():
        here = train("gpu", *FIFTY, *AS_ON_CPU[case], "machine.graph=false")
        there = train("cpu", *FIFTY, *AS_ON_CPU[case], "machine.device=cpu", "machine.graph=false")
    assert here.name == there.name
    assert losses(here) == pytest.approx(losses(there), rel=1e-4)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_fifty_losses_of_distillation_are_those_of_the_cpu(train: Train, kind: str) -> None:
    teacher = train("gpu", *SMALL, *RESNET, "optim.steps=20", "machine.device=cpu", "machine.graph=false")
    shutil.copytree(teacher, teacher.parents[1] / "cpu" / teacher.name)
    words = [*FIFTY, *VIT, f"teacher={teacher.name}", f"distill.kind={kind}", "machine.graph=false"]
    assert losses(train("gpu", *words)) == pytest.approx(losses(train("cpu", *words, "machine.device=cpu")), rel=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_a_graph_changes_no_bit(train: Train, case: str) -> None:
    words = [*(word for word in WORDS if not word.startswith("machine.device")), *CASES[case]]
    assert_same_run(train("plain", *words, "machine.graph=false"), train("graph", *words))


@pytest.mark.parametrize("model", [VIT, RESNET], ids=["vit", "resnet"])
def test_the_same_run_gives_the_same_bytes(train: Train, model: list[str]) -> None:
    words = [*SMALL, *model, "augment=strong", "data.flip=true", "optim.steps=30"]
    assert_same_run(train("one", *words), train("other", *words))


@pytest.mark.parametrize("images", ["cache", "memory"])
def test_streamed_images_give_the_bytes_of_resident_ones(train: Train, images: str) -> None:
    words = [*SMALL, *VIT, "augment=light", "optim.steps=30"]
    streamed = train(images, *words, f"machine.images={images}", "machine.graph=false")
    assert_same_run(streamed, train("resident", *words, "machine.images=memory"))


def test_a_compiled_step_gives_the_losses_of_a_plain_one(train: Train) -> None:
    compile = "machine.compile=" + ("false" if REHEARSAL else "true")  # a CPU would need a C++ compiler
    compiled = train("compiled", *FIFTY, *VIT, compile)
    assert losses(compiled) == pytest.approx(losses(train("plain", *FIFTY, *VIT)), rel=1e-3)
    assert REHEARSAL or json.loads((compiled / "record.json").read_text())["compile_seconds"] > 0


@pytest.mark.parametrize("model", [VIT, RESNET], ids=["vit", "resnet"])
def test_bfloat16_ends_within_the_noise_of_seeds(train: Train, model: list[str]) -> None:
    words = [*SMALL, *model, f"optim.steps={20 if REHEARSAL else 200}"]
    ends: dict[str, list[float]] = {}
    for precision in ("float32", "bfloat16"):
        runs = [train(precision, *words, f"seed={seed}", f"machine.precision={precision}") for seed in range(3)]
        ends[precision] = [json.loads((run / "record.json").read_text())["test_loss"] for run in runs]
    differences = [two - one for one, two in zip(ends["float32"], ends["bfloat16"], strict=True)]
    assert abs(statistics.mean(differences)) < 2 * statistics.stdev(ends["float32"])


def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(train: Train, tmp_path: Path) -> None:
    words = [*SMALL, *VIT, "augment=light", "optim.steps=400", "eval_every=20"]
    whole = train("whole", *words)
    machine = [f"machine.device={DEVICE}", "machine.precision=float32", "machine.compile=false"]
    kills, moments = 0, random.Random(0)
    while kills < 2:
        child = subprocess.Popen([*COMMAND, "train", *words, *machine, "runs=killed"], cwd=tmp_path)
        while child.poll() is None and not [*(tmp_path / "killed").glob("*/state.safetensors")]:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.05, 0.5))
        child.kill()
        assert child.wait() in (-signal.SIGKILL, 0)
        if child.returncode == 0:
            break
        kills += 1
    assert kills
    ended = train("killed", *words)
    ours, theirs = (load_tensors(run / "checkpoint.safetensors")[0] for run in (ended, whole))
    largest = max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)
    assert largest == 0, f"the largest difference of a weight is {largest}"
    assert_same_run(ended, whole)


def test_stacked_runs_are_those_alone(train: Train, vitbench: Cli, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=rope seed=0,1,2']")
    words = [*SMALL, *VIT[1:], "augment=light", "optim.steps=30", "eval_every=10"]
    machine = [f"machine.device={DEVICE}", "machine.precision=float32", "machine.compile=false"]
    sweep = ["sweep", "study=small.yaml", *words, *machine, "hydra/launcher=stacked", "runs=stacked"]
    output = vitbench(*sweep)
    assert output.code == 0, output.err
    for seed in range(3):
        alone = train("alone", *words, "model=vit", "pe=rope", f"seed={seed}")
        assert_equal_runs(tmp_path / "stacked" / alone.name, alone)


def test_a_batch_in_parts_gives_the_losses_of_the_whole(train: Train) -> None:
    words = [*FIFTY, *VIT, "augment=strong", "data.flip=true"]
    whole, parts = train("whole", *words), train("parts", *words, "machine.microbatch=5")
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


@pytest.mark.skipif(REHEARSAL, reason="a CPU's memory cannot be limited to a share")
def test_a_batch_that_does_not_fit_is_one_line_and_the_run_goes_on_in_parts(vitbench: Cli, tmp_path: Path) -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    words = [*SMALL, "model=vit", "optim.steps=4", "optim.batch_size=16384", "machine.device=cuda"]
    torch.cuda.set_per_process_memory_fraction(2**31 / total)
    try:
        output = vitbench("train", *words, "runs=r")
        assert output.code == 1 and output.err.count("\n") == 1, output.err
        assert (
            "with optim.batch_size=16384 needs more memory than there is (" in output.err and "GiB free" in output.err
        )
        output = vitbench("train", *words, "machine.microbatch=256", "runs=r")
        assert output.code == 0, output.err
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
