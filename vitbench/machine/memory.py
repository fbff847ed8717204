"""Tells how many bytes are free on a GPU or in the machine's memory, and whether an error means that memory ran out."""

from __future__ import annotations

import torch

from vitbench.machine.limits import free_memory


def free_bytes(device: torch.device) -> int:
    """Returns the bytes that a process can allocate now: the free memory, or less if a limit leaves less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def ran_out(error: BaseException | None) -> bool:
    """Returns whether an error means that memory ran out, or was raised while such an error was handled.

    torch has an exception class for it on a GPU, but only a message on a CPU. If memory runs out while a graph is
    recorded, the recording raises another error.
    """
    if error is None:
        return False
    words = ("can't allocate memory", "out of memory")
    says_so = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(its in str(error) for its in words)
    return says_so or ran_out(error.__context__)
