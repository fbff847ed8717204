"""The input of a probe, a network with labelled test images, and the rows that a probe returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.data.split import Split
from vitbench.data.subset import nested_order
from vitbench.errors import UserError
from vitbench.numbers.intervals import ROUNDING, bootstrap_ratio
from vitbench.training.evaluate import forward_of, logits_of

Row = dict[str, Any]  # the keys are listed in `vitbench.probes`
PIXELS_A_BATCH = 2**20  # the most pixels of a batch; they need about 200 MB of activations in stage 1 of a ResNet-50


class Subject(NamedTuple):
    """A network and the images that it is measured with."""

    model: nn.Module  # in evaluation mode, on the device: normalised (B,C,H,W) -> logits (B,K); may have `.taps`
    images: Tensor  # test images, uint8 (M,C,H,W), on the device
    labels: Tensor  # int64 (M,)
    normalise: Normalise  # takes uint8, or floats of 0..255
    num_classes: int
    name: str = ""  # the run's id, which figures show
    classes: tuple[str, ...] = ()  # the names of the classes
    network: Callable[[str], Subject] | None = None  # finds another run by its id, with the same images
    # gives at most so many images that the network was not trained on, and their labels
    held_out: Callable[[int], tuple[Tensor, Tensor]] | None = None

    def as_seen(self) -> Subject:
        """Returns the same network with its images as it gets them, rearranged already where its run rearranged places.

        A probe that changes images must not use this, because a run rearranges images after augmentation.
        """
        normalise = self.normalise
        return self._replace(images=normalise.rearranged(self.images), normalise=normalise.without_places())


def draw_images(test: Split, images: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draws images of a split without replacement, stratified by class; a smaller number gives the first of a larger.

    Returns pixels (M,C,H,W) and labels (M,). Raises UserError where the split has fewer images.
    """
    if not 1 <= images <= len(test):
        raise UserError(f"images={images}: there are only {len(test):,} test images; images={len(test)} takes them all")
    chosen = nested_order(test.labels, seed)[:images]
    pixels = torch.from_numpy(test.images[chosen])  # only these images are read
    return pixels.to(device), torch.from_numpy(test.labels[chosen]).to(device)


def predict(subject: Subject, images: Tensor | None = None) -> Tensor:
    """Computes the logits (M,K) of uint8 images (M,C,H,W), by default of the subject's own.

    A batch has at most a million pixels and at most 250 images.
    """
    images = subject.images if images is None else images
    batch_size = max(1, min(250, PIXELS_A_BATCH // max(1, images[:1, 0].numel())))
    return logits_of(partial(forward_of, subject.model, subject.normalise), images, batch_size)


def make_row(
    protocol: str,
    metric: str,
    value: float,
    low: float = math.nan,
    high: float = math.nan,
    reason: str = "",
    **where: Any,
) -> Row:
    """Makes a row with a value and its interval, if it has one, or with the reason why the value is undefined.

    Where all images give the same value, the bootstrap has no width. That would claim certainty, so the row then has
    no interval.
    """
    row: Row = {"protocol": protocol, "metric": metric, "value": math.nan if reason else float(value), **where}
    if reason:
        return row | {"reason": reason}
    has_width = high - low > ROUNDING * max(abs(low), abs(high))
    return row | {"low": float(low), "high": float(high)} if has_width else row


def ratio_row(
    protocol: str, metric: str, parts: Tensor, seed: int, wholes: Tensor | None = None, reason: str = "", **where: Any
) -> Row:
    """Makes a row with sum(parts) / sum(wholes) over images, (M,) each; without `wholes`, with the mean of the parts.

    The interval is a bootstrap over images. The row has `reason` where the ratio is undefined.
    """
    wholes = torch.ones_like(parts) if wholes is None else wholes
    value, low, high = bootstrap_ratio(parts.double().cpu().numpy(), wholes.double().cpu().numpy(), seed)
    return make_row(protocol, metric, value, low, high, reason if math.isnan(value) else "", **where)
