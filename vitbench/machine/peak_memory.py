"""Measures peak memory: of tensors during a step, or of this process since a reset."""

from __future__ import annotations

import resource
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_of_step(step: Callable[[], None], tensors: Iterable[Tensor], device: torch.device) -> int:
    """Returns the peak of the bytes of all tensors during a step, including `tensors`, which exist before it.

    On a GPU the allocator counts. On a CPU tensors are counted when operators return them, so the number is the same on
    every machine, and scratch memory within an operator is not counted.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device)
    with _TensorBytes(tensors) as counted:
        step()
    return counted.peak


class _TensorBytes(TorchDispatchMode):
    """Counts each storage from the moment an operator returns a tensor of it until its last tensor is freed."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: dict[int, Any] = {}
        for tensor in tensors:
            self._add(tensor)

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._storages:
            size = storage.nbytes()
            self._storages[key] = weakref.finalize(storage, self._drop, key, size)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _drop(self, key: int, size: int) -> None:
        del self._storages[key]
        self.now -= size

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = operator(*args, **(kwargs or {}))
        for leaf in tree_leaves(outputs):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return outputs


def reset_peak(device: str) -> None:
    """Resets the peak of `peak_since_reset`. For a CPU only Linux can do this; elsewhere the peak is never reset."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_since_reset(device: str) -> float:
    """Returns the peak in MiB: of the whole process for a CPU, of torch's tensors for a GPU."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
