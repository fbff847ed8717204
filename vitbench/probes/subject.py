"""What a probe is given: a network, test images with their labels, and how the one wants the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.data.split import Split
from vitbench.data.subset import nested_order
from vitbench.errors import UserError
from vitbench.numbers.intervals import bootstrap_ratio
from vitbench.training.evaluate import logits_of

Row = dict[str, Any]


class Subject(NamedTuple):
    model: nn.Module  # in evaluation mode, on the device: normalised (B,C,H,W) -> logits (B,K); may have `.taps`
    images: Tensor  # uint8 (M,C,H,W), test images, on the device
    labels: Tensor  # int64 (M,)
    normalise: Normalise  # uint8, or float of 0..255
    num_classes: int
    name: str = ""  # the run's id, which figures show
    classes: tuple[str, ...] = ()  # the names of the classes
    network: Callable[[str], Subject] | None = None  # another run, by its id, with the same images
    held_out: Callable[[int], tuple[Tensor, Tensor]] | None = (
        None  # at most so many images that it was not trained on, with labels
    )


def draw_images(test: Split, images: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`images` of a split without replacement, stratified: a smaller number is the beginning of a larger one."""
    if not 1 <= images <= len(test):
        raise UserError(f"images={images}: there are {len(test):,} test images; images={len(test)} takes them all")
    chosen = nested_order(test.labels, seed)[:images]
    pixels = torch.from_numpy(test.images[chosen])  # copied out of the memory map: these images and no others
    return pixels.to(device), torch.from_numpy(test.labels[chosen]).to(device)


def predict(subject: Subject, images: Tensor | None = None, batch_size: int = 250) -> Tensor:
    """Logits (M,K) of uint8 images (M,C,H,W); of the subject's own where none are given."""
    images = subject.images if images is None else images
    return logits_of(subject.model, images, subject.normalise, batch_size)


def make_row(
    protocol: str,
    metric: str,
    value: float,
    low: float = math.nan,
    high: float = math.nan,
    reason: str = "",
    **where: Any,
) -> Row:
    """A row with a value and its interval, if it has one; or, where a reason is given, a row of an undefined value."""
    row: Row = {"protocol": protocol, "metric": metric, "value": math.nan if reason else float(value), **where}
    if reason:
        return row | {"reason": reason}
    return row if math.isnan(low) else row | {"low": float(low), "high": float(high)}


def ratio_row(
    protocol: str, metric: str, parts: Tensor, seed: int, wholes: Tensor | None = None, reason: str = "", **where: Any
) -> Row:
    """A row of sum(parts) / sum(wholes) over images, (M,) each, or of the mean of `parts` where no wholes are given.

    Its interval is a bootstrap over images. `reason` is said where the ratio is undefined.
    """
    wholes = torch.ones_like(parts) if wholes is None else wholes
    value, low, high = bootstrap_ratio(parts.double().cpu().numpy(), wholes.double().cpu().numpy(), seed)
    return make_row(protocol, metric, value, low, high, reason if math.isnan(value) else "", **where)
