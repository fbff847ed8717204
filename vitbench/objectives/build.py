"""Builds an objective by its name, and the teacher of a run that distills."""

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
    class_weights: Tensor | None = None,
    **options: Any,
) -> Objective:
    """Builds an objective. Its own modules are initialised on the CPU from torch's global generator."""
    if name == "classify":
        if teacher is None:
            return Classify(label_smoothing, class_weights)
        return Distill(label_smoothing, teacher, **distill, class_weights=class_weights)
    objective: Objective = look_up("objective", name, MENU)(model, **options)
    return objective


def teacher(
    model: Any, normalise: Normalise, *, mean: Iterable[float], std: Iterable[float]
) -> Callable[[Tensor], Tensor]:
    """Turns a trained network into a function from the normalised images of this run to the network's logits.

    The network is in evaluation mode. Images are converted from `normalise` to the network's own `mean` and `std`.
    """
    layout: Any = torch.channels_last if model.channels_last else torch.contiguous_format
    model.to(normalise.scale.device, memory_format=layout).eval().requires_grad_(False)
    scale, shift = _renormalise(normalise, mean, std)

    def logits_of(images: Tensor) -> Tensor:
        logits: Tensor = model(torch.addcmul(shift, images, scale).contiguous(memory_format=layout))
        return logits

    return logits_of


def _renormalise(normalise: Normalise, mean: Iterable[float], std: Iterable[float]) -> tuple[Tensor, Tensor]:
    """Returns the scale and shift, (1,C,1,1) each, that convert images from `normalise` to `mean` and `std`."""
    channels = zip(normalise.mean, normalise.std, mean, std, strict=True)
    factors = [
        (max(old_std, 1e-3) / max(new_std, 1e-3), (old_mean - new_mean) / max(new_std, 1e-3))
        for old_mean, old_std, new_mean, new_std in channels
    ]
    scale, shift = torch.tensor(factors, device=normalise.scale.device).T.reshape(2, 1, -1, 1, 1)
    return scale, shift
