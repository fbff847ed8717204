"""`hydra/launcher=stacked`: runs that differ in nothing but seed and learning rate train as one model.

Each run is an ordinary one: a `Training` builds its model, draws its batches, steps its optimizer, evaluates, saves and
writes its record, in its own folder. Only forward and backward are the stack's. There each parameter lies in a
stacked tensor (S,...) of which the run's own parameter is slice s, and its gradient slice s of the stacked gradient; one
forward and backward through `torch.func` (`vmap` over `functional_call`) serves all. What a GPU computes in many small
kernels for one small network after another it then computes in few for S of them.

S  runs of a stack; the other letters as in vitbench/models/__init__.py
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitbench.errors import StorageError, UserError
from vitbench.machine.hardware import Machine, Stopwatch
from vitbench.machine.interrupt import Interrupt, Stopped
from vitbench.menu import look_up
from vitbench.models.build import compiled
from vitbench.models.menu import MENU
from vitbench.runs.origin import find_parents
from vitbench.runs.run import Run
from vitbench.sweeping.launch import Hand
from vitbench.training.finish import finish
from vitbench.training.prepare import prepare
from vitbench.training.train import failures_written_down
from vitbench.training.training import Training


class Stacked:
    """Models of one architecture that compute together: their parameters become slices of stacked ones (S,...), and so
    do their gradients, which `losses` writes. Optimizers and checkpoints of each go on working on their own model.
    """

    def __init__(self, models: Sequence[nn.Module], architecture: Mapping[str, Any], machine: Machine) -> None:
        self.machine = machine
        self.parameters: dict[str, Tensor] = {}
        self.gradients: list[Tensor] = []
        template = copy.deepcopy(models[0])  # gives its code and what no run changes, such as rope's angles
        for name, _ in models[0].named_parameters():
            own = [model.get_parameter(name) for model in models]
            stacked = torch.stack([parameter.detach() for parameter in own])
            gradient = torch.zeros_like(stacked)
            for parameter, its_values, its_gradient in zip(own, stacked, gradient, strict=True):
                parameter.data, parameter.grad = its_values, its_gradient
            self.parameters[name] = stacked.requires_grad_()
            stacked.grad = gradient
            self.gradients.append(gradient)
        forward: Any = Vmapped(template)
        if machine.compile:
            _, forward = compiled(template, {**architecture, "stacked": len(models)}, Vmapped)
        self.forward = forward

    def losses(self, images: Sequence[Tensor], targets: Sequence[Tensor], label_smoothing: float) -> Tensor:
        """The mean cross-entropy (S,) of each run on its own batch; backward has been done when it returns."""
        with self.machine.autocast():
            logits = self.forward(self.parameters, torch.stack(list(images)))  # (S,B,K)
            loss = partial(F.cross_entropy, label_smoothing=label_smoothing)
            losses: Tensor = vmap(loss)(logits, torch.stack(list(targets)))  # (S,)
        torch._foreach_zero_(self.gradients)
        losses.sum().backward()  # adds in place, so the runs' gradients stay slices
        return losses.detach()


class Vmapped(nn.Module):
    """A model as a function of stacked parameters (S,...) and images (S,B,C,H,W); logits (S,B,K).

    Attention is computed from its products: torch's fused kernels do not know under `vmap` that a gradient will be asked
    for, and the one on CPU has no batching rule at all. On CPU this takes a fifth more time; with the short sequences that
    stacking is for, the scores are small.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        def one(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
            return functional_call(self.model, parameters, (images,))

        with sdpa_kernel(SDPBackend.MATH):
            return vmap(one)(parameters, images)


# --------------------------------------------------------------------------------------------------- training together


class Stack:
    """Drives runs from batch to batch; one that ends in whatever way leaves the others to go on.

    They need not be at the same step: a stack goes on from states of stacks and of single runs alike.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = {run.id: run for run in runs}
        self._claims: dict[str, ExitStack] = {}  # of the runs that have not ended
        self._training: dict[str, Training] = {}
        self._batches: dict[str, tuple[Tensor, ...]] = {}  # the next one of each run
        self._watch = Stopwatch()
        self._errors: dict[str, str] = {}
        self._stops: list[Stopped] = []

    def train(self) -> dict[str, str]:
        """Every run to its end; returns what they raised beside what they wrote down. Raises Stopped after a signal."""
        with Interrupt() as self._interrupt:
            try:
                self._train()
            finally:
                for claim in self._claims.values():
                    claim.close()
            if (received := self._interrupt.received) is not None:
                saved = f"{len(self._stops)} runs, of them " if len(self._stops) > 1 else ""
                raise Stopped(saved + str(self._stops[0]) if self._stops else "stopped", received)
        return self._errors

    def _train(self) -> None:
        self._each(self._begin, self._runs)
        for training in self._training.values():
            training.stacked = len(self._training)
        self._each(self._draw_or_finish, self._training)
        members: list[Training] = []
        while self._batches:
            try:
                if members != (there := [self._training[run] for run in self._batches]):
                    members, first = there, there[0]
                    together = Stacked([one.model for one in members], first.architecture, first.machine)
                images, targets = zip(*self._batches.values(), strict=True)
                losses = together.losses(images, targets, first.run.settings["optim"]["label_smoothing"])
            except torch.OutOfMemoryError:
                fewer = max(2, len(members) // 2)
                self._fail(
                    UserError(
                        f"{len(members)} runs at once need more memory than there is; "
                        f"hydra.launcher.max_runs={fewer} needs less"
                    )
                )
            except Exception as error:
                self._fail(error)
            else:
                self._each(partial(self._step, dict(zip(self._batches, losses, strict=True))), self._batches)

    def _each(self, act: Callable[[str], None], runs: Iterable[str]) -> None:
        """Acts for each run; one that ends at it, in whatever way, leaves the stack. How it did is in its folder."""
        for run in [*runs]:
            try:
                with failures_written_down(self._runs[run], in_sweep=True):
                    act(run)
                continue
            except Stopped as stopped:
                self._stops.append(stopped)
            except StorageError as error:
                self._errors[run] = str(error)
            except UserError:
                pass  # it is in the run's folder, or another process holds the run
            except Exception as error:
                self._errors[run] = repr(error)
            self._let_go(run)

    def _begin(self, run: str) -> None:
        """Claims and prepares a run, as a sweep does in a process of its own; one that has ended is left out."""
        folder, self._claims[run] = self._runs[run], ExitStack()
        if folder.record() is None and folder.failure() is None:
            self._claims[run].enter_context(folder.claim())
            if folder.record() is None:  # another process may have finished it since
                training = prepare(folder, find_parents(folder.settings), self._watch)
                training.resume()
                self._training[run] = training
                self._interrupt.saves()
                return
        self._let_go(run)

    def _step(self, losses: Mapping[str, Tensor], run: str) -> None:
        self._training[run].update(losses[run])
        self._training[run].log_and_save(self._interrupt)
        self._draw_or_finish(run)

    def _draw_or_finish(self, run: str) -> None:
        training = self._training[run]
        if training.goes_on():
            self._batches[run] = training.next_batch()
        else:
            training.run.finish(finish(training, self._interrupt))
            self._let_go(run)

    def _let_go(self, run: str) -> None:
        self._claims.pop(run).close()
        self._training.pop(run, None)
        self._batches.pop(run, None)
        self._interrupt.saves()  # what a signal does is no longer this run's to say

    def _fail(self, error: Exception) -> None:
        def fail(run: str) -> None:
            raise error

        self._each(fail, self._batches)


# ----------------------------------------------------------------------------------------------------- who goes with whom


def hand(settings: Mapping[str, dict[str, Any]], max_runs: int, in_turn: Hand, say: Callable[[str], None]) -> Hand:
    """Does runs in stacks of at most `max_runs`, and leaves to `in_turn` those that cannot be stacked."""
    if not isinstance(max_runs, int) or max_runs < 2:
        raise UserError(f"hydra.launcher.max_runs={max_runs}: must be 2 or more runs")

    def hand(names: list[str]) -> dict[str, str]:
        stacks, alone = stacks_of({name: settings[name] for name in names}, max_runs)
        if alone:
            reasons = "; ".join(dict.fromkeys(alone.values()))
            say(f"{len(alone)} of {len(names)} runs one after the other: {reasons}")
        errors: dict[str, str] = {}
        for stack in stacks:
            errors |= Stack([Run.of(settings[name]) for name in stack]).train()
        return errors | in_turn(list(alone))

    return hand


def stacks_of(settings: Mapping[str, dict[str, Any]], max_runs: int) -> tuple[list[list[str]], dict[str, str]]:
    """The runs of each stack, of nearly equal sizes, and why each of the others is in none."""
    alike: dict[str, list[str]] = {}
    alone: dict[str, str] = {}
    for name, its in settings.items():
        reason = _refusal(its)
        if reason is None:
            key = {**its, "seed": None, "optim": {**its["optim"], "lr": None}}
            alike.setdefault(json.dumps(key, sort_keys=True), []).append(name)
        else:
            alone[name] = reason
    stacks = []
    for names in alike.values():
        if len(names) == 1:
            alone[names[0]] = "no other run differs from it in seed or optim.lr alone"
            continue
        parts = math.ceil(len(names) / max_runs)
        cuts = [len(names) * part // parts for part in range(parts + 1)]
        stacks += [names[begin:end] for begin, end in pairwise(cuts)]
    return stacks, alone


def _refusal(settings: Mapping[str, Any]) -> str | None:
    if settings["init"] is not None or settings["freeze"] != "none":
        return "init or freeze (each begins from weights of its own)"
    model: Any = look_up("model", settings["model"]["name"], MENU)
    if model.channels_last:
        return f"model={settings['model']['name']} (stacked convolutions become grouped ones, which are slower)"
    if settings["objective"]["name"] != "classify":
        return f"objective={settings['objective']['name']} (it trains modules of its own)"
    if settings["teacher"]:
        return "teacher (each run would ask its own)"
    if settings["model"].get("drop_path"):
        return "model.drop_path (drawn inside the model, where a stack would draw other numbers)"
    return None
