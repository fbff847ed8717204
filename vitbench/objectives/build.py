"""An objective by its name, and the teacher of one that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitbench import checkpoint
from vitbench.config import look_up
from vitbench.data.loader import Normalise
from vitbench.data.split import Dataset
from vitbench.errors import UserError
from vitbench.models.build import of_record
from vitbench.objectives.base import Objective
from vitbench.objectives.classify import Classify, Distill
from vitbench.objectives.menu import MENU
from vitbench.run import Run


def build(name: str, model: nn.Module, *, label_smoothing: float, teacher: Callable[[Tensor], Tensor] | None,
          distill: Mapping[str, Any], **options: Any) -> Objective:  # fmt: skip
    """Its own modules are drawn from torch's global generator, on the CPU."""
    if name == "classify":
        return Classify(label_smoothing) if teacher is None else Distill(label_smoothing, teacher, **distill)
    objective: Objective = look_up("objective", name, MENU)(model, **options)
    return objective


def teacher(folder: Path, record: Mapping[str, Any], dataset: Dataset, normalise: Normalise) -> Callable[[Tensor], Tensor]:  # fmt: skip
    """The network of a finished run, in evaluation mode, as a function of what this run's `normalise` gives.

    It gets images normalised as its own were. Raises UserError where it saw other images or classes.
    """
    name = record["id"]
    if list(record["classes"]) != list(dataset.classes):
        theirs, ours = (f"{len(classes)} classes ({', '.join(map(str, classes[:3]))} ...)"
                        for classes in (record["classes"], dataset.classes))  # fmt: skip
        raise UserError(f"teacher={name}: knows {theirs}, these images have {ours}; the teacher must know the same")
    if record["data_fingerprint"] != dataset.fingerprint:
        raise UserError(f"teacher={name}: saw other images (data.name={record['config']['data']['name']}, "
                        f"{record['image_size']} px); a teacher must have the data of its student")  # fmt: skip
    if record["test_accuracy"] is None:
        raise UserError(f"teacher={name}: was not trained to classify (objective={record['config']['objective']['name']})")  # fmt: skip
    model: Any = of_record(record)
    path = Run(folder, {}).weights()
    checkpoint.fit(model, checkpoint.load(path)[0], path)
    layout: Any = torch.channels_last if model.channels_last else torch.contiguous_format
    model.to(normalise.scale.device, memory_format=layout).eval().requires_grad_(False)
    scale, shift = _between(normalise, record["mean"], record["std"])

    def answers(images: Tensor) -> Tensor:
        logits: Tensor = model(torch.addcmul(shift, images, scale).contiguous(memory_format=layout))
        return logits

    return answers


def seconds(record: Mapping[str, Any] | None) -> float | None:
    """Of training that a teacher cost, with what it started from; None: nobody says."""
    if record is None:
        return 0.0
    total: float | None = record.get("total_train_seconds", record["train_seconds"])
    return total


def _between(normalise: Normalise, mean: Iterable[float], std: Iterable[float]) -> tuple[Tensor, Tensor]:
    """What turns images normalised here into images normalised by another mean and deviation, (1,C,1,1) both."""
    pairs = zip(normalise.mean, normalise.std, mean, std, strict=True)
    terms = [(max(s, 1e-3) / max(t, 1e-3), (m - n) / max(t, 1e-3)) for m, s, n, t in pairs]
    scale, shift = torch.tensor(terms, device=normalise.scale.device).T.reshape(2, 1, -1, 1, 1)
    return scale, shift
