"""What a network computes on the way: the outputs of `model.taps`, recorded by hooks while a `with` lasts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

POOLED = "pooled"  # what the last tap, the head, is given


def taps_of(model: nn.Module) -> dict[str, nn.Module]:
    """The places worth observing, in depth order, logits last: `model.taps`, or of a network that names none (one
    from elsewhere) its children."""
    taps = getattr(model, "taps", None)
    return dict(model.named_children() if taps is None else taps)


@contextmanager
def record(model: nn.Module, names: Iterable[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """What comes out of each named tap (all of them by default), and `pooled`, the feature (B,D) that the head is given.

    The dictionary is filled anew by every forward, in the order in which the taps are met, and stays after the `with`;
    the hooks do not. Nothing is copied or detached, so gradients and tangents (`torch.func.jvp`) pass: a tap of a
    network from elsewhere that is overwritten in place later on shows what it was overwritten with.
    """
    taps = taps_of(model)
    wanted = [*taps, POOLED] if names is None else list(names)
    unknown = [name for name in wanted if name not in taps and name != POOLED]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no tap of this network; it has {', '.join([*taps, POOLED])}")
    features: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            features.pop(name, None)  # so that the order is that of this forward
            features[name] = value

    handles = [
        taps[name].register_forward_hook(lambda module, inputs, output, name=name: keep(name, output))
        for name in wanted
        if name != POOLED
    ]
    if POOLED in wanted and taps:
        head = list(taps.values())[-1]
        handles.append(head.register_forward_pre_hook(lambda module, inputs: keep(POOLED, inputs[0])))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def grid_of(model: nn.Module, name: str, features: Mapping[str, Tensor]) -> Tensor:
    """A recorded tap as a map (B,D,h,w): tokens (B,N,D) lose their prefix tokens and become the square they stand for.

    A prefix is what `model.prefix_tokens` says, or what is left over of the largest square. Raises ValueError where a
    tap has no grid: a feature (B,D), or tokens of an image that is not square.
    """
    output = features[name]
    if output.ndim == 4:
        return output
    if output.ndim != 3:
        raise ValueError(f"{name}: a tensor of {output.ndim} dimensions has no grid")
    return to_grid(output, prefix_of(model, output))


def prefix_of(model: nn.Module, tokens: Tensor) -> int:
    """How many of the tokens (B,N,D) precede the patches."""
    found = getattr(model, "prefix_tokens", None)
    return int(tokens.shape[1] - math.isqrt(tokens.shape[1]) ** 2 if found is None else found)


def to_grid(tokens: Tensor, prefix: int) -> Tensor:
    """(B,N,D) -> (B,D,h,w)"""
    patches = tokens.shape[1] - prefix
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patch tokens are no square grid")
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, (side, side))


def mean_over_positions(value: Tensor) -> Tensor:
    """A map (B,D,h,w) or tokens (B,N,D) -> (B,D)"""
    return value.flatten(2).mean(2) if value.ndim == 4 else value.mean(1)


@torch.no_grad()
def spare_memory(model: nn.Module, one: Tensor) -> int:
    """How many images a batch may have so that all taps of it take about 64 MiB, seen by one image (1,C,H,W)."""
    with record(model) as features:
        model(one)
    return min(250, max(1, 2**24 // max(1, sum(value.numel() for value in features.values()))))


def central(height: int, width: int) -> list[tuple[int, int]]:
    """The positions in the middle of a grid, (row, column): one, two or four of them, as its sides are odd or even."""
    rows, columns = ({(side - 1) // 2, side // 2} for side in (height, width))
    return [(row, column) for row in sorted(rows) for column in sorted(columns)]


def from_middle(size: int, dtype: torch.dtype = torch.float64, device: torch.device | None = None) -> Tensor:
    """The places (size,) of pixels or positions along one axis, counted from the middle."""
    return torch.arange(size, dtype=dtype, device=device) - (size - 1) / 2
