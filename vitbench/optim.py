"""The optimizer's parameter groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import inspect
import math
import sys
from functools import partial

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate at `step` (0-based): linear warm-up, then a cosine that ends at 0.

    Cosine without restarts: Loshchilov and Hutter 2017 (arXiv 1608.03983), eq. 5 with one period.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay on the weights of linear and convolutional layers alone: not on biases, norms, tokens or encodings."""
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)}
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]


def _spare_the_compiler() -> None:
    """Keeps the methods of torch's optimizers from importing its compiler (2 s) only to be left alone by it."""
    for method in vars(torch.optim.Optimizer).values():
        inner, code = getattr(method, "__wrapped__", None), getattr(method, "__code__", None)
        if inner is not None and code is not None and "disable_fn" in code.co_varnames:  # by torch._disable_dynamo
            setattr(inner, "__dynamo_disable", inner)  # by its string, which a class would mangle


def build(model: nn.Module, *, optimizer: str, lr: float, weight_decay: float, momentum: float, beta2: float) -> torch.optim.Optimizer:  # fmt: skip
    """AdamW, or SGD with Nesterov momentum; torch's own, in their fused form."""
    compiling = "torch._dynamo" in sys.modules
    if not compiling:
        _spare_the_compiler()
    groups = parameter_groups(model, weight_decay)
    built: torch.optim.Optimizer
    if optimizer == "adamw":
        built = torch.optim.AdamW(groups, lr=lr, betas=(0.9, beta2), fused=True)
    else:
        built = torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    if not compiling:  # its own step, beneath what asks the compiler
        own = partial(inspect.unwrap(type(built).step), built)
        built.step = torch.no_grad()(own)  # type: ignore[method-assign]
    return built


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers, `decay` a step (Polyak and Juditsky 1992); torch's own."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
