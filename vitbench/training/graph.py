"""Records the work of a function on a GPU once, as a CUDA graph, and replays it in later calls.

One step of a small network launches some 150 kernels. The host is expected to take longer to launch them than the GPU
to compute them (this is not measured yet), and replaying a graph is a single launch. A replay repeats the recorded
kernels at the same addresses in memory, so whatever Python decided or drew during the recording stays fixed. All that
changes from call to call must therefore be a tensor: an input, which is copied into the recorded input, or a tensor
that the function changes in place, such as weights or a counter. Random numbers are new in each replay: they come from
torch's generator of the device, which the host seeds before the call.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from vitbench.machine.hardware import Machine

WARM_UPS = 3  # calls before the recording, in which kernels are compiled and chosen and the optimizer makes its state


def recorded(function: Callable[..., Any], machine: Machine) -> Callable[..., Any]:
    """Returns the function itself, or its recorded form if the machine uses graphs."""
    return Recorded(function, machine.device) if machine.graph else function


class Recorded:
    """Calls a function of tensors WARM_UPS times, then records it, and replays the graph from then on.

    All inputs and outputs are tensors on the device, or tuples of them. A replay overwrites the outputs of the previous
    call. Calls with inputs of other shapes than in the first call, such as the last batch of a split, are not recorded.
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
    """Returns the CUDA stream for warm-up and recording. There is one, because torch keeps a workspace per stream."""
    return torch.cuda.Stream(device)


def warm_up(function: Callable[..., Any], inputs: Sequence[Tensor], device: torch.device) -> Any:
    """Calls the function on another CUDA stream, as torch requires before a recording."""
    beside, queue = _beside(device), torch.cuda.current_stream(device)
    beside.wait_stream(queue)
    with torch.cuda.stream(beside):
        outputs = function(*inputs)
    queue.wait_stream(beside)
    return outputs


def record(
    function: Callable[..., Any], inputs: Sequence[Tensor], device: torch.device
) -> tuple[Callable[[], None], Any]:
    """Records the function without running it; returns a function that replays it, and the outputs that it fills."""
    gc.collect()  # frees the memory of graphs of finished runs
    graph, queue = torch.cuda.CUDAGraph(), torch.cuda.current_stream(device)
    try:
        with torch.cuda.device(device), torch.cuda.graph(graph, stream=_beside(device)):
            outputs = function(*inputs)
    except Exception:
        torch.cuda.set_stream(queue)  # after a failed recording torch would stay on the other stream
        raise
    return graph.replay, outputs
