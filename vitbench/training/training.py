"""A run while it trains: what it trains with, how far it is, and all it does but forward and backward.

train.py has the loop of a single run, and vitbench/sweeping/stacked.py that of several runs which compute together.
Both loops call the methods here, around their own forward and backward.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from vitbench.data.augment import Augment
from vitbench.data.loader import Loader, Normalise, seed_random_state
from vitbench.data.share import Images, Share
from vitbench.errors import DataError, UserError
from vitbench.machine.disk import write
from vitbench.machine.distributed import agreed, average, led, mine
from vitbench.machine.hardware import Machine, Stopwatch
from vitbench.machine.interrupt import Interrupt, Stopped
from vitbench.objectives.base import Objective
from vitbench.runs.origin import Parents
from vitbench.runs.record import Beginning
from vitbench.runs.run import Run
from vitbench.settings.schedule import Schedule
from vitbench.training import checkpoint, transfer
from vitbench.training.evaluate import evaluate

SECONDS_BETWEEN_SAVES = 300  # a run saves at each evaluation, and in between after so long


@dataclass(eq=False)
class Training:
    run: Run
    parents: Parents
    init: Beginning | None  # what the record says of the weights that it begins from
    machine: Machine
    share: Share  # its images, for training, validation and test
    validation: Images | None  # None where there are none, or where the objective learns no classes
    architecture: dict[str, Any]  # what `build_model` was given
    parameters: int
    multiply_adds: int  # of the forward of one image
    model: Any
    forward: Any  # the model, compiled or replicated over processes
    normalise: Normalise
    objective: Objective
    optimizer: Optimizer
    averaged: AveragedModel | None  # the moving average of the weights, where optim.ema asks for one
    augment: Augment
    loader: Loader
    schedule: Schedule
    every: int  # steps between two evaluations
    commit: str | None  # of the code when the run began, which files on disk may no longer be
    watch: Stopwatch  # runs of a stack share one
    stacked: int = 1  # how many runs train as one model

    step: int = 0  # steps that are done
    diverged_step: int | None = None
    train_seconds: float = 0.0
    note: str = ""  # the newest loss, for the progress bar
    warnings: list[str] = field(default_factory=list)
    _seconds_before: float = 0.0  # of training, before this process resumed the run
    _first_loss: int = 0  # the first step whose loss `_losses` has and no line of metrics.csv had
    _saved: float = field(default_factory=time.monotonic)  # the time of the last save, or of the beginning

    # ------------------------------------------------------------------------------------------------------ resuming

    @cached_property
    def _losses(self) -> Tensor:
        """The loss of each step. All are kept, because a branch may evaluate at other steps than its run."""
        return torch.zeros(self.steps, device=self.machine.device)

    @property
    def _parts(self) -> dict[str, Any]:
        """What a saved state holds, by the names of the arguments of `gather` and `restore`."""
        return {
            "model": self.model,
            "objective": self.objective,
            "optimizer": self.optimizer,
            "averaged": self.averaged,
            "losses": self._losses,
        }

    def resume(self) -> None:
        """Goes on from the newest whole state, if one was saved, and writes the settings into the run's folder."""
        for path in led(self.run.states):
            try:
                saved = checkpoint.restore(path, self.run.id, **self._parts)
            except UserError as error:
                self.warnings.append(f"{error}; went back to the save before it")
                continue
            self._go_on_from(saved)
            break
        else:
            if (origin := self.parents.origin) is not None and origin.is_branch:
                assert origin.path is not None
                self._go_on_from(checkpoint.restore(origin.path, origin.name, **self._parts), origin.name)
        led(self.run.start)
        led(self.run.rewind, self.step)
        self.model.train()
        if self.run.settings["freeze"] == "backbone":
            transfer.freeze(self.model)
        self._saved = time.monotonic()

    def _go_on_from(self, saved: dict[str, Any], branched_from: str | None = None) -> None:
        """Takes over what a saved state says of itself, which may be that of the run from which this one branches off.

        `restore` has put its tensors in their places.
        """
        if saved["data"] != self.share.dataset.fingerprint:
            again = "" if branched_from else f", or remove {self.run.folder} to begin again"
            raise DataError(
                f"data.root={self.run.settings['data']['root']}: the images changed since "
                f"{branched_from or self.run.id} began; restore them{again}"
            )
        self.step, self._seconds_before = saved["step"], saved["train_seconds"]
        self.train_seconds = self._seconds_before
        if not branched_from and (too_late := [step for step in self.run.lost() if step <= self.step]):
            self.warnings.append(f"resumed at step {self.step}, so keep=[{','.join(map(str, too_late))}] came too late")
        # with another eval_every the last line of metrics.csv stands elsewhere; a branch has no line yet
        counts_on = branched_from is not None or saved["every"] == self.every
        self._first_loss = 0 if saved["has_losses"] and counts_on else self.step
        if saved["commit"] != self.commit:
            self.warnings.append(f"resumed at step {self.step} with commit {self.commit}; begun with {saved['commit']}")

    # ---------------------------------------------------------------------------------------------------------- a step

    @property
    def steps(self) -> int:
        """The steps of the whole run."""
        return self.schedule.steps

    def goes_on(self) -> bool:
        return self.step < self.steps and self.diverged_step is None

    def next_batch(self) -> tuple[Tensor, ...]:
        """This process's part of the next batch, as the objective views it; seed and step alone decide it."""
        self.watch.start()
        seed_random_state(self.run.settings["seed"], self.step + 1)
        views = self.objective.views(*self.loader.batch(self.step), self.augment, self.normalise)
        return tuple(map(mine, views))

    def update(self, loss: Tensor) -> None:
        """Steps the optimizer, now that `loss` has its gradients; writes a file of weights if `keep` names the step."""
        recipe = self.run.settings["optim"]
        share_of_peak = self.schedule.share_of_peak(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe["lr"] * share_of_peak * group["scale"]
        if recipe["clip"]:
            nn.utils.clip_grad_norm_([*self.model.parameters(), *self.objective.parameters()], recipe["clip"])
        self.optimizer.step()
        if self.averaged:
            self.averaged.update_parameters(self.model)
        self._losses[self.step] = loss.detach()  # it is read when it is logged: reading waits for a GPU
        self.step += 1
        if self.step in (self.run.settings["keep"] or []):
            self._stop_watch()
            led(write, self.run.weights(self.step), self.weights())
            if self.schedule.kind == "wsd":
                average(self._losses)
                led(write, self.run.kept_state(self.step), self._state())

    @property
    def evaluated(self) -> Any:
        """The network that is validated, tested and written to files: the averaged one, if there is one."""
        return self.averaged.module if self.averaged else self.model

    def weights(self) -> bytes:
        """The bytes of a file with the weights of `evaluated`."""
        origin = {"run": self.run.id, "classes": list(self.share.dataset.classes)}
        return checkpoint.to_bytes(self.evaluated.state_dict(), origin)

    def _stop_watch(self) -> None:
        """Stops the watch, when the device has done all that it was given, and notes the time."""
        self.machine.synchronise()
        self.watch.stop()
        self.train_seconds = self._seconds_before + self.watch.seconds

    # ----------------------------------------------------------------------------------------------- between two steps

    def log_and_save(self, interrupt: Interrupt) -> None:
        """Evaluates, logs and saves if it is time to; after a signal saves and raises Stopped."""
        evaluates = self.step % self.every == 0 or self.step == self.steps
        save_is_due = time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES
        if not (evaluates or agreed(interrupt.received or save_is_due)):
            return
        self._stop_watch()
        average(self._losses)
        if evaluates:
            self._evaluate_and_log()
        if self.diverged_step is not None:
            return
        led(self._save)
        if received := agreed(interrupt.received):
            raise Stopped(f"{self.run.id}: saved at step {self.step} of {self.steps}", received)
        self._saved = time.monotonic()

    def _evaluate_and_log(self) -> None:
        """Adds a line to metrics.csv, or sets `diverged_step` if a loss since the last line is not finite."""
        first = max((self.step - 1) // self.every * self.every, self._first_loss)
        losses = self._losses[first : self.step]
        if not losses.isfinite().all():
            self.diverged_step = first + int((~losses.isfinite()).nonzero()[0]) + 1
            return
        loss = losses.mean().item()
        validated = evaluate(self.evaluated, *self.validation, self.normalise) if self.validation else None
        self.note = f"loss {loss:.3f}"
        line = {
            "step": self.step,
            "epoch": self.step / (len(self.loader.labels) / self.loader.batch_size),
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss,
            "train_seconds": round(self.train_seconds, 3),
            "val_accuracy": validated and validated.accuracy,
            "val_loss": validated and validated.loss,
        }
        led(self.run.log, line | self.objective.measured())

    def _save(self) -> None:
        self.run.save_state(self._state())

    def _state(self) -> bytes:
        """The bytes of a file with all that resuming needs."""
        about = {
            "run": self.run.id,
            "step": self.step,
            "train_seconds": self.train_seconds,
            "every": self.every,
            "data": self.share.dataset.fingerprint,
            "commit": self.commit,
        }
        return checkpoint.gather(about, **self._parts)
