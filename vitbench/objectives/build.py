"""An objective by its name, and the teacher of one that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.menu import look_up
from vitbench.objectives.base import Objective
from vitbench.objectives.classify import Classify, Distill
from vitbench.objectives.menu import MENU


def build_objective(
    name: str,
    model: nn.Module,
    *,
    label_smoothing: float,
    teacher: Callable[[Tensor], Tensor] | None,
    distill: Mapping[str, Any],
    **options: Any,
) -> Objective:
    """Its own modules are drawn from torch's global generator, on the CPU."""
    if name == "classify":
        return Classify(label_smoothing) if teacher is None else Distill(label_smoothing, teacher, **distill)
    objective: Objective = look_up("objective", name, MENU)(model, **options)
    return objective


def teacher(
    model: Any, normalise: Normalise, *, mean: Iterable[float], std: Iterable[float]
) -> Callable[[Tensor], Tensor]:
    """A trained network, in evaluation mode, as a function of what this run's `normalise` gives.

    It gets images normalised as its own were, by `mean` and `std`.
    """
    layout: Any = torch.channels_last if model.channels_last else torch.contiguous_format
    model.to(normalise.scale.device, memory_format=layout).eval().requires_grad_(False)
    scale, shift = _between(normalise, mean, std)

    def answers(images: Tensor) -> Tensor:
        logits: Tensor = model(torch.addcmul(shift, images, scale).contiguous(memory_format=layout))
        return logits

    return answers


def _between(normalise: Normalise, mean: Iterable[float], std: Iterable[float]) -> tuple[Tensor, Tensor]:
    """What turns images normalised here into images normalised by another mean and deviation, (1,C,1,1) both."""
    pairs = zip(normalise.mean, normalise.std, mean, std, strict=True)
    terms = [(max(s, 1e-3) / max(t, 1e-3), (m - n) / max(t, 1e-3)) for m, s, n, t in pairs]
    scale, shift = torch.tensor(terms, device=normalise.scale.device).T.reshape(2, 1, -1, 1, 1)
    return scale, shift
