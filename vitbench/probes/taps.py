"""Records what a network computes between image and logits: hooks keep the outputs of the modules in `model.taps`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

POOLED = "pooled"  # the input of the head, which is the last tap
NUMBERS_KEPT = 2**24  # all taps of a batch may together hold so many numbers, 64 MiB of float32


def taps_of(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the modules to observe in depth order, the head last. Without `taps`, a network's children are used."""
    taps = getattr(model, "taps", None)
    return dict(model.named_children() if taps is None else taps)


@contextmanager
def record(model: nn.Module, names: Iterable[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Records the output of each named tap (by default of every tap), and `pooled`, the input (B,D) of the head.

    Every forward fills the dictionary anew, in the order in which the taps run. The dictionary stays after the `with`;
    the hooks do not. Nothing is copied or detached, so that gradients and tangents (`torch.func.jvp`) pass. If a
    network from elsewhere later overwrites an output in place, the dictionary has the overwritten values. Raises
    ValueError for an unknown name.
    """
    taps = taps_of(model)
    recorded = [*taps, POOLED] if names is None else list(names)
    unknown = [name for name in recorded if name not in taps and name != POOLED]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no tap of this network; it has {', '.join([*taps, POOLED])}")
    features: dict[str, Tensor] = {}

    def keep(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            features.pop(name, None)  # otherwise an entry of the last forward would keep its place in the order
            features[name] = value

    handles = [
        taps[name].register_forward_hook(lambda module, inputs, output, name=name: keep(name, output))
        for name in recorded
        if name != POOLED
    ]
    if POOLED in recorded and taps:
        head = list(taps.values())[-1]
        handles.append(head.register_forward_pre_hook(lambda module, inputs: keep(POOLED, inputs[0])))
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def batch_size_for(model: nn.Module, image: Tensor) -> int:
    """Returns how many images like this normalised one (1,C,H,W) a batch may have for its taps to take about 64 MiB."""
    with record(model) as features:
        model(image)
    return min(250, max(1, NUMBERS_KEPT // max(1, sum(value.numel() for value in features.values()))))


# --------------------------------------------------------------------------------------------------------------- grids


def grid_of(model: nn.Module, name: str, features: Mapping[str, Tensor]) -> Tensor:
    """Returns a recorded tap as a map (B,D,h,w). Tokens (B,N,D) become the square grid of their patches.

    Raises ValueError where a tap has no grid: a feature (B,D), or the tokens of an image that is not square.
    """
    output = features[name]
    if output.ndim == 4:
        return output
    if output.ndim != 3:
        raise ValueError(f"{name}: a tensor of {output.ndim} dimensions has no grid")
    return to_grid(output, prefix_of(model, output))


def prefix_of(model: nn.Module, tokens: Tensor) -> int:
    """Returns how many of the tokens (B,N,D) precede the patches: `model.prefix_tokens`, or what the largest square
    leaves over."""
    prefix = getattr(model, "prefix_tokens", None)
    return int(tokens.shape[1] - math.isqrt(tokens.shape[1]) ** 2 if prefix is None else prefix)


def to_grid(tokens: Tensor, prefix: int) -> Tensor:
    """Turns tokens (B,N,D) into a map (B,D,h,w), without the first `prefix` tokens."""
    patches = tokens.shape[1] - prefix
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(f"{patches} patch tokens are no square grid")
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, (side, side))


def mean_over_positions(output: Tensor) -> Tensor:
    """Averages a map (B,D,h,w) or tokens (B,N,D) over positions, to (B,D)."""
    return output.flatten(2).mean(2) if output.ndim == 4 else output.mean(1)


def middle_positions(height: int, width: int) -> list[tuple[int, int]]:
    """Returns the positions (row, column) in the middle of a grid: one, two or four, if its sides are odd or even."""
    rows, columns = ({(side - 1) // 2, side // 2} for side in (height, width))
    return [(row, column) for row in sorted(rows) for column in sorted(columns)]


def from_middle(size: int, dtype: torch.dtype = torch.float64, device: torch.device | None = None) -> Tensor:
    """Returns the coordinates (size,) of pixels or positions along one axis, counted from the middle."""
    return torch.arange(size, dtype=dtype, device=device) - (size - 1) / 2
