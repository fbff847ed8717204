"""Building a model by its name, and counting what it costs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
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
    """Parameters, and multiply-adds of one forward of one image, counted once a process. No memory is used and no random number drawn.

    Counted (`torch.utils.flop_counter`, which counts two operations a multiply-add): convolutions, linear layers and
    both products of attention. Not counted: biases, normalisation, activations, softmax, pooling, residual sums, and
    what an encoding adds, rotates or looks up. The model is in training mode, as fused inference kernels hide their
    products from the counter, and sees two images, because batch norm then refuses a single value a channel.
    """
    shape = {"image_size": image_size, "channels": channels, "num_classes": num_classes}
    return _cost(json.dumps({"name": name, **shape, **options}, sort_keys=True))


@cache
def _cost(architecture: str) -> tuple[int, int]:
    asked = json.loads(architecture)
    with torch.device("meta"):
        model = build(**asked).train()
        images = torch.empty(2, asked["channels"], asked["image_size"], asked["image_size"])
    with FlopCounterMode(display=False) as counter:
        model(images)
    operations = counter.get_total_flops() // 2  # of one image
    return sum(parameter.numel() for parameter in model.parameters()), operations // 2


_compiled: dict[str, tuple[nn.Module, Any]] = {}  # one at most: the memory of a GPU is for training


def compiled(
    model: nn.Module, architecture: Mapping[str, Any], wrap: Callable[[nn.Module], nn.Module]
) -> tuple[Any, Any]:
    """A model with these weights, and the compiled form of what `wrap` makes of it; the network compiled last where that
    has the same architecture.

    Runs which follow each other in one process then compile once.
    """
    key = json.dumps([architecture, str(next(model.parameters()).device)], sort_keys=True)
    if key not in _compiled:
        _compiled.clear()
        _compiled[key] = model, torch.compile(wrap(model), dynamic=False)
    kept, forward = _compiled[key]
    if kept is not model:
        kept.load_state_dict(model.state_dict())
        kept.zero_grad()
    return kept, forward
