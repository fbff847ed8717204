"""The work that a function gives a GPU, recorded once as a CUDA graph and replayed from then on.

A small network's step is some 150 kernels, and the host is expected to take longer to launch them than a GPU to do
them (not measured yet). The replay of a graph is one launch. It repeats what was recorded at the same addresses in
memory, so whatever Python decided or drew while it was recorded stays as it was. What changes from call to call is
therefore a tensor: an input, which is copied into the recorded one, or something that the function itself changes in
place, such as weights or a counter. Random numbers are drawn afresh, by torch's generator of the device as the host
seeded it before the call.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vitbench.machine.hardware import Machine

WARM_UPS = 3  # calls before the recording: they compile, choose kernels and make what an optimizer keeps


def recorded(function: Callable[..., Any], machine: Machine) -> Callable[..., Any]:
    """The function, recorded where the machine has graphs."""
    return Recorded(function, machine.device) if machine.graph else function


class Recorded:
    """Calls a function of tensors, and once it has warmed up replays its graph instead.

    All inputs and outputs are tensors on the device, or tuples of them. A replay overwrites the outputs of the call
    before. Inputs whose shapes differ from those of the first call, such as the rest of a split, are never recorded.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        self.function, self.device = function, device
        self._shapes: list[torch.Size] | None = None
        self._calls = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        shapes = [given.shape for given in inputs]
        if self._shapes is None:
            self._shapes = shapes
        if shapes != self._shapes:
            return self.function(*inputs)
        if self._calls < WARM_UPS:
            self._calls += 1
            return warm_up(self.function, inputs, self.device)
        if self._replay is None:
            self._inputs = [given.clone() for given in inputs]
            self._replay, self._outputs = record(self.function, self._inputs, self.device)
        for recorded, given in zip(self._inputs, inputs, strict=True):
            recorded.copy_(given)
        self._replay()
        return self._outputs


@cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    """The CUDA stream that warms up and records. One serves all, because torch keeps a workspace for each."""
    return torch.cuda.Stream(device)


def warm_up(function: Callable[..., Any], inputs: Sequence[Tensor], device: torch.device) -> Any:
    """Calls the function on another CUDA stream, as torch asks for before a recording."""
    beside, queue = _beside(device), torch.cuda.current_stream(device)
    beside.wait_stream(queue)
    with torch.cuda.stream(beside):
        outputs = function(*inputs)
    queue.wait_stream(beside)
    return outputs


def record(
    function: Callable[..., Any], inputs: Sequence[Tensor], device: torch.device
) -> tuple[Callable[[], None], Any]:
    """Records the function without running it; returns what replays it, and the outputs that a replay fills."""
    gc.collect()  # graphs of runs that have ended give their memory back
    graph, queue = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    try:
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=_beside(device)):
            outputs = function(*inputs)
    except Exception:
        torch.cuda.set_stream(queue)  # where a recording fails, torch stays on the other one
        raise
    return graph.replay, outputs
