"""Builds all that a run trains with from its settings: images, model, objective, optimizer and batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.data.augment import Augment
from vitbench.data.loader import Loader, Normalise, seed_random_state
from vitbench.data.online import Drawn, OnlineLoader
from vitbench.data.share import Share, load
from vitbench.data.stream import Stream
from vitbench.errors import RunFailed, UserError
from vitbench.machine.distributed import all_or_none, led, replicated
from vitbench.machine.hardware import Machine, Stopwatch
from vitbench.machine.memory import free_bytes
from vitbench.machine.provenance import commit
from vitbench.models.build import build_model, compiled, cost
from vitbench.models.families import LIBRARIES
from vitbench.models.library import Network
from vitbench.objectives import build as objectives
from vitbench.objectives.classify import balanced_weights
from vitbench.runs.ancestor import check_teacher, validation_leaks
from vitbench.runs.follow import Follower
from vitbench.runs.origin import Parents
from vitbench.runs.record import Beginning
from vitbench.runs.run import Run
from vitbench.settings.check import draws_on_host
from vitbench.settings.compose import flatten
from vitbench.settings.schedule import Schedule, steps_of
from vitbench.settings.share import places_of, share_options, source_options
from vitbench.training import optim, transfer
from vitbench.training.networks import normalise_of, refuse_parts_of_batch
from vitbench.training.training import Training


def prepare(run: Run, parents: Parents, together: Stopwatch | None = None) -> Training:
    """Builds all that a run needs for its first step.

    A run that trains in a stack shares the stack's watch, `together`. Its model is not compiled here, because the stack
    compiles one model for all its runs.
    """
    settings, recipe = run.settings, run.settings["optim"]
    code = commit()
    machine = machine_of(settings)
    share = share_of(settings)
    places = led(places_of, settings, share.dataset.train.image_size)
    validation = share.validation(machine.device)
    images, labels = share.train(machine.device)
    architecture = architecture_of(settings, share)
    parameters, multiply_adds = cost(**architecture, memory=Path(settings["data"]["cache"]))
    _check_memory(parameters, machine.device)
    model, init = _model(settings, architecture, parents, share, machine)
    if machine.device.type == "cuda":
        _make_deterministic(model)
    if machine.compile and together is None:
        whole = {**architecture, "frozen": settings["freeze"] == "backbone"}
        model, forward = compiled(model, whole, replicated)
    else:
        forward = replicated(model)
    normalise, note = normalise_of(images, model, parents.origin, places)
    objective = objectives.build_objective(
        **settings["objective"],
        model=model,
        label_smoothing=recipe["label_smoothing"],
        teacher=_teacher(settings, parents, share, normalise),
        distill=settings["distill"],
        class_weights=_class_weights(recipe, labels, len(share.dataset.classes)),
    ).to(machine.device)
    validation = validation if objective.classifies else None
    chosen = ("optimizer", "lr", "weight_decay", "momentum", "beta2", "layer_decay")
    optimizer = optim.build_optimizer(model, objective, **{key: recipe[key] for key in chosen})
    if machine.graph or machine.device.type == "cuda":  # on every GPU, so that results are the same without a graph
        optim.hold_learning_rate(optimizer, machine.device)
    steps = _steps(settings, len(labels))
    return Training(
        run=run,
        follower=Follower(run),
        parents=parents,
        init=init,
        parameters=parameters,
        multiply_adds=multiply_adds,
        machine=machine,
        share=share,
        validation=validation,
        architecture=architecture,
        model=model,
        forward=forward,
        normalise=normalise,
        objective=objective,
        optimizer=optimizer,
        averaged=optim.averaged(model) if recipe["ema"] else None,
        augment=augment_of(settings, architecture),
        loader=loader_of(settings, images, labels, steps),
        schedule=Schedule.of(recipe, steps),
        every=settings["eval_every"] or math.ceil(steps / 10),
        commit=code,
        watch=together or Stopwatch(),
        warnings=[*_warnings(settings, share, validation is not None), *note],
    )


def machine_of(settings: Mapping[str, Any]) -> Machine:
    """Returns the machine that the run computes on."""
    options = {key: settings["machine"][key] for key in ("device", "precision", "compile", "threads", "graph")}
    if settings["objective"]["name"] != "classify":
        options["compile"] = False  # other objectives call parts of the model, which would not be compiled
    if settings["model"]["name"] in LIBRARIES and options["graph"] is None:
        options["graph"] = False  # a library's network may do work on the host, which a graph cannot repeat
    if draws_on_host(flatten(settings)):
        options["graph"] = False  # a graph would repeat the random numbers of the recorded step
    return all_or_none(Machine.of, **options)


def share_of(settings: Mapping[str, Any]) -> Share:
    """Returns the images of the run for training, validation and test."""
    data = source_options(settings["data"]) | share_options(settings)
    machine = settings["machine"]
    return all_or_none(load, **data, images=machine["images"], progress=machine["progress"] is not False)


def architecture_of(settings: Mapping[str, Any], share: Share) -> dict[str, Any]:
    """Returns the arguments of `build_model` for the run's images."""
    shape = {"image_size": share.dataset.train.image_size, "channels": share.dataset.train.channels}
    return {**settings["model"], **shape, "num_classes": len(share.dataset.classes)}


