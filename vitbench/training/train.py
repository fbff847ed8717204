"""Trains one model on a share of a dataset: data, model, loop, record, in the order in which things happen."""

from __future__ import annotations

import io
import math
import shlex
import sys
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vitbench.data.menu import forget
from vitbench.errors import DataError, StorageError, TryAgain, UserError
from vitbench.machine.disk import write
from vitbench.machine.distributed import RANK, WORLD_SIZE, check_batch, joined, leading, led, lost
from vitbench.machine.interrupt import Interrupt, Stopped
from vitbench.machine.provenance import commit, now
from vitbench.runs.ancestor import check_teacher, finished_parent, validation_leaks
from vitbench.runs.origin import find_origin
from vitbench.runs.records import RECORD_SCHEMA, loss_of, total_seconds
from vitbench.runs.run import Run, read_metrics
from vitbench.settings.check import check
from vitbench.settings.compose import as_settings
from vitbench.settings.identity import RESULTS_VERSION

if TYPE_CHECKING:
    from vitbench.machine.hardware import Stopwatch

SECONDS_BETWEEN_SAVES = 300  # between two saves at the latest, however rarely a run evaluates


class Stack(Protocol):
    """What trains several runs at once, as far as each of them needs to know it (vitbench/sweeping/stacked.py)."""

    watch: Stopwatch
    size: int


Training = Generator[Any, Any, dict[str, Any]]  # returns a record; yields only in a stack


def main(config: Any) -> int:
    """One run: says so if it is done, resumes it if it was begun; 0 finished, 1 diverged."""
    forget()
    return one_run(check(as_settings(config)))


def one_run(settings: dict[str, Any], in_sweep: bool = False) -> int:
    """`main` for settings that are checked. In a sweep, that reports, and a failure is written down for it."""
    run = Run.of(settings)
    record, done_before = run.record(), True
    if record is not None:
        run.tidy()
    else:
        check_batch(settings["optim"]["batch_size"])
        with Interrupt() as interrupt, joined(), leading(run.claim()):
            record = led(run.record)  # another process may have finished it since
            if record is None:
                record, done_before = _alone(attempt(run, interrupt, in_sweep)), False
    if not in_sweep:
        _report(run, record, done_before)
    return 0 if record["status"] == "finished" else 1


def _alone(training: Training) -> dict[str, Any]:
    try:
        next(training)
    except StopIteration as end:
        record: dict[str, Any] = end.value
        return record
    raise AssertionError("a run by itself yields nothing")


def attempt(run: Run, interrupt: Interrupt, in_sweep: bool, stack: Stack | None = None) -> Training:
    """Trains a run that is claimed, and writes down its record, or why there is none."""
    try:
        record = yield from train(run, interrupt, stack)
        led(run.finish, record)
    except Stopped as stopped:
        again = shlex.join([*sys.argv[0].split(), *sys.argv[1:]])
        if in_sweep or WORLD_SIZE > 1:
            again = f"the {'sweep' if in_sweep else 'torchrun command'} repeated"
        raise Stopped(f"{stopped}; to go on: {again}", stopped.number) from None
    except (TryAgain, StorageError):
        raise
    except Exception as error:
        if RANK == 0 and not lost(error) and (in_sweep or not isinstance(error, UserError)):
            run.fail(f"{type(error).__name__}: {error}", traceback.format_exc())
        raise
    return record


def _report(run: Run, record: dict[str, Any], done_before: bool) -> None:
    for warning in record["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if (
        record["config"]["data"]["root"] != run.settings["data"]["root"]
        and record["config"]["data"]["source"] != "shapes"
    ):
        print(
            f"warning: its images came from data.root={record['config']['data']['root']}; set data.name to tell two "
            "sets of images apart",
            file=sys.stderr,
        )
    if record["status"] == "diverged":
        step, lr = record["diverged_step"], record["config"]["optim"]["lr"]
        print(
            f"vitbench: {run.id}: diverged, the loss was not finite at step {step}; try a smaller optim.lr than {lr:g}",
            file=sys.stderr,
        )
        return
    if done_before and (lost := run.lost()):
        print(
            f"warning: finished before, without keep=[{','.join(map(str, lost))}]; remove {run.folder} to train again",
            file=sys.stderr,
        )
    result = loss_of(record)  # where no classes were learned
    if record["test_accuracy"] is not None:
        result = f"test accuracy {100 * record['test_accuracy']:.2f} % on {record['test_images']:,} images"
    print(
        f"{run.id}: finished, {result} after {record['steps']:,} steps on {record['train_images']:,}, "
        f"{record['train_seconds']:.0f} s" + (": nothing to do" if done_before else "")
    )


