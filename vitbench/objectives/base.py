"""The base class of objectives. An objective makes the views of a batch and computes the loss of a model on them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise


class Objective(nn.Module):
    """An objective of training.

    It may have modules of its own, such as a projector or a decoder. They are trained with the model and saved for
    resuming, but files of weights hold only the model. An objective without labels does not train the model's head, and
    its runs have no test accuracy.
    """

    classifies = False  # whether the model learns classes, so that it can be validated and tested
    measures: tuple[str, ...] = ()  # the names of the values that `measured` returns

    def views(self, images: Tensor, labels: Tensor, augment: Augment, normalise: Normalise) -> tuple[Tensor, ...]:
        """Turns uint8 images (B,C,H,W) and labels (B,) into the tensors that the loss needs, with B rows each.

        `normalise` is applied to images last, because it may rearrange their pixels.
        """
        raise NotImplementedError

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        """Returns the loss, a mean over the batch. If `classifies`, it only calls `model`, which may be a wrapper."""
        raise NotImplementedError

    def measured(self) -> dict[str, float]:
        """Returns values of the last step for metrics.csv and, at the end, for the record."""
        return {}
