"""How many bytes are free on a GPU or in this machine's memory, as far as the system tells."""

from __future__ import annotations

import torch

from vitbench.machine.limits import free_memory


def free_bytes(device: torch.device) -> int:
    """Bytes that a process can take now: what the machine has free, or less where a limit leaves less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def ran_out(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, or was raised while one that does was handled.

    torch has a class for it on a GPU, and words alone on a CPU. It may end the recording of a graph, which then fails
    with an error of its own.
    """
    if error is None:
        return False
    words = ("can't allocate memory", "out of memory")
    says_so = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(its in str(error) for its in words)
    return says_so or ran_out(error.__context__)
