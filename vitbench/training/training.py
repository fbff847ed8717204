"""The state of a run while it trains, and all steps of the work except the forward and backward pass.

train.py has the loop of a single run, and vitbench/sweeping/stacked.py has the loop of several runs that are computed
together. Both loops call the methods here around their own forward and backward pass. `views` and `update` run on the
device alone, because a GPU may record and replay them (graph.py): they must not read the value of a tensor on the host,
and must use `step` only as a tensor. `next_batch` and `count_step` do the work of the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from vitbench.data.augment import Augment
from vitbench.data.loader import Loader, Normalise, seed_random_state
from vitbench.data.online import OnlineLoader
from vitbench.data.share import SAMPLE, Images, Share
from vitbench.data.stream import Stream
from vitbench.errors import DataError, RunFailed, UserError
from vitbench.machine.disk import write
from vitbench.machine.distributed import agreed, average, led, mine
from vitbench.machine.hardware import Machine, Stopwatch
from vitbench.machine.interrupt import Interrupt, Stopped
from vitbench.machine.memory import free_bytes, ran_out
from vitbench.objectives.base import Objective
from vitbench.runs.follow import Follower
from vitbench.runs.origin import Parents
from vitbench.runs.record import Beginning
from vitbench.runs.run import Run
from vitbench.settings.schedule import Schedule
from vitbench.training import checkpoint, optim, transfer
from vitbench.training.evaluate import Evaluation, evaluate, forward_of
from vitbench.training.graph import recorded

SECONDS_BETWEEN_SAVES = 300  # a run saves at each evaluation, and also when this time has passed since the last save


@dataclass(eq=False)
class Training:
    run: Run
    follower: Follower  # sends what the run has saved to trackers
    parents: Parents
    init: Beginning | None  # the record's entry about the initial weights
    machine: Machine
    share: Share  # the images for training, validation and test
    validation: Images | None  # None if there are no such images, or if the objective learns no classes
    architecture: dict[str, Any]  # the arguments of `build_model`
    parameters: int
    multiply_adds: int  # of the forward pass of one image
    model: Any
    forward: Any  # the model, which may be compiled, or replicated over processes
    normalise: Normalise
    objective: Objective
    optimizer: Optimizer
    averaged: AveragedModel | None  # the moving average of the weights, if optim.ema is set
    augment: Augment
    loader: Loader | OnlineLoader
    schedule: Schedule
    every: int  # steps between two evaluations
    commit: str | None  # commit of the code that this process runs; the files on disk may have changed since
    watch: Stopwatch  # runs of a stack share one
    stacked: int = 1  # number of runs that train together as one model

    step: int = 0  # number of steps that are done
    diverged_step: int | None = None
    train_seconds: float = 0.0
    compile_seconds: float | None = None  # time of the first step, if it compiled the model
    note: str = ""  # the newest loss, for the progress bar
    warnings: list[str] = field(default_factory=list)
    _seconds_before: float = 0.0  # training time before this process resumed the run
    _first_here: int = 0  # number of steps that were done before this process
    _first_loss: int = 0  # the first step whose loss is in `_losses` and not yet in a line of metrics.csv
    _saved: float = field(default_factory=time.monotonic)  # the time of the last save, or of the start

    # ------------------------------------------------------------------------------------------------------ resuming

    @cached_property
    def _losses(self) -> Tensor:
        """The loss of each step. All are kept, because a branch may evaluate at other steps than the run it leaves."""
        return torch.zeros(self.steps, device=self.machine.device)

    @cached_property
    def _place(self) -> Tensor:
        """The index (1,) of the next loss in `_losses`: `step` as a tensor, which the step itself increases."""
        return torch.tensor([self.step], device=self.machine.device)

    @property
    def _parts(self) -> dict[str, Any]:
        """The parts of a saved state, by the names of the arguments of `gather` and `restore`."""
        return {
            "model": self.model,
            "objective": self.objective,
            "optimizer": self.optimizer,
            "averaged": self.averaged,
            "losses": self._losses,
        }

    def resume(self) -> None:
        """Continues from the newest intact state, if one was saved, and writes the settings into the run's folder."""
        lines = None  # of metrics.csv
        for path in led(self.run.states):
            try:
                saved = checkpoint.restore(path, self.run.id, **self._parts)
            except UserError as error:
                self.warnings.append(f"{error}; the run went back to the save before it")
                continue
            self._go_on_from(saved)
            lines = saved.get("metrics")
            break
        else:
            if (origin := self.parents.origin) is not None and origin.is_branch:
                assert origin.path is not None
                self._go_on_from(checkpoint.restore(origin.path, origin.name, **self._parts), origin.name)
        self._first_here = self.step
        led(self.run.start)
        led(self.run.rewind, self.step, lines)
        self.model.train()
        if self.run.settings["freeze"] == "backbone":
            transfer.freeze(self.model)
        self._check_microbatch()
        self._saved = time.monotonic()

    def _check_microbatch(self) -> None:
        """Asserts that there are no parts of a batch that is normalised as a whole (vitbench/settings/check.py)."""
        size = self.run.settings["machine"]["microbatch"]
        assert not size or size >= self.loader.batch_size or not self._normalises_over_the_batch

    @property
    def _normalises_over_the_batch(self) -> bool:
        modules = [*self.model.modules(), *self.objective.modules()]
        return any(isinstance(module, _BatchNorm) and module.training for module in modules)

    def _go_on_from(self, saved: dict[str, Any], branched_from: str | None = None) -> None:
        """Takes over the metadata of a saved state, of this run or of the run from which this one branches off.

        `restore` has loaded its tensors before.
        """
        if saved["data"] != self.share.dataset.fingerprint:
            again = "" if branched_from else f", or remove {self.run.folder} to begin again"
            raise DataError(
                f"data.root={self.run.settings['data']['root']}: the images changed since "
                f"{branched_from or self.run.id} began; restore them{again}"
            )
        self.step, self._seconds_before = saved["step"], saved["train_seconds"]
        self.train_seconds = self._seconds_before
        if not branched_from:
            self.warnings += led(checkpoint.set_damaged_aside, self.run.id, self.run.files_kept(self.step))
        if not branched_from and (too_late := [step for step in self.run.lost() if step <= self.step]):
            kept = f"keep=[{','.join(map(str, too_late))}]"
            self.warnings.append(f"the run was resumed at step {self.step}, so {kept} came too late")
        # With another eval_every the next line of metrics.csv covers other steps, and a branch has no line yet.
        counts_on = branched_from is not None or saved["every"] == self.every
        self._first_loss = 0 if saved["has_losses"] and counts_on else self.step
        if saved["commit"] != self.commit:
            self.warnings.append(
                f"the run was resumed at step {self.step} with commit {self.commit}; it began with {saved['commit']}"
            )

    # ---------------------------------------------------------------------------------------------------------- a step

    @property
    def steps(self) -> int:
        """The number of steps of the whole run."""
        return self.schedule.steps

    @property
    def resumed(self) -> bool:
        """Whether steps were done before this process."""
        return self._first_here > 0

    def goes_on(self) -> bool:
        return self.step < self.steps and self.diverged_step is None

    def next_batch(self) -> tuple[Tensor, ...]:
        """Prepares the next step: seeds its random numbers, sets its learning rate, returns the arguments of `views`.

        All of these depend only on the run's seed and the step.
        """
        self.watch.start()
        seed_random_state(self.run.settings["seed"], self.step + 1)
        optim.set_learning_rate(self.optimizer, self.learning_rate(self.step))
        return self.loader.batch(self.step)

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0, for parameter groups with a `scale` of 1."""
        peak: float = self.run.settings["optim"]["lr"]
        return peak * self.schedule.share_of_peak(step)

    def views(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """Returns this process's part of a batch, in the views that the objective makes of it."""
        views = self.objective.views(*self.loader.take(*batch), self.augment, self.normalise)
        return tuple(map(mine, views))

    def parts(self, views: tuple[Tensor, ...]) -> list[tuple[tuple[Tensor, ...], float]]:
        """Returns the parts of the views that are computed one after the other, each with its share of the batch.

        There is one part, unless `machine.microbatch` sets the number of images of a part.
        """
        rows = len(views[0])
        parts = zip(*(view.split(self.run.settings["machine"]["microbatch"] or rows) for view in views), strict=True)
        return [(part, len(part[0]) / rows) for part in parts]

    @contextmanager
    def memory_told(self, work: str, images: int) -> Iterator[None]:
        """Turns an out-of-memory error into a RunFailed of one line; `work` computes `images` at a time."""
        try:
            yield
        except Exception as error:
            if not ran_out(error):
                raise
            free = f"{free_bytes(self.machine.device) / 2**30:.1f} GiB free"
            raise RunFailed(
                f"{self.run.id}: {work} needs more memory than there is ({free}); {self._what_needs_less(images)}"
            ) from None

    def step_told(self) -> AbstractContextManager[None]:
        batch, part = self.loader.batch_size, self.run.settings["machine"]["microbatch"]
        size = f"optim.batch_size={batch}" + (f" in parts of {part}" if part else "")
        return self.memory_told(f"step {self.step + 1} with {size}", part or batch)

    def _what_needs_less(self, images: int) -> str:
        """Returns advice on settings that compute fewer than `images` at a time."""
        if images == 1:
            return f"a smaller model.{'arch' if 'arch' in self.run.settings['model'] else 'size'} needs less"
        if self._normalises_over_the_batch or self.run.settings["model"].get("drop_path"):
            return f"optim.batch_size={images // 2} needs less, but makes another run"
        return f"machine.microbatch={images // 2} computes the same run in smaller parts"

    def update(self, loss: Tensor) -> None:
        """Updates the weights by the gradients of `loss`, updates their moving average, and stores the loss."""
        recipe = self.run.settings["optim"]
        if recipe["clip"]:
            nn.utils.clip_grad_norm_([*self.model.parameters(), *self.objective.parameters()], recipe["clip"])
        self.optimizer.step()
        if self.averaged:
            # The first step is never recorded, so no graph repeats its share of 1.
            optim.average_into(self.averaged, self.model, 1.0 if self.step == 0 else 1 - recipe["ema"])
        self._losses.index_copy_(0, self._place, loss.detach().view(1))  # reading the loss would wait for the GPU
        self._place += 1

    def count_step(self) -> None:
        """Counts a finished step; writes its weights to a file if `keep` names the step."""
        self.step += 1
        if self.averaged:
            self.averaged.n_averaged.fill_(self.step)
        if self.step == self._first_here + 1 and self.machine.compile:
            self.machine.synchronise()
            self.compile_seconds = self.watch.running
        if self.step in (self.run.settings["keep"] or []):
            self._stop_watch()
            led(write, self.run.weights(self.step), self.weights())
            if self.schedule.kind == "wsd":
                average(self._losses)
                led(write, self.run.kept_state(self.step), self._state())

    @property
    def evaluated(self) -> Any:
        """The network that is validated, tested and written to files: the moving average, if there is one."""
        return self.averaged.module if self.averaged else self.model

    @cached_property
    def _forward_in_evaluation(self) -> Callable[[Tensor], Tensor]:
        """The function from a batch of images to the logits of the network that is evaluated."""
        return recorded(partial(forward_of, self.evaluated, self.normalise), self.machine)

    def forget_recorded_evaluation(self) -> None:
        """Makes the next evaluation record a new graph, because the weights have moved to other addresses in memory."""
        self.__dict__.pop("_forward_in_evaluation", None)

    def evaluate(self, images: Tensor | Stream, labels: Tensor) -> Evaluation:
        """Tests the network on 500 images at a time, or on `machine.microbatch` if that is set and smaller."""
        at_a_time = min(self.run.settings["machine"]["microbatch"] or 500, 500)
        with self.memory_told(f"evaluation, {at_a_time} images at a time,", at_a_time):
            forward = self._forward_in_evaluation
            return evaluate(self.evaluated, images, labels, self.normalise, at_a_time, forward)

    def sample_of_training_images(self) -> Images:
        """Returns at most SAMPLE of the run's training images; they do not depend on the length of the run."""
        if isinstance(self.loader, OnlineLoader):
            return self.loader.sample(SAMPLE)
        return self.share.sample(self.machine.device)

    def weights(self) -> bytes:
        """Returns the bytes of a file with the weights of `evaluated`."""
        statistics: dict[str, Any] = {"mean": list(self.normalise.mean), "std": list(self.normalise.std)}
        origin = {"run": self.run.id, "classes": list(self.share.dataset.classes), **statistics}
        return checkpoint.to_bytes(self.evaluated.state_dict(), origin)

    def _stop_watch(self) -> None:
        """Waits until the device has finished all its work, then stops the watch and stores the training time."""
        self.machine.synchronise()
        self.watch.stop()
        self.train_seconds = self._seconds_before + self.watch.seconds

    # ----------------------------------------------------------------------------------------------- between two steps

    def log_and_save(self, interrupt: Interrupt) -> None:
        """Evaluates, logs and saves if one of them is due. After a signal it saves and raises Stopped."""
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
        self.follower.saved(self.step)
        if received := agreed(interrupt.received):
            raise Stopped(f"{self.run.id}: saved at step {self.step} of {self.steps}", received)
        self._saved = time.monotonic()

    def _evaluate_and_log(self) -> None:
        """Appends a line to metrics.csv, or sets `diverged_step` if a loss since the last line is not finite."""
        first = max((self.step - 1) // self.every * self.every, self._first_loss)
        losses = self._losses[first : self.step]
        if not losses.isfinite().all():
            self.diverged_step = first + int((~losses.isfinite()).nonzero()[0]) + 1
            return
        loss = losses.mean().item()
        validated = self.evaluate(*self.validation) if self.validation else None
        self.note = f"loss {loss:.3f}"
        line = {
            "step": self.step,
            "epoch": self.step / (self.loader.train_images / self.loader.batch_size),
            "lr": self.learning_rate(self.step - 1) * self.optimizer.param_groups[0]["scale"],
            "train_loss": loss,
            "train_seconds": round(self.train_seconds, 3),
            "val_accuracy": validated and validated.accuracy,
            "val_loss": validated and validated.loss,
        }
        led(self.run.log, line | self.objective.measured())

    def _save(self) -> None:
        self.run.save_state(self._state(self.run.lines()))

    def _state(self, metrics: bytes | None = None) -> bytes:
        """Returns the bytes of a file with all that resuming needs. A branch needs no lines of metrics.csv."""
        about = {
            "run": self.run.id,
            "step": self.step,
            "train_seconds": self.train_seconds,
            "every": self.every,
            "data": self.share.dataset.fingerprint,
            "commit": self.commit,
        }
        return checkpoint.gather(about, metrics=metrics, **self._parts)
