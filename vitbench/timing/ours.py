"""The contestants of vitbench: the bare step, which is a limit for every loop, and whole runs of `vitbench train`."""

from __future__ import annotations

import copy
import itertools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from vitbench.errors import TryAgain
from vitbench.machine.hardware import Machine
from vitbench.models.build import build_model, compiled, cost
from vitbench.runs.plan import Planner
from vitbench.timing.windows import clock
from vitbench.training import optim
from vitbench.training.graph import WARM_UPS, recorded
from vitbench.training.train import one_run

ATTEMPTS = 5  # how often a long run is timed until it takes longer than a short one
LOGGED = 100  # steps between two log lines and saves, the default of a run of 1,000 steps


def settings_of(words: list[str], folder: Path, device: str, threads: int | None) -> dict[str, Any]:
    """Returns the settings of `vitbench train WORDS`, with its runs in `folder`."""
    machine = [
        f"machine.device={device}",
        "machine.progress=false",
        *([f"machine.threads={threads}"] if threads else []),
    ]
    return Planner().settings([*words, f"runs={folder / 'runs'}", f"eval_every={LOGGED}", *machine])


class Limit:
    """The bare step: forward, backward and optimizer on a fixed batch that is already normalised and on the device.

    On a GPU it is recorded as one graph, like the step of a run.
    """

    def __init__(self, settings: dict[str, Any], image_size: int = 32, batch_size: int | None = None) -> None:
        hardware = {key: settings["machine"][key] for key in ("device", "precision", "compile", "threads", "graph")}
        self.machine, self.recipe = Machine.of(**hardware), settings["optim"]
        self.batch_size = batch_size or self.recipe["batch_size"]
        architecture = {**settings["model"], "image_size": image_size, "channels": 3, "num_classes": 10}
        self.parameters, self.multiply_adds = cost(**architecture)
        torch.manual_seed(0)
        model: Any = build_model(**architecture)
        weight_format = torch.channels_last if model.channels_last else torch.preserve_format
        image_format = torch.channels_last if model.channels_last else torch.contiguous_format
        model.to(self.machine.device, memory_format=weight_format)
        self.model = self.forward = model
        if self.machine.compile:
            self.model, self.forward = compiled(model, architecture, lambda it: it)
        options = {key: self.recipe[key] for key in ("optimizer", "lr", "weight_decay", "momentum", "beta2")}
        self.optimizer = optim.build_optimizer(self.model, **options)
        shape = (self.batch_size, 3, image_size, image_size)
        self.images = torch.randn(shape, device=self.machine.device).contiguous(memory_format=image_format)
        self.labels = torch.randint(0, 10, (self.batch_size,), device=self.machine.device)
        self._train, self._infer = recorded(self._step, self.machine), recorded(self._forward, self.machine)

    def __call__(self, steps: int) -> float:
        self.model.train()
        return self._seconds(self._train, steps)

    @torch.inference_mode()
    def infer(self, steps: int) -> float:
        """Times only the forward pass, in evaluation mode."""
        self.model.eval()
        return self._seconds(self._infer, steps)

    def _seconds(self, step: Callable[[], object], steps: int) -> float:
        now = clock(self.machine.device.type)
        self.machine.synchronise()
        begin = now()
        for _ in range(steps):
            step()
        self.machine.synchronise()
        return now() - begin

    def _step(self) -> None:
        with self.machine.autocast():
            loss = F.cross_entropy(self.forward(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        if self.recipe["clip"]:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe["clip"])
        self.optimizer.step()

    def _forward(self) -> None:
        with self.machine.autocast():
            self.model(self.images)


class Ours:
    """Whole runs, with data, loop, log lines and saves. The time of n steps is that of a run with n more steps than a
    short run, minus that of the short run.

    The short run has one step; on a GPU it has as many as it takes to record the graph. If the long run takes no longer
    than the short one, other work on the machine hides the steps, and both are timed again. Raises TryAgain if this
    happens each time.
    """

    _seeds = itertools.count(1)  # all runs differ, so none is skipped as finished

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        on_cpu = settings["machine"]["device"] == "cpu"
        self.shortest = 1 if on_cpu else 1 + WARM_UPS
        self.of_shortest: list[float] = []  # the seconds of short runs
        self.now = clock("cpu" if on_cpu else "cuda")

    def __call__(self, steps: int) -> float:
        for _ in range(ATTEMPTS):
            short = self.run(self.shortest)
            seconds = self.run(self.shortest + steps) - short
            if seconds > 0:
                self.of_shortest.append(short)
                return seconds
        raise TryAgain(
            f"a run of {steps} more steps took no longer: type a larger seconds=, or wait until other work has ended"
        )

    def beside_training(self, step: list[float]) -> list[float]:
        """Returns the seconds that runs take besides training; `step` has seconds of the bare step."""
        return [seconds - self.shortest * statistics.median(step) for seconds in self.of_shortest]

    def run(self, steps: int) -> float:
        """Trains a run with this many steps and returns the seconds that it took."""
        settings = copy.deepcopy(self.settings)
        settings["seed"], settings["optim"]["steps"] = next(self._seeds), steps
        begin = self.now()
        code = one_run(settings, in_sweep=True)
        assert code == 0, "a run that measures speed diverged"
        return self.now() - begin


def matrix_peak(device: torch.device, precision: str) -> float:
    """Returns the multiply-adds per second of a large matrix product, which are a limit for every network."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    side = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    now, best = clock(device.type), 0.0
    for repeats in (1, 20, 20, 20, 20, 20):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = now()
        for _ in range(repeats):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, repeats * side**3 / (now() - begin))
    return best
