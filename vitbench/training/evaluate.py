"""Accuracy and loss of a model over a split: evaluation mode, no augmentation, float32."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitbench.data.loader import Normalise
from vitbench.data.stream import Stream
from vitbench.machine.distributed import gathered, mine


class Evaluation(NamedTuple):
    accuracy: float  # 0..1
    loss: float  # mean cross-entropy, nats
    predictions: Tensor  # (M,), class indices


@torch.inference_mode()
def logits_of(model: nn.Module, images: Tensor | Stream, normalise: Normalise, batch_size: int) -> Tensor:
    """(M, K) in float32, of a model that is in evaluation mode; `images` as in `evaluate`."""
    logits = torch.empty(0)
    for first, batch in zip(count(step=batch_size), images.split(batch_size), strict=False):
        part = model(normalise(batch)).float()
        if first == 0:  # one tensor: small ones between the large ones would keep their memory from being used again
            logits = part.new_empty(len(images), part.shape[1])
        logits[first : first + len(part)] = part
    return logits


@torch.inference_mode()
def evaluate(
    model: nn.Module, images: Tensor | Stream, labels: Tensor, normalise: Normalise, batch_size: int = 500
) -> Evaluation:
    """`images` uint8 (M, C, H, W) and `labels` (M,) on the model's device; every image counts once, in one
    process or shared among several."""
    training = [module for module in model.modules() if module.training]  # all of them, or the part that is not frozen
    model.eval()
    logits = logits_of(model, mine(images), normalise, batch_size)
    logits = gathered(logits, len(images))
    for module in training:
        module.training = True
    predictions = logits.argmax(1)
    loss = F.cross_entropy(logits.double(), labels)  # float64: the mean over many images loses digits in float32
    return Evaluation((predictions == labels).double().mean().item(), loss.item(), predictions)
