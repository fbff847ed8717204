"""Subjects whose answers are known, because a function of pixels is the network, and how tests find a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitbench.data.loader import Normalise
from vitbench.probes.subject import Row, Subject


class Function(nn.Module):
    """A network that is a function of pixels in 0..255."""

    def __init__(self, logits: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images)


def subject(network: Callable[[Tensor], Tensor] | nn.Module, images: Tensor, labels: Tensor, classes: int) -> Subject:
    """Makes a subject whose normalisation changes nothing: deviation 1/255 is a scale of 1, and mean 0 is black."""
    channels = images.shape[1]
    normalise = Normalise([0.0] * channels, [1 / 255] * channels, torch.device("cpu"))
    model = network if isinstance(network, nn.Module) else Function(network)
    return Subject(model.eval(), images, labels, normalise, classes)


def noise(M: int, size: int, channels: int = 3, seed: int = 0) -> Tensor:
    return torch.randint(256, (M, channels, size, size), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def right_labels(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The labels with which the network is right about every image."""
    with torch.no_grad():
        return network(images.float()).argmax(1)


def find(rows: list[Row], metric: str, at: float | None = None, **where: Any) -> Row:
    """Finds the one row of a metric at a level, or of the whole sweep."""
    wanted = {"metric": metric, "at": at, "layer": None, **where}
    (row,) = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    return row


def value(rows: list[Row], metric: str, at: float | None = None, **where: Any) -> float:
    return find(rows, metric, at, **where)["value"]


def curve(rows: list[Row], metric: str, **where: Any) -> dict[float, float]:
    chosen = [row for row in rows if row["metric"] == metric and "at" in row]
    return {row["at"]: row["value"] for row in chosen if all(row.get(key) == v for key, v in where.items())}