def train(run: Run, interrupt: Interrupt, stack: Stack | None = None) -> Training:
    """Trains, saves as it goes, and returns the record; raises Stopped when a signal ended it.

    With a stack, which trains several runs at once, it yields its model, then each batch, and goes on when the
    gradients are there.
    """
    begins_from = led(find_origin, run.settings)  # before torch is imported, and images are decoded
    its_teacher: Any = led(finished_parent, run.settings, "teacher") if run.settings["teacher"] else (None, None)

    import torch
    from torch import nn

    from vitbench.data.augment import Augment
    from vitbench.data.loader import Loader, Normalise, seed_random_state
    from vitbench.data.share import load
    from vitbench.machine.distributed import agreed, all_or_none, average, mine, replicated
    from vitbench.machine.hardware import Machine, Stopwatch
    from vitbench.machine.progress import progress
    from vitbench.models.build import build_model, compiled, cost
    from vitbench.objectives import build as objectives
    from vitbench.training import checkpoint, optim, transfer
    from vitbench.training.evaluate import evaluate

    settings, seed, recipe = run.settings, run.settings["seed"], run.settings["optim"]
    frozen = settings["freeze"] == "backbone"
    code = commit()  # of what is running, also if files change meanwhile
    hardware = dict(settings["machine"])
    show, images_from = hardware.pop("progress"), hardware.pop("images")
    if settings["objective"]["name"] != "classify":
        hardware["compile"] = False  # its loss takes the model apart
    machine = all_or_none(Machine.of, **hardware)

    # data: a share of the training images, after validation images were cut off
    data = {key: value for key, value in settings["data"].items() if key not in ("name", "flip")}
    if data["subset_seed"] is None:
        data["subset_seed"] = seed
    share = all_or_none(load, **data, images=images_from, progress=show is not False)
    dataset, validation = share.dataset, share.validation(machine.device)
    images, labels = share.train(machine.device)

    # model
    shape = {
        "image_size": dataset.train.image_size,
        "channels": dataset.train.channels,
        "num_classes": len(dataset.classes),
    }
    architecture: dict[str, Any] = {**settings["model"], **shape}
    parameters, multiply_adds = cost(**architecture, memory=Path(data["cache"]))
    seed_random_state(seed, 0)
    model: Any = build_model(**architecture)
    begun = begins_from and all_or_none(
        transfer.begin, model, begins_from, head=settings["head"], classes=dataset.classes
    )
    if frozen:
        transfer.freeze(model)
    model.to(machine.device, memory_format=torch.channels_last if model.channels_last else torch.preserve_format)
    if machine.compile and not stack:
        model, forward = compiled(model, {**architecture, "frozen": frozen}, replicated)
    else:
        forward = replicated(model)

    # what it learns: classes, from a teacher too, or something that needs no labels
    normalise = Normalise.of(images, model.channels_last)
    teacher = None
    folder, taught_by = its_teacher
    if taught_by:
        led(check_teacher, taught_by, dataset.classes, dataset.fingerprint)
        network = all_or_none(transfer.trained, folder, taught_by)
        teacher = objectives.teacher(network, normalise, mean=taught_by["mean"], std=taught_by["std"])
    objective = objectives.build_objective(
        **settings["objective"],
        model=model,
        label_smoothing=recipe["label_smoothing"],
        teacher=teacher,
        distill=settings["distill"],
    ).to(machine.device)
    validation = validation if objective.classifies else None
    optimizer = optim.build_optimizer(
        model,
        objective,
        **{key: recipe[key] for key in ("optimizer", "lr", "weight_decay", "momentum", "beta2", "layer_decay")},
    )
    averaged = optim.averaged(model, recipe["ema"]) if recipe["ema"] else None
    evaluated = averaged.module if averaged else model

    # batches: normalised by these training images, augmented on the device
    knobs = {key: value for key, value in settings["augment"].items() if key != "name"}
    knobs["flip"] = knobs["flip"] and settings["data"]["flip"]
    augment = Augment(**knobs, num_classes=shape["num_classes"], image_size=shape["image_size"])
    loader = Loader(images, labels, recipe["batch_size"], seed)
    epoch_steps = len(labels) / recipe["batch_size"]
    steps = recipe["steps"] if recipe["epochs"] is None else math.ceil(recipe["epochs"] * epoch_steps)
    every = settings["eval_every"] or math.ceil(steps / 10)
    keep, its_own = {*(settings["keep"] or [])}, {"run": run.id, "classes": list(dataset.classes)}
    if keep and max(keep) > steps:
        raise UserError(f"keep=[{','.join(map(str, sorted(keep)))}]: must be steps of the run, 1 to {steps}")
    losses = torch.zeros(every, device=machine.device)  # step s at place s % every, until metrics.csv has it

    # resume from the newest state that is whole
    start, first_kept, seconds_before, warnings = 0, 0, 0.0, list(dataset.warnings)
    warnings += led(validation_leaks, settings, dataset.fingerprint) if validation is not None else []
    parts = {"model": model, "objective": objective, "optimizer": optimizer, "averaged": averaged, "losses": losses}
    for path in led(run.states):
        try:
            about = checkpoint.restore(path, run.id, **parts)
        except UserError as error:
            warnings.append(f"{error}; went back to the save before it")
            continue
        if about["data"] != dataset.fingerprint:
            raise DataError(
                f"data.root={data['root']}: the images changed since {run.id} began; restore them, or remove "
                f"{run.folder} to begin again"
            )
        start, seconds_before = about["step"], about["train_seconds"]
        if lacking := [kept for kept in run.lost() if kept <= start]:
            warnings.append(f"resumed at step {start}, so keep=[{','.join(map(str, lacking))}] came too late")
        first_kept = 0 if about["every"] == every else start  # losses kept for another eval_every say nothing
        if about["commit"] != code:
            warnings.append(f"resumed at step {start} with commit {code}; begun with {about['commit']}")
        break

    def save(about: dict[str, Any]) -> None:
        run.save_state(checkpoint.gather(about, **parts))

    led(run.start)
    led(run.rewind, start)

    # loop
    model.train()
    if frozen:
        transfer.freeze(model)
    diverged, shown, saved = None, "", time.monotonic()
    watch = stack.watch if stack else Stopwatch()
    train_seconds = seconds_before
    interrupt.saves()
    if stack:
        yield model, architecture, machine, recipe["label_smoothing"]
    with progress(run.id, steps, "steps", show) as display:
        for step in range(start, steps):
            watch.start()
            seed_random_state(seed, step + 1)
            views = objective.views(*loader.batch(step), augment, normalise)
            views = tuple(map(mine, views))  # of a global batch; all of it in one process
            for group in optimizer.param_groups:
                group["lr"] = recipe["lr"] * optim.schedule(step, steps, recipe["warmup"]) * group["scale"]
            if stack:
                loss = yield views
            else:
                with machine.autocast():
                    loss = objective(forward, *views)
                optimizer.zero_grad()
                loss.backward()
            if recipe["clip"]:
                nn.utils.clip_grad_norm_([*model.parameters(), *objective.parameters()], recipe["clip"])
            optimizer.step()
            if averaged:
                averaged.update_parameters(model)
            if step + 1 in keep:
                machine.synchronise()
                watch.stop()
                led(write, run.weights(step + 1), checkpoint.to_bytes(evaluated.state_dict(), its_own))
            losses[step % every] = loss.detach()  # no synchronisation: read when it is logged

            done = step + 1
            evaluating = done % every == 0 or done == steps
            if evaluating or agreed(interrupt.received or time.monotonic() - saved > SECONDS_BETWEEN_SAVES):
                machine.synchronise()
                watch.stop()
                train_seconds = seconds_before + watch.seconds
                average(losses)
                if evaluating:
                    window = max(done - (step % every + 1), first_kept)  # the first step whose loss is not logged yet
                    recent = losses[window % every : step % every + 1]
                    if not recent.isfinite().all():
                        diverged = window + int((~recent.isfinite()).nonzero()[0]) + 1
                        break
                    valued = evaluate(evaluated, *validation, normalise) if validation else None
                    shown = f"loss {recent.mean().item():.3f}"
                    led(
                        run.log,
                        {
                            "step": done,
                            "epoch": done / epoch_steps,
                            "lr": optimizer.param_groups[0]["lr"],
                            "train_loss": recent.mean().item(),
                            "train_seconds": round(train_seconds, 3),
                            "val_accuracy": valued and valued.accuracy,
                            "val_loss": valued and valued.loss,
                            **objective.measured(),
                        },
                    )
                about = {"run": run.id, "step": done, "train_seconds": train_seconds, "every": every}
                led(save, about | {"data": dataset.fingerprint, "commit": code})
                if received := agreed(interrupt.received):
                    raise Stopped(f"{run.id}: saved at step {done} of {steps}", received)
                saved = time.monotonic()
            display.update(done, shown)

    # record
    interrupt.stops(f"{run.id}: trained and saved, not yet tested")
    metrics: dict[str, float | None] = {
        "train_loss": None,
        "val_accuracy": None,
        "val_loss": None,
        "test_accuracy": None,
        "test_loss": None,
    }
    if not diverged:
        weights, predicted = evaluated.state_dict(), {}
        *_, line = [{}, *led(read_metrics, run.folder)]  # none where somebody removed metrics.csv
        last = {key: float(value) for key, value in line.items() if value}
        metrics |= {key: last.get(key) for key in ("train_loss", "val_accuracy", "val_loss", *objective.measures)}
        if objective.classifies:
            test_images, test_labels = share.test(machine.device)
            result = evaluate(
                evaluated, test_images, test_labels, normalise
            )  # the only use of the test images in training
            metrics |= {"test_accuracy": result.accuracy, "test_loss": result.loss}
            predicted = {"predictions.npy": result.predictions, "labels.npy": test_labels}
        elif not all(weight.isfinite().all() for weight in weights.values()):
            metrics["train_loss"] = math.nan
        if all(math.isfinite(value) for value in metrics.values() if value is not None):
            led(write, run.weights(), checkpoint.to_bytes(weights, its_own))
            for name, classes in predicted.items():
                led(write, run.folder / name, _npy(classes))
        else:  # the last step broke the weights
            diverged, metrics = steps, dict.fromkeys(metrics)
    before = [
        begins_from.seconds if begins_from else 0.0,
        total_seconds(taught_by, taught_by["config"]) if taught_by else 0.0,
    ]  # None: nobody says
    return {
        "schema": RECORD_SCHEMA,
        "results_version": RESULTS_VERSION,
        "id": run.id,
        "status": "diverged" if diverged else "finished",
        "config": dict(settings),
        "classes": list(dataset.classes),
        "image_size": shape["image_size"],
        "channels": shape["channels"],
        "train_images": len(labels),
        "val_images": len(share.held_out),
        "test_images": len(dataset.test),
        "mean": normalise.mean,
        "std": normalise.std,
        "data_fingerprint": dataset.fingerprint,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "steps": steps,
        "train_seconds": train_seconds,
        "teacher_run": taught_by and taught_by["id"],
        "total_train_seconds": None if None in before else train_seconds + sum(filter(None, before)),
        "images_per_second": None if diverged else steps * recipe["batch_size"] / train_seconds,
        "diverged_step": diverged,
        **metrics,
        "created": now(),
        "commit": code,
        **machine.described(stack.size if stack else 1),
        **({"init": begun} if begun else {}),
        "warnings": warnings,
    }


def _npy(classes: Any) -> bytes:  # a tensor (M,)
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, classes.cpu().numpy().astype(np.int16), allow_pickle=False)
    return buffer.getvalue()
