"""`hydra/launcher=stacked`: trains runs that differ only in seed and learning rate as one model.

Each run is an ordinary run: a `Training` builds its model, draws its batches, steps its optimizer, evaluates, saves and
writes its record, in its own folder. Only forward and backward are done for all runs at once. For that, each parameter
lies in a stacked tensor (S,...) whose slice s is the parameter of run s, and so do the gradients. One forward and
backward through `torch.func` (`vmap` over `functional_call`) then serves all runs. So a GPU starts a few large kernels,
where it would start many small ones for each small network in turn.

S  runs of a stack; the other letters as in vitbench/models/__init__.py
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitbench.errors import StorageError, UserError
from vitbench.machine.hardware import Machine, Stopwatch
from vitbench.machine.interrupt import Interrupt, Stopped
from vitbench.machine.memory import ran_out
from vitbench.menu import look_up
from vitbench.models.build import compiled
from vitbench.models.families import LIBRARIES
from vitbench.models.menu import MENU
from vitbench.runs.origin import find_parents
from vitbench.runs.run import Run
from vitbench.sweeping.launch import Execute
from vitbench.training.finish import finish
from vitbench.training.graph import recorded
from vitbench.training.prepare import prepare
from vitbench.training.train import failures_written_down
from vitbench.training.training import Training


class Stacked:
    """Models of one architecture that compute together.

    Their parameters become slices of stacked tensors (S,...), and so do their gradients, which `losses` writes. The
    optimizer and the checkpoints of each model still work on that model alone.
    """

    def __init__(self, models: Sequence[nn.Module], architecture: Mapping[str, Any], machine: Machine) -> None:
        self.machine = machine
        self.parameters: dict[str, Tensor] = {}
        self.gradients: list[Tensor] = []
        template = copy.deepcopy(models[0])  # gives the code, and buffers that no run changes, such as rope's angles
        for name, _ in models[0].named_parameters():
            parameters = [model.get_parameter(name) for model in models]
            stacked = torch.stack([parameter.detach() for parameter in parameters])
            gradient = torch.zeros_like(stacked)
            for s, parameter in enumerate(parameters):
                parameter.data, parameter.grad = stacked[s], gradient[s]
            self.parameters[name] = stacked.requires_grad_()
            stacked.grad = gradient
            self.gradients.append(gradient)
        forward: Any = Vmapped(template)
        if machine.compile:
            _, forward = compiled(template, {**architecture, "stacked": len(models)}, Vmapped)
        self.forward = forward

    def losses(self, images: Sequence[Tensor], targets: Sequence[Tensor], label_smoothing: float) -> Tensor:
        """Computes the mean cross-entropy (S,) of each run on its own batch, and writes all gradients."""
        with self.machine.autocast():
            logits = self.forward(self.parameters, torch.stack(list(images)))  # (S,B,K)
            loss = partial(F.cross_entropy, label_smoothing=label_smoothing)
            losses: Tensor = vmap(loss)(logits, torch.stack(list(targets)))  # (S,)
        for gradient in self.gradients:
            gradient.zero_()
        losses.sum().backward()  # backward adds in place, so the runs' gradients stay slices
        return losses.detach()


class Vmapped(nn.Module):
    """A model as a function of stacked parameters (S,...) and images (S,B,C,H,W), which gives logits (S,B,K).

    Attention is computed as plain matrix products. Under `vmap`, torch's fused kernels do not know that a gradient will
    be needed, and the kernel for CPUs has no batching rule at all. Plain products take a fifth more time on a CPU.
    Where stacking pays, sequences are short, so the (N,N) scores are small.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        def forward_of_one(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
            return functional_call(self.model, parameters, (images,))

        with sdpa_kernel(SDPBackend.MATH):
            return vmap(forward_of_one)(parameters, images)


# --------------------------------------------------------------------------------------------------- training together


class Stack:
    """Trains runs together, batch by batch. When one run ends, for whatever reason, the others continue.

    The runs need not be at the same step, because a stack resumes states that stacks or single runs saved.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = {run.id: run for run in runs}
        self._claims: dict[str, ExitStack] = {}  # the locks of the runs that have not ended
        self._training: dict[str, Training] = {}
        self._views: dict[str, Callable[..., tuple[Tensor, ...]]] = {}  # the function that augments a run's batch
        self._batches: dict[str, tuple[Tensor, ...]] = {}  # the views of each run's next batch
        self._watch = Stopwatch()
        self._errors: dict[str, str] = {}
        self._stops: list[Stopped] = []

    def train(self) -> dict[str, str]:
        """Trains every run to its end. Returns, by id, the errors that are not noted in a run's folder.

        Raises Stopped after a signal.
        """
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
        self._for_each(self._begin, self._runs)
        for training in self._training.values():
            training.stacked = len(self._training)
        self._for_each(self._draw_or_finish, self._training)
        members: list[Training] = []
        while self._batches:
            try:
                if members != (with_batch := [self._training[run_id] for run_id in self._batches]):
                    members = with_batch
                    self._join(members)
                losses = self._losses(*chain(*self._batches.values()))
            except Exception as error:
                if not ran_out(error):
                    self._fail(error)
                    continue
                fewer = max(2, len(members) // 2)
                self._fail(
                    UserError(
                        f"{len(members)} runs in one stack need more memory than there is; "
                        f"repeat the sweep with hydra.launcher.max_runs={fewer}"
                    )
                )
            else:
                self._for_each(partial(self._step, dict(zip(self._batches, losses, strict=True))), self._batches)

    def _for_each(self, act: Callable[[str], None], run_ids: Iterable[str]) -> None:
        """Calls `act` for each run. If it raises for a run, that run has ended and leaves the stack."""
        for run_id in [*run_ids]:
            try:
                with failures_written_down(self._runs[run_id], in_sweep=True):
                    act(run_id)
                continue
            except Stopped as stopped:
                self._stops.append(stopped)
            except StorageError as error:
                self._errors[run_id] = str(error)
            except UserError:
                pass  # the run's folder tells it, or another process holds the run
            except Exception as error:
                self._errors[run_id] = repr(error)
            self._let_go(run_id)

    def _begin(self, run_id: str) -> None:
        """Claims and prepares a run, or lets it go where it has ended already."""
        run, self._claims[run_id] = self._runs[run_id], ExitStack()
        if run.record() is None and run.failure() is None:
            self._claims[run_id].enter_context(run.claim())
            if run.record() is None:  # another process may have finished it since
                training = prepare(run, find_parents(run.settings), self._watch)
                training.resume()
                self._training[run_id] = training
                self._views[run_id] = recorded(training.views, training.machine)
                self._interrupt.saves()
                return
        self._let_go(run_id)

    def _join(self, members: Sequence[Training]) -> None:
        """Makes these runs compute together. CUDA graphs are recorded anew, because their weights have moved."""
        first = members[0]
        stacked = Stacked([member.model for member in members], first.architecture, first.machine)
        smoothing = first.run.settings["optim"]["label_smoothing"]

        def losses(*views: Tensor) -> Tensor:  # images and targets alternate
            return stacked.losses(views[::2], views[1::2], smoothing)

        for member in members:
            member.forget_recorded_evaluation()
        self._losses = recorded(losses, first.machine)
        self._updates = {member.run.id: recorded(member.update, first.machine) for member in members}

    def _step(self, losses: Mapping[str, Tensor], run_id: str) -> None:
        training = self._training[run_id]
        self._updates[run_id](losses[run_id])
        training.count_step()
        training.log_and_save(self._interrupt)
        self._draw_or_finish(run_id)

    def _draw_or_finish(self, run_id: str) -> None:
        training = self._training[run_id]
        if training.goes_on():
            batch = training.next_batch()  # seeds torch's generator, so the views must be drawn right away
            self._batches[run_id] = self._views[run_id](*batch)
        else:
            training.run.finish(finish(training, self._interrupt))
            self._let_go(run_id)

    def _let_go(self, run_id: str) -> None:
        self._claims.pop(run_id).close()
        if training := self._training.pop(run_id, None):
            training.follower.close()
        self._views.pop(run_id, None)
        self._batches.pop(run_id, None)
        self._interrupt.saves()  # `finish` may have let signals end the process at once, but the other runs still save

    def _fail(self, error: Exception) -> None:
        """Ends all runs of the stack with this error."""

        def fail(run_id: str) -> None:
            raise error

        self._for_each(fail, self._batches)


# ------------------------------------------------------------------------------------------- which runs train together


def executor(
    settings: Mapping[str, dict[str, Any]], max_runs: int, in_turn: Execute, say: Callable[[str], None]
) -> Execute:
    """Returns an Execute that does runs in stacks of at most `max_runs`, and the others through `in_turn`."""
    if not isinstance(max_runs, int) or max_runs < 2:
        raise UserError(f"hydra.launcher.max_runs={max_runs}: must be 2 or more runs")

    def execute(run_ids: list[str]) -> dict[str, str]:
        stacks, alone = stacks_of({run_id: settings[run_id] for run_id in run_ids}, max_runs)
        if alone:
            reasons = "; ".join(dict.fromkeys(alone.values()))
            say(f"{len(alone)} of {len(run_ids)} runs are not stacked but trained one after the other: {reasons}")
        errors: dict[str, str] = {}
        for stack in stacks:
            errors |= Stack([Run.of(settings[run_id]) for run_id in stack]).train()
        return errors | in_turn(list(alone))

    return execute


def stacks_of(settings: Mapping[str, dict[str, Any]], max_runs: int) -> tuple[list[list[str]], dict[str, str]]:
    """Sorts runs, by id, into stacks of nearly equal sizes; returns these, and by id why other runs are in none."""
    alike: dict[str, list[str]] = {}
    alone: dict[str, str] = {}
    for run_id, run_settings in settings.items():
        reason = _refusal(run_settings)
        if reason is None:
            shared = {**run_settings, "seed": None, "optim": {**run_settings["optim"], "lr": None}}
            alike.setdefault(json.dumps(shared, sort_keys=True), []).append(run_id)
        else:
            alone[run_id] = reason
    stacks = []
    for run_ids in alike.values():
        if len(run_ids) == 1:
            alone[run_ids[0]] = "no other run differs from it in seed or optim.lr alone"
            continue
        parts = math.ceil(len(run_ids) / max_runs)
        cuts = [len(run_ids) * part // parts for part in range(parts + 1)]
        stacks += [run_ids[begin:end] for begin, end in pairwise(cuts)]
    return stacks, alone


def _refusal(settings: Mapping[str, Any]) -> str | None:
    """Says why a run cannot be in a stack; None where it can."""
    if settings["init"] is not None or settings["freeze"] != "none":
        return "init or freeze (each run begins from weights of its own)"
    if settings["model"]["name"] in LIBRARIES:
        return f"model={settings['model']['name']} (whether its layers can be stacked is not known)"
    model: Any = look_up("model", settings["model"]["name"], MENU)
    if model.channels_last:
        return f"model={settings['model']['name']} (stacked convolutions become grouped ones, which are slower)"
    if settings["objective"]["name"] != "classify":
        return f"objective={settings['objective']['name']} (it trains modules beside the network)"
    if settings["teacher"]:
        return "teacher (each run would need its own teacher)"
    if settings["optim"]["class_weights"] != "none":
        return "optim.class_weights (each run weighs the classes of its own images)"
    if settings["machine"]["microbatch"]:
        return "machine.microbatch (a stack computes whole batches)"
    if settings["model"].get("drop_path"):
        return "model.drop_path (the model draws it, and in a stack it would draw other numbers)"
    return None
