"""What is said after a run's first steps of the time that it takes, on a clock that the tests move."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from vitbench.models.menu import SIZES
from vitbench.runs.plan import Planner
from vitbench.training.forecast import Forecast, shorter

SETTINGS: dict[str, Any] = {
    "optim": {"steps": 2000, "epochs": None, "min_steps": None},
    "model": {"name": "vit", "size": "tiny", "patch_size": 16},
    "data": {"fraction": 1},
}


def run_of(**changed: Any) -> Any:
    """A run as far as a forecast asks for it: 2,000 steps of 10 images of 224 px, ten evaluations of 100."""
    usual = {
        "run": SimpleNamespace(settings=SETTINGS),
        "step": 0,
        "steps": 2000,
        "every": 200,
        "resumed": False,
        "architecture": {"image_size": 224},
        "machine": SimpleNamespace(graph=False, device=SimpleNamespace(type="cpu"), synchronise=lambda: None),
        "watch": SimpleNamespace(seconds=0.0, running=0.0),
        "validation": (None, range(100)),
        "share": SimpleNamespace(dataset=SimpleNamespace(test=range(500))),
        "loader": SimpleNamespace(batch_size=10, train_images=700),
    }
    return SimpleNamespace(**{**usual, **changed})


def said(training: Any, step_seconds: float, first: float = 60.0, steps: int = 40) -> list[str]:
    lines: list[str] = []
    forecast = Forecast(training, lines.append)
    for number in range(steps):
        training.step += 1
        training.watch.running += step_seconds if number else first
        forecast.after_step()
    return lines


def test_the_first_step_does_not_count_and_evaluations_do() -> None:
    (line,) = said(run_of(), 0.35)
    # 1,993 steps are left when 2 s have been timed; 10 x 100, 500 and 700 images take a third of their time in training
    seconds = 1993 * 0.35 + 2200 * 0.035 / 3
    assert line == f"about {seconds / 60:.0f} min on this CPU (0.35 s a step, 2,000 steps)"


def test_it_is_said_once_and_not_of_a_short_run() -> None:
    assert said(run_of(steps=30, every=3), 0.003, steps=30) == []
    assert len(said(run_of(), 0.02, steps=300)) == 1


def test_a_long_run_is_told_what_makes_it_shorter() -> None:
    first, second = said(run_of(), 5.0)
    assert first == "about 2.9 h on this CPU (5 s a step, 2,000 steps)"
    assert second == (
        "this is more than an hour; the run is shorter with fewer steps (optim.steps=1000), smaller images "
        "(data.image_size=112 model.patch_size=16), larger patches (model.patch_size=32), a smaller network "
        "(model.size=micro) or a GPU"
    )


def test_what_cannot_be_smaller_is_not_named() -> None:
    optim = {"steps": None, "epochs": 30.0, "min_steps": None}
    settings = {"optim": optim, "model": {"name": "resnet", "size": "nano"}, "data": {"fraction": 1}}
    training = run_of(run=SimpleNamespace(settings=settings), architecture={"image_size": 32})
    assert said(training, 5.0)[1] == (
        "this is more than an hour; the run is shorter with fewer epochs (optim.epochs=15), fewer images "
        "(data.count=350) or a GPU"
    )


@pytest.mark.parametrize(
    ("words", "image_size"),
    [
        ("data.image_size=224", 224),
        ("data.image_size=80 optim.epochs=40 optim.min_steps=5000", 80),
        ("data.image_size=112 optim.epochs=40 data.fraction=0.5", 112),
        ("model=resnet data.image_size=96 optim.epochs=3 data.fraction=0.1", 96),
        ("model=timm model.arch=convnext_atto data.image_size=224", 224),
    ],
)
def test_each_way_is_accepted_and_makes_less_to_compute(words: str, image_size: int) -> None:
    """What is said can be typed after what was typed: it is refused by nothing, and is less of something."""
    planner = Planner()
    asked = [*words.split(), "data=cifar10"]
    before = planner.settings(asked)
    ways = re.findall(r"\(([^)]*)\)", shorter(before, image_size, 1000))
    assert len(ways) >= 2
    for way in ways:
        keys = {word.partition("=")[0] for word in way.split()}
        after = planner.settings([*(word for word in asked if word.partition("=")[0] not in keys), *way.split()])
        assert _work(after) < _work(before), way


def _work(settings: dict[str, Any]) -> float:
    """What the time of a run grows with, in some unit: places that the network looks at, times how often."""
    optim, data = settings["optim"], settings["data"]
    places = (data["image_size"] / (settings["model"].get("patch_size") or 1)) ** 2
    steps = max((optim["epochs"] or 0) * data["fraction"] * 100, optim["min_steps"] or 0, optim["steps"] or 0)
    return float(places * steps * [*SIZES].index(settings["model"].get("size", "nano")) + places * steps)


def test_a_gpu_is_called_one_and_gets_no_advice() -> None:
    gpu = SimpleNamespace(graph=True, device=SimpleNamespace(type="cuda"), synchronise=lambda: None)
    assert said(run_of(machine=gpu, steps=200_000, every=20_000), 0.05, steps=60) == [
        "about 2.8 h on this GPU (50 ms a step, 200,000 steps)"
    ]


@pytest.mark.parametrize("done", [1200])
def test_a_resumed_run_says_what_is_left(done: int) -> None:
    (line,) = said(run_of(step=done, resumed=True), 1.0)
    assert line.startswith("about 14 min more on this CPU (1 s a step, 797 of 2,000 steps left)")
