"""Makes the optimizer with its parameter groups, and the moving average of the weights."""

from __future__ import annotations

from inspect import unwrap
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vitbench.models.library import Network
from vitbench.pe.base import PositionEncoding


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Returns the parameter groups of a model, with and without weight decay.

    Only the weights of linear and convolutional layers decay. Biases, norms, tokens and all parameters of position
    encodings do not (their convolutions included, as in the authors' code of `pe=cpe`). A layer of our own that
    replaces a linear or convolutional one has `decays_weight = True`. A network of timm or torchvision follows the
    usual rule (`Network.decayed`): biases, other vectors and what its `no_weight_decay()` names do not decay.

    Frozen parameters are in no group. A group's learning rate is `scale` times that of the schedule. `scale` is 1, or
    `layer_decay` to the power of the layer's depth below the head; the groups of the head come first.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) or getattr(module, "decays_weight", False)
    ]
    encodings = [module for module in model.modules() if isinstance(module, PositionEncoding)]
    decayed = {id(layer.weight) for layer in layers} - {id(p) for pe in encodings for p in pe.parameters()}
    if isinstance(model, Network):
        decayed = model.decayed()
    parameters = [p for p in model.parameters() if p.requires_grad]
    below = depths_below_head(model) if layer_decay != 1 else {}
    groups = []
    for depth in sorted({below.get(id(p), 0) for p in parameters}):
        layer, scale = [p for p in parameters if below.get(id(p), 0) == depth], layer_decay**depth
        groups += [
            {"params": [p for p in layer if id(p) in decayed], "weight_decay": weight_decay, "scale": scale},
            {"params": [p for p in layer if id(p) not in decayed], "weight_decay": 0.0, "scale": scale},
        ]
    return groups


def depths_below_head(model: Any) -> dict[int, int]:
    """Returns, by the id of each parameter, how many layers it lies below the head.

    The count is that of BEiT (Bao et al. 2022, arXiv 2106.08254) and MAE. With L blocks, the head and the last norm are
    at 0, block l of 1..L is at L + 1 - l, and all that comes before the blocks (patch embedding or stem, class token,
    position encoding) is at L + 1. The blocks are those of `model.taps`, in depth order; a network of a library has its
    library's own division into layers.
    """
    if isinstance(model, Network):
        return model.layers_below_head()
    taps: dict[str, nn.Module] = model.taps
    _, *blocks = [module for name, module in taps.items() if name not in ("norm", "head")]
    top = [module for name, module in taps.items() if name in ("norm", "head")]
    below = {id(p): len(blocks) + 1 for p in model.parameters()}
    for layer, block in enumerate(blocks, start=1):
        below |= {id(p): len(blocks) + 1 - layer for p in block.parameters()}
    return below | {id(p): 0 for module in top for p in module.parameters()}


def _plain(kind: type[torch.optim.Optimizer]) -> Any:
    """Returns the optimizer class without its wrappers for torch.compile.

    The wrappers make torch import its compiler, which takes as long as importing torch itself. Only networks are
    compiled here, never optimizers.
    """
    prepared = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")
    methods = {name: unwrap(getattr(kind, name)) for name in prepared}
    return type(kind.__name__, (kind,), methods | {"step": torch.no_grad()(methods["step"])})


AdamW, SGD = _plain(torch.optim.AdamW), _plain(torch.optim.SGD)


def build_optimizer(
    model: nn.Module,
    beside: nn.Module | None = None,
    *,
    optimizer: str,
    lr: float,
    weight_decay: float,
    momentum: float,
    beta2: float,
    layer_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """Returns torch's fused AdamW, or torch's fused SGD with Nesterov momentum.

    The module `beside` the model, which has the parameters of an objective, gets its own groups.
    """
    groups = parameter_groups(model, weight_decay, layer_decay)
    groups += [group for group in parameter_groups(beside or nn.Module(), weight_decay) if group["params"]]
    if optimizer == "adamw":
        # A CUDA graph can record AdamW only with `capturable`, which changes nothing in the fused form.
        on_gpu = next(model.parameters()).is_cuda
        adamw: torch.optim.Optimizer = AdamW(groups, lr=lr, betas=(0.9, beta2), fused=True, capturable=on_gpu)
        return adamw
    sgd: torch.optim.Optimizer = SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    return sgd


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets each group's learning rate to `scale` times `lr`; a tensor is changed in place (`hold_learning_rate`)."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr * group["scale"])
        else:
            group["lr"] = lr * group["scale"]


def hold_learning_rate(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Turns the learning rates into tensors on the device, which a recorded step reads in each replay."""
    dtype = torch.float32 if device.type == "cuda" else torch.float64  # the type that torch's fused kernels read
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=dtype, device=device)


def averaged(model: nn.Module) -> AveragedModel:
    """Returns a copy of the model that holds the moving average of its weights and buffers."""
    return AveragedModel(model, use_buffers=True)


@torch.no_grad()
def average_into(averaged: AveragedModel, model: nn.Module, share: float) -> None:
    """Moves the averages towards the model: average += share * (model - average) (Polyak and Juditsky 1992).

    A share of 1 copies the model, which is the first step of an average. torch's own `update_parameters` reads a
    counter on the CPU to decide this, which a CUDA graph cannot repeat. Integers, such as batch norm's count of
    batches, are copied. Buffers that are not saved with the weights are constants, such as a mask of minus infinities,
    and stay as they are.
    """
    its, newest = ([*module.state_dict(keep_vars=True).values()] for module in (averaged.module, model))
    floats = [tensor.is_floating_point() for tensor in its]
    torch._foreach_lerp_([*compress(its, floats)], [*compress(newest, floats)], share)
    for old, new in zip(its, newest, strict=True):
        if not old.is_floating_point():
            old.copy_(new)
