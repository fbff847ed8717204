"""`hydra/launcher=gpus`: processes that each see one GPU, and several to a GPU where `per_gpu` asks for that.

A sweep has slots, and each slot has a GPU. A process takes a slot before its first run, shows CUDA that GPU alone, and
keeps both for its life, because CUDA asks once in a process which GPUs it may see. A slot is a file lock. It ends with
its process, however that ends, so that the process which comes in place of a killed one finds it free.
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

SECONDS_FOR_A_SLOT = 30.0  # how long a process waits for a slot, which another one may be about to leave


def slots(launcher: Any, device_of_runs: Iterable[str]) -> list[str]:
    """The GPU of each slot, in the words of CUDA_VISIBLE_DEVICES. As many processes train at a time as there are slots.

    `launcher` has the settings of `hydra.launcher`, and `device_of_runs` is the `machine.device` of each run. The first
    slots have different GPUs, so that a few runs are not crowded on one. UserError for what cannot be.
    """
    devices, per_gpu, run_devices = launcher["devices"], launcher["per_gpu"], set(device_of_runs)
    if not isinstance(per_gpu, int) or isinstance(per_gpu, bool) or per_gpu < 1:
        raise UserError(f"hydra.launcher.per_gpu={per_gpu}: must be 1 or more processes on each GPU")
    on_cpu = run_devices == {"cpu"}
    for device in sorted(run_devices):
        if number := device.partition(":")[2]:
            raise UserError(
                f"machine.device={device}: hydra/launcher=gpus shows each process one GPU, its first; drop it, "
                f"or type hydra.launcher.devices=[{number}] for that GPU alone"
            )
    if devices is None and on_cpu:
        raise UserError("machine.device=cpu: hydra/launcher=gpus is for GPUs; hydra/launcher=joblib is for processors")
    here = [] if on_cpu else _visible()
    return (here if devices is None else _chosen(devices, here)) * per_gpu


def at_once(launcher: Any, device_of_runs: Iterable[str]) -> int:
    """How many processes train at a time; where no GPU is, as when a study is listed on a laptop, those of one."""
    try:
        return len(slots(launcher, device_of_runs))
    except NoGpu:
        return int(launcher["per_gpu"])


class NoGpu(UserError):
    """There is no GPU here."""


def _visible() -> list[str]:
    """The GPUs that a process here sees; UserError where there is none."""
    import torch

    count, variable = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if not count:
        hidden = "" if variable is None else f" with CUDA_VISIBLE_DEVICES={variable}"
        raise NoGpu(f"hydra/launcher=gpus: no GPU was found here{hidden}; on a CPU use hydra/launcher=joblib")
    named = [str(number) for number in range(count)] if variable is None else variable.split(",")
    return [name.strip() for name in named[:count]]  # CUDA reads the variable up to the first one that is not there


def _chosen(devices: Any, here: Sequence[str]) -> list[str]:
    """The GPUs of `hydra.launcher.devices`; UserError where one of them is not among those `here`, if there are any."""
    chosen = [str(device) for device in ([devices] if isinstance(devices, int | str) else devices)]
    typed = f"hydra.launcher.devices=[{','.join(chosen)}]"
    named = all(re.fullmatch(r"[0-9]+|(GPU|MIG)-[\w/-]+", device) for device in chosen)
    if not chosen or not named or len(set(chosen)) < len(chosen):
        raise UserError(f"{typed}: must be GPUs by their numbers or UUIDs, each once, for example [0,1]")
    for device in chosen:
        has_other_name = not device.isdigit() and all(name.isdigit() for name in here)  # a UUID where numbers are known
        if here and device not in here and not has_other_name:
            raise UserError(f"{typed}: {device} is none of the GPUs that are visible here: {', '.join(here)}")
    return chosen


@dataclass(frozen=True)
class OnOneGpu:
    """What a launcher calls for each run, in a process that has taken a slot before it does the first."""

    task: Callable[[Any], Any]
    folder: Path  # of the slots
    slots: tuple[str, ...]  # the GPU of each

    def __call__(self, config: Any) -> Any:
        take_slot(self.folder, self.slots)
        return self.task(config)


_taken: dict[Path, Any] = {}  # this process's lock in each folder of slots, held until the process ends


def take_slot(folder: Path, slots: Sequence[str]) -> None:
    """Takes a free slot, unless this process has one, and shows the process the GPU of that slot alone."""
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
            raise RuntimeError(f"no slot was free within {SECONDS_FOR_A_SLOT:.0f} s of {len(slots)} in {folder}")
        time.sleep(0.1)
