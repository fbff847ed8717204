"""Times training steps of a network on images of noise, for estimates before any run has been trained."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitbench.data.loader import Normalise
from vitbench.errors import UserError
from vitbench.machine.memory import ran_out
from vitbench.models.build import build_model
from vitbench.objectives.build import build_objective
from vitbench.training.optim import build_optimizer
from vitbench.training.prepare import augment_of, machine_of
from vitbench.training.transfer import freeze

FEW = 16  # images of the first steps, which show whether a step with a whole batch would take too long to time
SECONDS = 0.5  # time that the timed steps take together
CLASSES = 10


def seconds_an_image(settings: Mapping[str, Any], image_size: int) -> float | None:
    """Returns the training time per image in seconds of a run with these settings; None if it cannot be built or run.

    A timed step augments images, computes the objective and updates the weights as in a run, but without a teacher. The
    measurement takes a second or two, or as long as two steps with FEW images if these are slower.
    """
    try:
        return _seconds_an_image(settings, image_size)
    except UserError:
        return None  # the run itself says what is wrong
    except RuntimeError as error:
        if not ran_out(error):
            raise
        return None


def _silent_teacher(images: Tensor) -> Tensor:
    """Replaces a teacher, whose time is not measured, by logits (B,K) of zeros."""
    return images.new_zeros(len(images), CLASSES)


def _seconds_an_image(settings: Mapping[str, Any], image_size: int) -> float:
    machine = machine_of({**settings, "machine": {**settings["machine"], "compile": False, "graph": False}})
    architecture = {**settings["model"], "image_size": image_size, "channels": 3, "num_classes": CLASSES}
    model: Any = build_model(**architecture)
    layout: Any = torch.channels_last if model.channels_last else torch.preserve_format
    model.to(machine.device, memory_format=layout).train()
    if settings["freeze"] == "backbone":
        freeze(model)
    recipe = settings["optim"]
    objective: Any = build_objective(
        **settings["objective"],
        model=model,
        label_smoothing=recipe["label_smoothing"],
        teacher=_silent_teacher if settings["teacher"] else None,
        distill=settings["distill"],
    ).to(machine.device)
    keys = ("optimizer", "lr", "weight_decay", "momentum", "beta2")
    optimizer = build_optimizer(model, objective, **{key: recipe[key] for key in keys})
    augment = augment_of(settings, architecture)
    at_once = min(recipe["batch_size"], settings["machine"]["microbatch"] or recipe["batch_size"])
    images = torch.randint(0, 256, (at_once, 3, image_size, image_size), dtype=torch.uint8, device=machine.device)
    labels = torch.randint(0, CLASSES, (at_once,), device=machine.device)
    normalise = Normalise.of(images, model.channels_last)

    def step(size: int) -> float:
        """Returns the seconds that a step with this many images takes."""
        begin = time.monotonic()
        views = objective.views(images[:size], labels[:size], augment, normalise)
        with machine.autocast():
            loss = objective(model, *views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        machine.synchronise()
        return time.monotonic() - begin

    few = min(FEW, at_once)
    step(few)  # the first step takes longer, because it allocates what later ones reuse
    seconds = step(few)
    if few == at_once or seconds * at_once / few > SECONDS:
        return seconds / few
    times = [step(at_once)]
    while sum(times) < SECONDS:
        times.append(step(at_once))
    return sorted(times)[len(times) // 2] / at_once
