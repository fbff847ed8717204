"""Tests a model on a set of images: in evaluation mode, without augmentation, in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitbench.data.loader import Normalise
from vitbench.data.stream import Stream
from vitbench.machine.distributed import gathered, mine
from vitbench.numbers.classified import TOP, balanced_accuracy, calibration_error, top_accuracy

OF_CLASSES = ("test_balanced_accuracy", "test_top5_accuracy", "test_calibration_error")  # docs/reference/metrics.md


class Evaluation(NamedTuple):
    accuracy: float  # 0..1
    loss: float  # mean cross-entropy, nats
    predictions: Tensor  # (M,), class indices
    logits: Tensor  # (M, K), float32

    @property
    def probabilities(self) -> Tensor:
        return self.logits.softmax(1)  # (M, K)


def forward_of(model: nn.Module, normalise: Normalise, batch: Tensor) -> Tensor:
    """Returns the logits (B, K) of a batch of images, in float32. The model has to be in evaluation mode."""
    logits: Tensor = model(normalise(batch)).float()
    return logits


@torch.inference_mode()
def logits_of(forward: Callable[[Tensor], Tensor], images: Tensor | Stream, batch_size: int) -> Tensor:
    """Returns the logits (M, K) of images, which `forward` computes batch by batch."""
    logits = torch.empty(0)
    for first, batch in zip(count(step=batch_size), images.split(batch_size), strict=False):
        part = forward(batch)
        if first == 0:  # one tensor for all batches: many small ones that are kept would fragment the memory
            logits = part.new_empty(len(images), part.shape[1])
        logits[first : first + len(part)] = part
    return logits


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images: Tensor | Stream,
    labels: Tensor,
    normalise: Normalise,
    batch_size: int = 500,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> Evaluation:
    """Tests the model on `images` uint8 (M, C, H, W) and `labels` (M,), which are on the model's device.

    If there are several processes, they divide the images among them, and each image counts once. `forward` computes
    the logits of a batch in place of `forward_of`.
    """
    training = [module for module in model.modules() if module.training]  # frozen ones are in evaluation mode already
    model.eval()
    logits = logits_of(forward or partial(forward_of, model, normalise), mine(images), batch_size)
    logits = gathered(logits, len(images))
    for module in training:
        module.training = True
    predictions = logits.argmax(1)
    loss = F.cross_entropy(logits.double(), labels)  # a mean of many losses is less exact in float32
    return Evaluation((predictions == labels).double().mean().item(), loss.item(), predictions, logits)


def results_of_test(tested: Evaluation, labels: Tensor) -> dict[str, float | None]:
    """Returns the fields of a record about a test with `labels` (M,).

    A field is None if it has no meaning (top-5 accuracy with five classes or fewer) or if the loss is not finite.
    """
    results: dict[str, float | None] = {"test_accuracy": tested.accuracy, "test_loss": tested.loss}
    if not math.isfinite(tested.loss):
        return results | dict.fromkeys(OF_CLASSES)
    truth, logits = labels.cpu().numpy(), tested.logits.cpu().numpy()
    classes = logits.shape[1]
    return results | {
        "test_balanced_accuracy": balanced_accuracy(truth, tested.predictions.cpu().numpy(), classes),
        "test_top5_accuracy": top_accuracy(logits, truth) if classes > TOP else None,
        "test_calibration_error": calibration_error(tested.probabilities.cpu().numpy(), truth),
    }
