"""Building a model by its name, and counting what it costs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitbench.config import look_up
from vitbench.errors import UserError
from vitbench.models.menu import MENU


def build(
    name: str,
    *,
    image_size: int,
    channels: int,
    num_classes: int,
    pe: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """A freshly initialised model, drawn from torch's global generator.

    `pe` is a position encoding's name and options, `{"name": "rope", "theta": 100.0}`, and `options` are the model's
    own. A model that takes no encoding is one without a parameter called `pe`.
    """
    model = look_up("model", name, MENU)
    if "pe" in inspect.signature(model).parameters:
        return model(image_size, channels, num_classes, pe, **options)
    if pe is not None:
        raise UserError(f"{name} is not a ViT and takes no position encoding; drop pe={pe['name']}")
    return model(image_size, channels, num_classes, **options)


def cost(name: str, *, image_size: int, channels: int, num_classes: int, **options: Any) -> tuple[int, int]:
    """Parameters, and multiply-adds of one forward of one image. No memory is used and no random number drawn.

    Counted (`torch.utils.flop_counter`, which counts two operations a multiply-add): convolutions, linear layers and
    both products of attention. Not counted: biases, normalisation, activations, softmax, pooling, residual sums, and
    what an encoding adds, rotates or looks up. The model is in training mode, as fused inference kernels hide their
    products from the counter, and sees two images, because batch norm then refuses a single value a channel.
    """
    with torch.device("meta"):
        model = build(name, image_size=image_size, channels=channels, num_classes=num_classes, **options).train()
        images = torch.empty(2, channels, image_size, image_size)
    with FlopCounterMode(display=False) as counter:
        model(images)
    operations = counter.get_total_flops() // 2  # of one image
    return sum(parameter.numel() for parameter in model.parameters()), operations // 2
