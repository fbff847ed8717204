"""A step can be one graph: a tape of it (tests/tape.py) gives the numbers of the plain step."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import Output
from tests.tape import NotReplayable, use_tapes
from tests.training.test_train import assert_same_run, cut_run, folder
from vitbench.data.loader import Normalise
from vitbench.models.build import build_model
from vitbench.objectives.menu import MENU as OBJECTIVES
from vitbench.pe.menu import MENU as ENCODINGS
from vitbench.training.evaluate import forward_of, logits_of
from vitbench.training.graph import WARM_UPS, Recorded
from vitbench.training.training import Training

Cli = Callable[..., Output]

STEPS = ["optim.steps=9", "optim.batch_size=12", "eval_every=3"]  # epochs of 4.5 batches
WORDS = ["data.train_images=60", "data.test_images=20", *STEPS, "machine.threads=1", "machine.device=cpu"]
VIT = ["model=vit", "model.width=16", "model.depth=2", "model.heads=2"]
RESNET = ["model=resnet", "model.base_width=2"]
CASES = {
    **{f"pe={pe}": [*VIT, f"pe={pe}"] for pe in ENCODINGS},
    **{f"objective={name}": [*VIT, f"objective={name}"] for name in OBJECTIVES},
    **{f"augment={name}": [*VIT, f"augment={name}", "data.flip=true"] for name in ("light", "strong", "deit")},
    "resnet": [*RESNET, "augment=light"],
    "resnet, simsiam": [*RESNET, "objective=simsiam"],
    "turns and scales": [*VIT, "augment.rotate=20", "augment.scale=0.3"],
    "average, clipping": [*VIT, "optim.ema=0.9", "optim.clip=0.5"],
    "resnet, average": [*RESNET, "optim.ema=0.9"],
    "adamw for a resnet": [*RESNET, "optim=vit"],
    "sgd for a vit": [*VIT, "optim=resnet", "optim.lr=0.01"],
    "class token, drop path": [*VIT, "model.pool=cls", "model.drop_path=0.5"],
    "decay by layers": [*VIT, "optim.layer_decay=0.5"],
    "schedule": [*VIT, "optim.schedule=wsd", "keep=[5,8]"],
    "bfloat16": [*VIT, "machine.precision=bfloat16"],
    "parts": [*VIT, "machine.microbatch=5"],
    "from the cache": [*VIT, "machine.images=cache"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_step_gives_the_numbers_of_a_plain_one(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    assert vitbench("train", *WORDS, *CASES[case], "runs=plain").code == 0
    tapes = use_tapes(monkeypatch)
    output = vitbench("train", *WORDS, *CASES[case], "runs=recorded")
    assert output.code == 0, output.err
    assert len(tapes) >= 1
    assert_same_run(folder(tmp_path / "plain"), folder(tmp_path / "recorded"))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_recorded_step_asks_the_teacher_afresh(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert vitbench("train", *WORDS, *RESNET, "runs=plain").code == 0
    teacher = folder(tmp_path / "plain")
    words = [*WORDS, *VIT, "augment=light", f"teacher={teacher.name}", f"distill.kind={kind}", "runs=plain"]
    assert vitbench("train", *words).code == 0
    (plain,) = (path for path in (tmp_path / "plain").iterdir() if path != teacher)
    moved = plain.rename(tmp_path / "moved")
    tapes = use_tapes(monkeypatch)
    assert vitbench("train", *words).code == 0 and len(tapes) >= 1
    assert_same_run(moved, plain)


def test_a_run_that_is_cut_off_and_recorded_anew_ends_like_one_that_was_not(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*VIT, "augment=light", "optim.ema=0.9"]
    assert vitbench("train", *WORDS, *words, "runs=whole").code == 0
    tapes = use_tapes(monkeypatch)
    cut_run(vitbench, monkeypatch, *words, "runs=cut", stop=5, base=WORDS)
    assert vitbench("train", *WORDS, *words, "runs=cut").code == 0 and len(tapes) == 2
    assert_same_run(folder(tmp_path / "whole"), folder(tmp_path / "cut"))


def test_stacked_runs_that_are_recorded_are_those_that_are_not(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=rope seed=0,1,2']")
    words = ["study=small.yaml", *WORDS, *VIT[1:], "augment=light", "optim.ema=0.9", "hydra/launcher=stacked"]
    assert vitbench("sweep", *words, "runs=plain").code == 0
    tapes = use_tapes(monkeypatch)
    output = vitbench("sweep", *words, "runs=recorded")
    assert output.code == 0, output.err
    assert len(tapes) >= 3 + 1 + 3  # of each run's views, of all losses, of each run's update
    for path in (tmp_path / "plain").glob("vit-*"):
        assert_same_run(path, tmp_path / "recorded" / path.name)


def test_when_a_run_leaves_a_stack_what_was_recorded_of_the_others_is_recorded_anew(
    vitbench: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text("runs: ['model=vit pe=rope seed=0,1,2']")
    words = [word for word in WORDS if not word.startswith(("eval_every", "optim.steps"))]
    words += ["study=small.yaml", *VIT[1:], "augment=light", "eval_every=1", "optim.steps=14", "hydra/launcher=stacked"]
    count_step = Training.count_step

    def fail(self: Training) -> None:
        count_step(self)
        if self.run.settings["seed"] == 1 and self.step == 6:
            raise ValueError("it left")

    monkeypatch.setattr(Training, "count_step", fail)
    assert vitbench("sweep", *words, "runs=plain").code == 1
    tapes = use_tapes(monkeypatch)
    assert vitbench("sweep", *words, "runs=recorded").code == 1
    # the views of each run; then of the first stack and of the second the losses, and each run's update and evaluation
    assert len(tapes) == 3 + (1 + 3 + 3) + (1 + 2 + 2)
    ended = [path.parent for path in (tmp_path / "plain").glob("*/record.json")]
    assert len(ended) == 2
    for path in ended:
        assert_same_run(path, tmp_path / "recorded" / path.name)


def test_a_recorded_evaluation_sees_the_weights_of_the_day_and_the_rest_of_a_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tapes = use_tapes(monkeypatch)
    model = build_model("resnet", image_size=8, channels=3, num_classes=5, base_width=2).eval()
    images = torch.randint(0, 256, (47, 3, 8, 8), dtype=torch.uint8)
    plain = partial(forward_of, model, Normalise.of(images))
    recorded = Recorded(plain, images.device)
    for _ in range(3):
        assert torch.equal(logits_of(recorded, images, 10), logits_of(plain, images, 10))
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.data.mul_(1.5)
    assert len(tapes) == 1


def test_what_python_draws_or_decides_is_frozen_and_what_waits_for_the_device_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a tape that agrees with the plain step shows that the step has none of these."""
    use_tapes(monkeypatch)
    drawn, counted = random.Random(0), iter(range(99))
    for frozen in (lambda x: x + drawn.random(), lambda x: x + next(counted)):
        recorded = Recorded(frozen, torch.device("cpu"))
        results = [float(recorded(torch.zeros(1))) for _ in range(WARM_UPS + 4)]
        assert len({*results[: WARM_UPS + 1]}) == WARM_UPS + 1 and len({*results[WARM_UPS:]}) == 1
    drawing = Recorded(lambda x: x + torch.rand(1), torch.device("cpu"))
    assert len({float(drawing(torch.zeros(1))) for _ in range(9)}) == 9
    moving = torch.zeros(1)
    moved = Recorded(lambda x: x + moving, torch.device("cpu"))
    with pytest.raises(AssertionError, match="a tensor has moved since"):
        for _ in range(WARM_UPS + 2):
            moved(torch.zeros(1))
            moving.data = torch.ones(1)
    for waiting in (lambda x: x.item(), lambda x: x[x > 0], lambda x: x.nonzero()):
        recorded = Recorded(waiting, torch.device("cpu"))
        with pytest.raises(NotReplayable):
            for _ in range(WARM_UPS + 1):
                recorded(torch.ones(3)[:1])
