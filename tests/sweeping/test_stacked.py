"""Runs that train as one model: each becomes what it would be alone, up to the order of floating-point sums."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.conftest import TINY, Output
from tests.models.test_contracts import RUNGS
from tests.training.test_train import cut_run
from vitbench.data.loader import Loader
from vitbench.machine.hardware import Machine
from vitbench.models.build import build_model
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.runs.run import Run, read_metrics
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings, compose
from vitbench.sweeping.stacked import Stack, Stacked, stacks_of
from vitbench.training.checkpoint import load_tensors

Cli = Callable[..., Output]
CPU = Machine(torch.device("cpu"), "float32", compile=False, threads=1)
SMALL = ["model.width=16", "model.depth=2", "model.heads=2"]
STACKED = "hydra/launcher=stacked"


def study(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "small.yaml").write_text(f"runs: {json.dumps(lines)}")
    return f"study={tmp_path / 'small.yaml'}"


@cache
def composed() -> str:
    return json.dumps(check(as_settings(compose([*TINY, *SMALL]))))


def settings(folder: Path, seed: int, section: str = "optim", **changes: float) -> dict[str, Any]:
    made = json.loads(composed()) | {"runs": str(folder), "seed": seed}
    made[section] |= changes
    return made  # type: ignore[no-any-return]


def runs(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("*/record.json"))}


def assert_equal_runs(one: Path, other: Path, tolerance: float = 1e-4) -> None:
    """Both folders hold the same files; losses, and the weights as one vector, agree to a relative `tolerance`.

    Single weights need not agree: the gradient of a key's bias is rounding alone, and Adam makes full steps of that.
    """
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    records = [json.loads((folder / "record.json").read_text()) for folder in (one, other)]
    for key in ("train_loss", "val_loss", "test_loss"):
        assert records[0][key] == pytest.approx(records[1][key], rel=tolerance), key
    for key in ("status", "steps", "train_images", "mean", "parameters", "warnings", "val_accuracy"):
        assert records[0][key] == records[1][key], key
    rows = [read_metrics(folder) for folder in (one, other)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for row, its in zip(*rows, strict=True):
        assert row["lr"] == its["lr"]
        assert float(row["train_loss"]) == pytest.approx(float(its["train_loss"]), rel=tolerance)
    weights = [load_tensors(folder / "checkpoint.safetensors")[0] for folder in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    vectors = [torch.cat([its[name].flatten() for name in sorted(its)]) for its in weights]
    assert torch.dist(*vectors) < tolerance * vectors[0].norm()
    predictions = [np.load(folder / "predictions.npy") for folder in (one, other)]
    assert (predictions[0] == predictions[1]).mean() > 0.95


NETWORKS: dict[str, dict[str, Any]] = {
    **{pe: {"name": "vit", "heads": 2, "pool": "cls", "pe": {"name": pe}} for pe in ENCODINGS},
    **{name: {"name": "vit", "heads": 2, "pe": {"name": "relative_bias"}, **rung} for name, rung in RUNGS.items()},
    "mixer": {"name": "mixer"},
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_stacked_gradients_are_those_of_each_model_alone(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    architecture: Any = {"image_size": 8, "channels": 3, "num_classes": 5, "width": 16, "depth": 2}
    models = [build_model(**architecture, **options).double() for _ in range(3)]
    alone = [build_model(**architecture, **options).double() for _ in range(3)]
    for model, its in zip(models, alone, strict=True):
        its.load_state_dict(model.state_dict())
    images, targets = torch.randn(3, 4, 3, 8, 8, dtype=torch.float64), torch.randint(5, (3, 4))
    stacked = Stacked(models, architecture, CPU)
    for _ in range(2):  # the second time, the first gradients have to be overwritten
        losses = stacked.losses(list(images), list(targets), 0.1)
    for model, its, batch, target, loss in zip(models, alone, images, targets, losses, strict=True):
        its_loss = F.cross_entropy(its(batch), target, label_smoothing=0.1)
        its_loss.backward()
        torch.testing.assert_close(loss, its_loss.detach(), rtol=1e-12, atol=0)
        for (name, parameter), own in zip(model.named_parameters(), its.parameters(), strict=True):
            largest = own.grad.abs().max().item()
            torch.testing.assert_close(parameter.grad, own.grad, rtol=0, atol=1e-12 * max(1, largest), msg=name)


def test_a_stacked_sweep_writes_the_runs_that_single_commands_would(vitbench: Cli, tmp_path: Path) -> None:
    words = [*TINY, *SMALL, "augment=light", "data.flip=true", "optim.ema=0.9", "optim.clip=1", "optim.schedule=wsd"]
    grid = study(tmp_path, "model=vit pe=rope seed=0,1,2 optim.lr=0.001,0.01")
    output = vitbench("sweep", grid, *words, STACKED, "hydra.launcher.max_runs=4", "runs=s")
    assert output.code == 0 and output.out == "6 of 6 runs finished\n", output.err
    assert "one after the other" not in output.err
    assert vitbench("sweep", grid, *words, "runs=a").code == 0
    stacked, alone = runs(tmp_path / "s"), runs(tmp_path / "a")
    assert stacked.keys() == alone.keys() and len(stacked) == 6
    for name, record in stacked.items():
        assert_equal_runs(tmp_path / "s" / name, tmp_path / "a" / name)
        # six runs make two stacks of three, not of 4 and 2
        assert record["hardware"] == alone[name]["hardware"] | {"stacked": 3}
    created = [record["created"] for record in stacked.values()]
    again = vitbench("sweep", grid, *words, STACKED, "runs=s", "dry_run=true")
    assert "6 runs, 0 to do" in again.out
    assert vitbench("sweep", grid, *words, STACKED, "runs=s").code == 0
    assert [record["created"] for record in runs(tmp_path / "s").values()] == created


def test_what_cannot_be_stacked_goes_alone_and_a_diverging_run_takes_no_other_along(
    vitbench: Cli, tmp_path: Path
) -> None:
    words = [*TINY, "optim=resnet"]
    vit = "model=vit model.width=16 model.depth=2 model.heads=2"
    grid = study(tmp_path, f"{vit} optim.lr=0.1,1e30", "model=resnet optim.lr=0.1", f"{vit} pe=rope")
    output = vitbench("sweep", grid, *words, STACKED, "runs=s")
    assert output.code == 1 and "3 of 4 runs finished" in output.out and output.err.count(" diverged") >= 1
    assert (
        "2 of 4 runs are not stacked but trained one after the other: model=resnet (stacked convolutions become "
        "grouped ones, which are slower); no other run differs from it in seed or optim.lr alone" in output.err
    )
    diverged = next(record for record in runs(tmp_path / "s").values() if record["status"] == "diverged")
    assert diverged["config"]["optim"]["lr"] == 1e30 and 1 <= diverged["diverged_step"] <= 6
    assert vitbench("train", *words, *vit.split(), "optim.lr=0.1", "runs=a").code == 0
    (name,) = runs(tmp_path / "a")
    assert runs(tmp_path / "s")[name]["hardware"]["stacked"] == 2
    assert_equal_runs(tmp_path / "s" / name, tmp_path / "a" / name)


def test_stacks_and_single_runs_go_on_from_the_states_of_each_other(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, words = study(tmp_path, "seed=0,1,2"), [*TINY, *SMALL]
    assert vitbench("sweep", grid, *words, "runs=whole").code == 0
    cut_run(vitbench, monkeypatch, *SMALL, "seed=0", "runs=cut", stop=3)  # it saved at step 2
    batch = Loader.batch

    def signalled(self: Loader, step: int) -> Any:
        if self.seed == 1 and step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "batch", signalled)
        output = vitbench("sweep", grid, *words, STACKED, "runs=cut")
    assert output.code == 75 and "3 runs, of them" in output.err and "to go on: the sweep repeated" in output.err
    steps = [load_tensors(path)[1]["step"] for path in (tmp_path / "cut").glob("*/state.safetensors")]
    assert sorted(steps) == [1, 2, 4]  # the first was ahead, the last had not begun its second batch
    assert vitbench("train", *words, "seed=2", "runs=cut").code == 0
    assert vitbench("sweep", grid, *words, STACKED, "runs=cut").code == 0
    for name in runs(tmp_path / "whole"):
        assert_equal_runs(tmp_path / "cut" / name, tmp_path / "whole" / name)


def test_a_run_that_is_held_or_broken_is_left_out_of_its_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = [Run.of(settings(tmp_path, seed)) for seed in range(4)]
    batch = Loader.batch

    def broken(self: Loader, step: int) -> Any:
        if self.seed == 3 and step == 2:
            raise ZeroDivisionError("ours")
        return batch(self, step)

    monkeypatch.setattr(Loader, "batch", broken)
    with several[0].claim():
        assert Stack(several).train() == {several[3].id: "ZeroDivisionError('ours')"}
    assert [run.record() is not None for run in several] == [False, True, True, False]
    assert several[3].failure() == "ZeroDivisionError: ours" and several[0].failure() is None
    assert not any(run.held() for run in several)


def test_what_breaks_the_stack_is_written_down_in_each_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Stacked, *batches: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stacked, "losses", full)
    several = [Run.of(settings(tmp_path, seed)) for seed in range(5)]
    Stack(several).train()
    assert {run.failure() for run in several} == {
        "UserError: 5 runs in one stack need more memory than there is; repeat the sweep with hydra.launcher.max_runs=2"
    }


def test_only_runs_that_differ_in_seed_or_learning_rate_alone_are_stacked(tmp_path: Path) -> None:
    asked = {
        "a": settings(tmp_path, 0),
        "b": settings(tmp_path, 0, lr=0.1),
        "c": settings(tmp_path, 1, lr=0.1),
        "d": settings(tmp_path, 1, weight_decay=0),
        "e": settings(tmp_path, 2),
        "f": settings(tmp_path, 3, "model", drop_path=0.1),
        "g": settings(tmp_path, 4),
    }
    stacks, alone = stacks_of(asked, max_runs=4)
    assert stacks == [["a", "b"], ["c", "e", "g"]] and alone.keys() == {"d", "f"}


@pytest.mark.parametrize("word", ["hydra.launcher.max_runs=1", "hydra.launcher.max_runs=many"])
def test_a_stack_holds_two_runs_or_more(vitbench: Cli, tmp_path: Path, word: str) -> None:
    output = vitbench("sweep", study(tmp_path, "seed=0,1"), *TINY, STACKED, word, "runs=s")
    assert output.code == 2 and f"{word}: must be 2 or more runs\n" in output.err
    assert not list((tmp_path / "s").glob("vit*"))


def test_the_stacked_launcher_is_for_sweeps(vitbench: Cli) -> None:
    output = vitbench("train", "--multirun", *TINY, "seed=0,1", STACKED)
    assert output.code == 2 and output.err.startswith("vitbench: hydra/launcher=stacked is for the runs of a study")