def _model(
    settings: Mapping[str, Any], architecture: dict[str, Any], parents: Parents, share: Share, machine: Machine
) -> tuple[Any, Beginning | None]:
    """Returns the network on its device, and the record's entry about its initial weights."""
    seed_random_state(settings["seed"], 0)
    model: Any = build_model(**architecture)
    origin, init = parents.origin, None
    if origin is not None and origin.is_branch:
        init = all_or_none(transfer.beginning, origin, kept=sum(p.numel() for p in model.parameters()))
    elif origin is not None:
        init = all_or_none(transfer.begin, model, origin, head=settings["head"], classes=share.dataset.classes)
    if settings["freeze"] == "backbone":
        transfer.freeze(model)
    if isinstance(model, Network):
        refuse_parts_of_batch(settings, model)
    layout = torch.channels_last if model.channels_last else torch.preserve_format
    return model.to(machine.device, memory_format=layout), init


def _check_memory(parameters: int, device: torch.device) -> None:
    """Raises RunFailed if the weights and gradients in float32, 8 bytes per parameter, do not fit into memory."""
    needed, free = 8 * parameters, free_bytes(device)
    if needed > free:
        raise RunFailed(
            f"the network's {parameters:,} parameters and their gradients need {needed / 2**30:.1f} GiB, and only "
            f"{free / 2**30:.1f} GiB are free; a smaller model.size needs less"
        )


def _make_deterministic(model: nn.Module) -> None:
    """Makes a GPU compute the same bits in every run.

    The backward pass of attention is deterministic only if torch is told to refuse all other operations (see torch's
    notes on reproducibility). But torch would then refuse max-pooling (`model.stem=imagenet`), whose gradients are
    summed in any order. So torch only warns for networks with max-pooling, and for networks of libraries, which may
    have any operation.
    """
    pools = isinstance(model, Network) or any(isinstance(module, nn.MaxPool2d) for module in model.modules())
    torch.use_deterministic_algorithms(True, warn_only=pools)


def _class_weights(recipe: Mapping[str, Any], labels: Tensor, classes: int) -> Tensor | None:
    """Returns the weight of each class in the loss, from the labels (M,) of the training images; None: all weigh 1."""
    return balanced_weights(labels, classes) if recipe["class_weights"] == "balanced" else None


def _teacher(
    settings: Mapping[str, Any], parents: Parents, share: Share, normalise: Normalise
) -> Callable[[Tensor], Tensor] | None:
    if parents.teacher is None:
        return None
    folder, record = parents.teacher
    led(check_teacher, record, settings, share.dataset.classes, share.dataset.fingerprint)
    network = all_or_none(transfer.trained, folder, record)
    return objectives.teacher(network, normalise, mean=record["mean"], std=record["std"])


def augment_of(settings: Mapping[str, Any], architecture: Mapping[str, Any]) -> Augment:
    """Returns the run's augmentation; `architecture` has the size of the images and the number of classes."""
    options = {key: value for key, value in settings["augment"].items() if key != "name"}
    options["flip"] = options["flip"] and settings["data"]["flip"]
    return Augment(**options, num_classes=architecture["num_classes"], image_size=architecture["image_size"])


def loader_of(
    settings: Mapping[str, Any], images: Tensor | Stream, labels: Tensor, steps: int
) -> Loader | OnlineLoader:
    """Returns the loader of the batches.

    `images` and `labels` are the run's share of the training images. With data.online=true they serve only for their
    size and their device, because each step draws new images.
    """
    data, batch_size, seed = settings["data"], settings["optim"]["batch_size"], settings["seed"]
    if data.get("online"):
        return OnlineLoader(Drawn(data, seed, images.shape[-1], images.device), batch_size, steps)
    return Loader(images, labels, batch_size, seed)


def _steps(settings: Mapping[str, Any], train_images: int) -> int:
    """Returns the number of steps of the run. Raises UserError if `keep` names a later step."""
    keep, steps = settings["keep"], steps_of(settings["optim"], train_images)
    if keep and max(keep) > steps:
        raise UserError(f"keep=[{','.join(map(str, sorted({*keep})))}]: must be steps of the run, 1 to {steps}")
    return steps


def _warnings(settings: Mapping[str, Any], share: Share, validates: bool) -> list[str]:
    """Returns warnings about the data, and about parents that may have been trained on this run's validation images."""
    leaks = led(validation_leaks, settings, share.dataset.fingerprint) if validates else []
    return [*share.dataset.warnings, *leaks]
