"""An objective draws the views of a batch and gives the loss of a model on them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise


class Objective(nn.Module):
    """An objective may have modules of its own, such as a projector or a decoder. They are trained with the model and
    saved for resuming, but the checkpoint holds the model alone.

    An objective without labels leaves the model's head as it was initialised, and the run has no test accuracy.
    """

    classifies = False  # whether the model's output is classes, which can be validated and tested
    measures: tuple[str, ...] = ()  # the names of the values that `measured` returns

    def views(self, images: Tensor, labels: Tensor, augment: Augment, normalise: Normalise) -> tuple[Tensor, ...]:
        """Turns uint8 images (B,C,H,W) and labels (B,) into the tensors that the loss needs, each of B rows.

        Images go through `normalise` last, which may rearrange their places.
        """
        raise NotImplementedError

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        """The loss, a mean over the batch. If it `classifies`, `model` may be a wrapper that can only be called."""
        raise NotImplementedError

    def measured(self) -> dict[str, float]:
        """Values of the last step that metrics.csv, and at the end the record, hold beside the loss."""
        return {}
