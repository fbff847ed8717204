"""Times a step of a network that nobody has trained here yet, on images of noise."""

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

FEW = 16  # images of the first step, by which a whole batch is judged to be too slow to wait for
SECONDS = 0.5  # of steps that are timed
CLASSES = 10


def seconds_an_image(settings: Mapping[str, Any], image_size: int) -> float | None:
    """The seconds that a run of these settings trains for an image; None where its network cannot be built or run.

    It augments, computes the objective and updates the weights as a run does, but asks no teacher. It takes a second
    or two, or two steps of FEW images where these are slower.
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
    """Stands for a teacher, whose time is not measured: logits (B,K) of zeros."""
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
        """The seconds of a step of so many images."""
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
    step(few)  # the first step makes what later ones keep
    seconds = step(few)
    if few == at_once or seconds * at_once / few > SECONDS:
        return seconds / few
    times = [step(at_once)]
    while sum(times) < SECONDS:
        times.append(step(at_once))
    return sorted(times)[len(times) // 2] / at_once
