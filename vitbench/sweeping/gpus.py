"""`hydra/launcher=gpus`: starts processes that see one GPU each. `per_gpu=2` starts two processes for each GPU.

A sweep has slots, and each slot belongs to a GPU. A process takes a slot before its first run and lets CUDA see only
that GPU. It keeps the slot as long as it lives, because CUDA asks only once in a process which GPUs it may see. A slot
is a file lock, which ends with its process however that ends. So the process that replaces a killed one finds the slot
free.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import write

SECONDS_FOR_A_SLOT = 30.0  # a process waits so long for a slot, because another may be about to leave one


def slots(launcher: Any, device_of_runs: Iterable[str]) -> list[str]:
    """Returns the GPU of each slot, as CUDA_VISIBLE_DEVICES names it. One process trains in each slot.

    `launcher` has the settings of `hydra.launcher`, and `device_of_runs` has the `machine.device` of each run. The
    first slots have different GPUs, so that a few runs do not crowd on one. Raises UserError for settings that cannot
    work together.
    """
    devices, per_gpu, run_devices = launcher["devices"], launcher["per_gpu"], set(device_of_runs)
    if not isinstance(per_gpu, int) or isinstance(per_gpu, bool) or per_gpu < 1:
        raise UserError(f"hydra.launcher.per_gpu={per_gpu}: must be 1 or more processes on each GPU")
    on_cpu = run_devices == {"cpu"}
    for device in sorted(run_devices):
        if number := device.partition(":")[2]:
            raise UserError(
                f"machine.device={device}: hydra/launcher=gpus itself chooses a GPU for each process; drop it, "
                f"or type hydra.launcher.devices=[{number}] to use only that GPU"
            )
    if devices is None and on_cpu:
        raise UserError("machine.device=cpu: hydra/launcher=gpus is for GPUs; hydra/launcher=joblib is for processors")
    here = [] if on_cpu else _visible()
    return (here if devices is None else _chosen(devices, here)) * per_gpu


def at_once(launcher: Any, device_of_runs: Iterable[str]) -> int:
    """Returns how many processes train at a time; on a machine without a GPU, how many would on one with one GPU."""
    try:
        return len(slots(launcher, device_of_runs))
    except NoGpu:
        return int(launcher["per_gpu"])


class NoGpu(UserError):
    """There is no GPU here."""


def _visible() -> list[str]:
    """Returns the GPUs that a process here sees. Raises NoGpu where there is none."""
    import torch

    count, variable = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not count:
        hidden = "" if variable is None else f" with CUDA_VISIBLE_DEVICES={variable}"
        raise NoGpu(f"hydra/launcher=gpus: no GPU was found here{hidden}; on a CPU use hydra/launcher=joblib")
    named = [str(number) for number in range(count)] if variable is None else variable.split(",")
    return [name.strip() for name in named[:count]]  # CUDA ignores the variable from the first missing GPU on


def _chosen(devices: Any, here: Sequence[str]) -> list[str]:
    """Returns the GPUs of `hydra.launcher.devices`. Raises UserError where `here` has GPUs but lacks one of them."""
    chosen = [str(device) for device in ([devices] if isinstance(devices, int | str) else devices)]
    typed = f"hydra.launcher.devices=[{','.join(chosen)}]"
    named = all(re.fullmatch(r"[0-9]+|(GPU|MIG)-[\w/-]+", device) for device in chosen)
    if not chosen or not named or len(set(chosen)) < len(chosen):
        raise UserError(f"{typed}: must be GPUs by their numbers or UUIDs, each once, for example [0,1]")
    for device in chosen:
        # a UUID cannot be compared with numbers
        has_other_name = not device.isdigit() and all(name.isdigit() for name in here)
        if here and device not in here and not has_other_name:
            raise UserError(f"{typed}: {device} is none of the GPUs that are visible here: {', '.join(here)}")
    return chosen


@dataclass(frozen=True)
class OnOneGpu:
    """A launcher calls it for each run. Its process takes a slot before it does its first run."""

    task: Callable[[Any], Any]
    folder: Path  # the folder of the slots' locks
    slots: tuple[str, ...]  # the GPU of each slot

    def __call__(self, config: Any) -> Any:
        take_slot(self.folder, self.slots)
        return self.task(config)


_taken: dict[Path, Any] = {}  # this process's lock in each folder of slots, held until the process ends


def take_slot(folder: Path, slots: Sequence[str]) -> None:
    """Takes a free slot, unless this process has one, and lets the process see only the GPU of that slot."""
    from filelock import FileLock, Timeout

    deadline = time.monotonic() + SECONDS_FOR_A_SLOT
    while folder not in _taken:
        for number, device in enumerate(slots):
            lock = FileLock(folder / f"{number}.lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            _taken[folder] = lock
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            holder = {"slot": number, "device": os.environ["CUDA_VISIBLE_DEVICES"], "pid": os.getpid()}
            write(folder / f"{number}.{os.getpid()}.json", json.dumps(holder).encode())
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"none of {len(slots)} slots in {folder} became free in {SECONDS_FOR_A_SLOT:.0f} s")
        time.sleep(0.1)
