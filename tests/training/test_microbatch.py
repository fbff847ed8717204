"""A batch that does not fit in memory: one line says so, and `machine.microbatch` computes the same run in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY, Output
from tests.training.test_train import folder, record
from vitbench.objectives.classify import Classify
from vitbench.runs.run import read_metrics

Cli = Callable[..., Output]
VIT = ["model=vit", "model.width=16", "model.depth=2", "model.heads=2"]


def losses(run: Path) -> list[float]:
    return [float(row["train_loss"]) for row in read_metrics(run)]


@pytest.mark.parametrize("part", [5, 99])
@pytest.mark.parametrize(
    "more",
    [["augment=strong", "data.flip=true"], ["optim.ema=0.9", "optim.clip=0.1"], ["objective=mae", "augment=light"]],
    ids=["mixed", "clipped", "mae"],
)
def test_a_batch_in_parts_gives_the_losses_of_the_whole(
    vitbench: Cli, tmp_path: Path, more: list[str], part: int
) -> None:
    assert vitbench("train", *TINY, *VIT, *more, "runs=whole").code == 0
    output = vitbench("train", *TINY, *VIT, *more, f"machine.microbatch={part}", "runs=parts")
    assert output.code == 0, output.err
    whole, parts = folder(tmp_path / "whole"), folder(tmp_path / "parts")
    assert whole.name == parts.name  # how a batch is computed is no part of a run's id
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-5)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model=resnet"], "model=resnet has batch norm, which needs the whole batch at once; drop machine.micro"),
        ([*VIT, "objective=simsiam"], "objective=simsiam has batch norm, which needs the whole batch at once"),
        ([*VIT, "model.drop_path=0.1"], "model.drop_path=0.1 draws its numbers for the whole batch; drop one of them"),
    ],
)
def test_parts_that_would_not_be_the_whole_are_refused(vitbench: Cli, words: list[str], line: str) -> None:
    output = vitbench("train", *TINY, *words, "machine.microbatch=8")
    assert output.code == 2 and f"machine.microbatch=8: {line}" in output.err and output.err.count("\n") == 1
    assert not list(Path("runs").glob("*/record.json"))


def test_a_resnet_whose_norms_stand_still_can_be_computed_in_parts(vitbench: Cli, tmp_path: Path) -> None:
    resnet = ["model=resnet", "model.base_width=2"]
    assert vitbench("train", *TINY, *resnet).code == 0
    parent = folder(tmp_path / "runs").name
    words = [*TINY, *resnet, f"init={parent}", "freeze=backbone", "seed=1", "machine.microbatch=8"]
    assert vitbench("train", *words).code == 0
    assert vitbench("train", *TINY, *resnet, "machine.microbatch=16").code == 0  # that is the whole batch


def ask_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def ask_a_gpu_that_records() -> None:
    try:
        ask_a_gpu()
    finally:
        raise RuntimeError("the recording of a graph failed")


def ask_this_machine() -> None:
    torch.empty(2**50)


@pytest.mark.parametrize("ask_for_too_much", [ask_a_gpu, ask_a_gpu_that_records, ask_this_machine])
def test_a_step_that_does_not_fit_is_one_line_and_the_run_goes_on_in_parts(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask_for_too_much: Callable[[], None]
) -> None:
    assert vitbench("train", *TINY, *VIT, "runs=whole").code == 0
    forward, steps = Classify.forward, iter(range(99))

    def greedy(self: Classify, model: Any, *views: Any) -> Any:
        if len(views[0]) > 8 and next(steps) >= 3:
            ask_for_too_much()
        return forward(self, model, *views)

    monkeypatch.setattr(Classify, "forward", greedy)
    output = vitbench("train", *TINY, *VIT, "runs=parts")
    assert output.code == 1 and output.err.count("\n") == 1
    assert "step 4 with optim.batch_size=16 needs more memory than there is (" in output.err
    assert "GiB free); machine.microbatch=8 computes the same run in smaller parts\n" in output.err
    assert vitbench("train", *TINY, *VIT, "machine.microbatch=8", "runs=parts").code == 0
    assert losses(folder(tmp_path / "parts")) == pytest.approx(losses(folder(tmp_path / "whole")), rel=1e-5)
    assert record(tmp_path / "parts")["status"] == "finished"
