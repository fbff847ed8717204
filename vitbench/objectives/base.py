"""What an objective is: the views of a batch, and the loss of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vitbench.data.augment import Augment
from vitbench.data.loader import Normalise


class Objective(nn.Module):
    """Modules of its own (a projector, a decoder) are trained with the model, saved for resuming, and then left behind:
    the checkpoint is the model's alone.

    An objective without labels leaves the model's head as it was initialised, and the run without test accuracy.
    """

    classifies = False  # whether the model's answers are classes, to be validated and tested
    measures: tuple[str, ...] = ()  # the names of what is measured

    def views(self, images: Tensor, labels: Tensor, augment: Augment, normalise: Normalise) -> tuple[Tensor, ...]:
        """uint8 (B,C,H,W) and (B,) -> what the loss needs of them, on the device: tensors of B rows each."""
        raise NotImplementedError

    def forward(self, model: Any, *views: Tensor) -> Tensor:
        """The loss, a mean over the batch. `model` may be a wrapper of the model that only forwards, if it `classifies`."""
        raise NotImplementedError

    def measured(self) -> dict[str, float]:
        """What metrics.csv, and at the end the record, shall say of the last step beside its loss."""
        return {}
