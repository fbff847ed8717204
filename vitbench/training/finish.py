"""Finishes a run: tests the network, writes its weights and predictions, and makes the record."""

from __future__ import annotations

import io
import math
from typing import cast

import numpy as np
from torch import Tensor

from vitbench.machine.disk import write
from vitbench.machine.distributed import led
from vitbench.machine.interrupt import Interrupt
from vitbench.machine.provenance import now
from vitbench.runs.costs import own_cost
from vitbench.runs.follow import results_of
from vitbench.runs.record import RECORD_SCHEMA, Metrics, Record, ScannedFiles
from vitbench.runs.run import read_metrics
from vitbench.settings.identity import RESULTS_VERSION
from vitbench.training.evaluate import OF_CLASSES, results_of_test
from vitbench.training.training import Training

METRICS = (
    "train_loss",
    "val_accuracy",
    "val_loss",
    "train_eval_accuracy",
    "train_eval_loss",
    "test_accuracy",
    "test_loss",
    *OF_CLASSES,
)


def finish(training: Training, interrupt: Interrupt) -> Record:
    """Tests the network, writes weights and predictions, and returns the record. A diverged run has no such files."""
    interrupt.stops(f"{training.run.id}: trained and saved, not yet tested")
    metrics: dict[str, float | None] = dict.fromkeys(METRICS)
    if training.diverged_step is None:
        metrics |= _last_logged(training)
        arrays = _test(training, metrics) if training.objective.classifies else {}
        if _is_finite(training, metrics):
            led(write, training.run.weights(), training.weights())
            for file, array in arrays.items():
                led(write, training.run.folder / file, _npy(array))
        else:  # the last step made the weights infinite or nan, and no later loss could show it
            training.diverged_step, metrics = training.steps, dict.fromkeys(metrics)
    training.follower.saved(training.steps, results_of(metrics))
    training.follower.close(at_the_end=True)
    return _record(training, cast(Metrics, metrics))


def _last_logged(training: Training) -> dict[str, float | None]:
    """Returns the metrics of the last line of metrics.csv; all are None if somebody removed the file."""
    *_, line = [{}, *led(read_metrics, training.run.folder)]
    return {
        key: float(line[key]) if line.get(key) else None
        for key in ("train_loss", "val_accuracy", "val_loss", *training.objective.measures)
    }


def _test(training: Training, metrics: dict[str, float | None]) -> dict[str, Tensor]:
    """Adds the results of the test to `metrics`; returns the arrays to write. Only this function uses test images."""
    images, labels = training.share.test(training.machine.device)
    tested = training.evaluate(images, labels)
    metrics |= results_of_test(tested, labels)
    seen = training.evaluate(*training.sample_of_training_images())
    metrics |= {"train_eval_accuracy": seen.accuracy, "train_eval_loss": seen.loss}
    return {
        "predictions.npy": tested.predictions.short(),
        "labels.npy": labels.short(),
        "probabilities.npy": tested.probabilities.half(),
    }


def _is_finite(training: Training, metrics: dict[str, float | None]) -> bool:
    """Returns whether metrics and weights are finite. The test's loss shows it; without a test, weights are read."""
    if not all(math.isfinite(value) for value in metrics.values() if value is not None):
        return False
    weights = training.evaluated.state_dict().values()
    return training.objective.classifies or all(bool(weight.isfinite().all()) for weight in weights)


def _npy(array: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.cpu().numpy(), allow_pickle=False)
    return buffer.getvalue()


def _record(training: Training, metrics: Metrics) -> Record:
    settings, dataset, teacher = training.run.settings, training.share.dataset, training.parents.teacher
    images = training.steps * settings["optim"]["batch_size"]
    diverged = training.diverged_step is not None
    record: Record = {
        "schema": RECORD_SCHEMA,
        "results_version": RESULTS_VERSION,
        "id": training.run.id,
        "status": "diverged" if diverged else "finished",
        "config": dict(settings),
        "classes": list(dataset.classes),
        "image_size": training.architecture["image_size"],
        "channels": training.architecture["channels"],
        "train_images": training.loader.train_images,
        "val_images": len(training.share.held_out),
        "test_images": len(dataset.test),
        "mean": list(training.normalise.mean),
        "std": list(training.normalise.std),
        "data_fingerprint": dataset.fingerprint,
        "parameters": training.parameters,
        "multiply_adds": training.multiply_adds,
        "steps": training.steps,
        "train_seconds": training.train_seconds,
        "teacher_run": teacher and teacher.record["id"],
        "images_per_second": None if diverged else images / training.train_seconds,
        "diverged_step": training.diverged_step,
        **metrics,
        "created": now(),
        "commit": training.commit,
        **training.machine.described(training.stacked),
        "warnings": training.warnings,
    }
    if dataset.scan:
        record["scan"] = cast(ScannedFiles, dataset.scan._asdict())
    if training.init:
        record["init"] = training.init
    if training.compile_seconds is not None:
        record["compile_seconds"] = round(training.compile_seconds, 3)
    own = own_cost(record, settings, teacher.record.get("multiply_adds") if teacher else 0)
    return cast(Record, record | own.plus(training.parents.cost).as_totals)
