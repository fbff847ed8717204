"""Estimates after the first steps how long a run will take, and says what would shorten a long run on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vitbench.data.share import SAMPLE
from vitbench.models.menu import SIZES
from vitbench.numbers.words import HOUR, number, spoken
from vitbench.training.graph import WARM_UPS
from vitbench.training.training import Training

TIMED_STEPS = 20  # number of steps that are timed, or fewer if these already take TIMED_SECONDS
TIMED_SECONDS = 2.0
UNTOLD_SECONDS = 10  # runs that take less get no estimate


class Forecast:
    """Times the first steps of a run, apart from the very first one. It changes no number of the run."""

    def __init__(self, training: Training, say: Callable[[str], None]) -> None:
        self.training, self.say = training, say
        self._from = training.step + 1 + (WARM_UPS if training.machine.graph else 0)
        self._before = 0.0
        self._told = False

    def after_step(self) -> None:
        """Must be called after each step, before the evaluation."""
        timed = self.training.step - self._from
        if self._told or timed < 0:
            return
        if timed == 0:
            self.training.machine.synchronise()
            self._before = self._seconds_of_training()
        elif timed >= TIMED_STEPS or self._seconds_of_training() - self._before >= TIMED_SECONDS:
            self._told = True
            self.training.machine.synchronise()  # a GPU may not have finished the steps yet
            self._tell((self._seconds_of_training() - self._before) / timed)

    def _seconds_of_training(self) -> float:
        return self.training.watch.seconds + self.training.watch.running

    def _tell(self, step_seconds: float) -> None:
        training = self.training
        left = training.steps - training.step
        total = left * step_seconds + self._evaluation(step_seconds)
        if total < UNTOLD_SECONDS:
            return
        on_gpu = training.machine.device.type == "cuda"
        step = f"{number(step_seconds)} s" if step_seconds >= 0.1 else f"{1000 * step_seconds:.2g} ms"
        steps = f"{left:,} of {training.steps:,} steps left" if training.resumed else f"{training.steps:,} steps"
        more = "more " if training.resumed else ""
        self.say(f"about {spoken(total)} {more}on this {'GPU' if on_gpu else 'CPU'} ({step} a step, {steps})")
        if total > HOUR and not on_gpu:
            size = int(training.architecture["image_size"])
            self.say(shorter(training.run.settings, size, training.loader.train_images))

    def _evaluation(self, step_seconds: float) -> float:
        """Returns the seconds of all later evaluations, where an image takes about a third of its time in training."""
        training = self.training
        evaluations = math.ceil(training.steps / training.every) - training.step // training.every
        images = evaluations * (len(training.validation[1]) if training.validation else 0)
        images += len(training.share.dataset.test) + min(SAMPLE, training.loader.train_images)
        return images * step_seconds / training.loader.batch_size / 3


def shorter(settings: Mapping[str, Any], image_size: int | None, train_images: int | None) -> str:
    """Returns a line with settings that would shorten a run, as people type them; None: the number is not known."""
    *ways, last = _ways(settings, image_size or 0, train_images)
    return f"this is more than an hour; the run is shorter with {', '.join(ways)} or {last}"


def _ways(settings: Mapping[str, Any], image_size: int, train_images: int | None) -> Iterator[str]:
    optim, model, data = settings["optim"], settings["model"], settings["data"]
    if optim["epochs"] is None:
        yield f"fewer steps (optim.steps={optim['steps'] // 2})"
    elif optim["min_steps"] is None:
        yield f"fewer epochs (optim.epochs={optim['epochs'] / 2:g})"
        if data["fraction"] != 1:
            yield f"fewer images (data.fraction={data['fraction'] / 2:g})"
        elif train_images is not None:
            yield f"fewer images (data.count={train_images // 2})"
    else:
        yield f"fewer epochs (optim.epochs={optim['epochs'] / 2:g} optim.min_steps={max(1, optim['min_steps'] // 2)})"
    patch: Any = model.get("patch_size")
    if image_size >= 64 and image_size % (2 * (patch or 1)) == 0:
        # A patch size of null shrinks with the images, so the number of patches would stay the same.
        kept = f" model.patch_size={patch}" if patch else ""
        yield f"smaller images (data.image_size={image_size // 2}{kept})"
    if patch and image_size % (2 * patch) == 0 and image_size >= 8 * patch:
        yield f"larger patches (model.patch_size={2 * patch})"
    names = [*SIZES]
    if model.get("size") in names[1:]:
        yield f"a smaller network (model.size={names[names.index(model['size']) - 1]})"
    yield "a GPU"
