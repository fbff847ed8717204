"""The device, precision and threads that a run is computed with, and their description in the record."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from vitbench.errors import UserError
from vitbench.machine.distributed import LOCAL_RANK, LOCAL_WORLD_SIZE, WORLD_SIZE
from vitbench.machine.provenance import Hardware, Provenance, Versions, packages, processor, threads_of_process
from vitbench.version import __version__


@cache
def _keep_freed_memory() -> None:
    """Makes glibc keep freed memory in this process.

    Otherwise the memory of large tensors is returned to the system, and the system zeroes and maps it again in every
    step: a ResNet-18 with batches of 128 takes 1.10 times as long.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h


@dataclass(frozen=True)
class Machine:
    device: torch.device
    precision: str  # float32 or bfloat16 (autocast)
    compile: bool
    threads: int
    graph: bool = False  # whether a GPU records the work of a step once as a CUDA graph, and replays it

    @classmethod
    def of(
        cls, *, device: str, precision: str, compile: bool | None, threads: int | None, graph: bool | None = None
    ) -> Machine:
        """Replaces `auto` and None by values, and makes torch deterministic on this many threads.

        If there are several processes on this machine, each takes its own GPU, or its share of the cores. Raises
        UserError if this machine has no such device.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device == "auto":
            device = "cuda" if gpus else "cpu"
        if WORLD_SIZE > 1 and device != "cpu":
            if device != "cuda" or gpus < LOCAL_WORLD_SIZE:
                raise UserError(
                    f"machine.device={device}: torchrun started {LOCAL_WORLD_SIZE} processes here, each needs its own "
                    f"GPU, and there are {gpus or 'none'}; --nproc-per-node={max(gpus, 1)} works, or machine.device=cpu"
                )
            device = f"cuda:{LOCAL_RANK}"
            torch.cuda.set_device(LOCAL_RANK)
        if device != "cpu" and int(device.removeprefix("cuda").lstrip(":") or 0) >= gpus:
            raise UserError(
                f"machine.device={device}: there are {gpus or 'no'} GPUs; machine.device=cpu works anywhere"
            )
        on_gpu = device != "cpu"
        threads = threads or threads_of_process(LOCAL_WORLD_SIZE)
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False  # evaluation is in float32 and must not be rounded to TF32
        if on_gpu:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        else:
            _keep_freed_memory()
        if graph and (not on_gpu or WORLD_SIZE > 1):
            raise UserError(
                "machine.graph=true: "
                + ("needs a GPU, and this is a CPU" if not on_gpu else "is for a run in one process")
                + "; drop it"
            )
        precision = ("bfloat16" if on_gpu else "float32") if precision == "auto" else precision
        compile = on_gpu if compile is None else compile
        graph = on_gpu and WORLD_SIZE == 1 if graph is None else graph
        return cls(torch.device(device), precision, compile, threads, graph)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def described(self, stacked: int = 1) -> Provenance:
        """Returns hardware and versions for a record; `stacked` is the number of runs that trained as one model."""
        hardware: Hardware = {
            "device": self.device.type,
            "name": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else processor(),
            "threads": self.threads,
            "precision": self.precision,
            "compiled": self.compile,
        }
        if WORLD_SIZE > 1:
            hardware["processes"] = WORLD_SIZE
        if stacked > 1:
            hardware["stacked"] = stacked
        if self.graph:
            hardware["graph"] = True
        versions: Versions = {
            "python": platform.python_version(),
            "vitbench": __version__,
            "torch": torch.__version__,
            "numpy": version("numpy"),
        }
        return {"hardware": hardware, "versions": versions, "packages": packages()}


@contextmanager
def torch_kept() -> Iterator[None]:
    """Restores torch's threads, switches and random state at the end, because training and probing change them."""
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    benchmark, allow_tf32 = cudnn.benchmark, cudnn.allow_tf32
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            cudnn.benchmark, cudnn.allow_tf32 = benchmark, allow_tf32
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


class Stopwatch:
    """Adds up the seconds from `start` to `stop`.

    The runs of a stack share one watch, which is stopped while any of them evaluates.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begin: float | None = None

    def start(self) -> None:
        if self._begin is None:
            self._begin = time.monotonic()

    @property
    def running(self) -> float:
        """The seconds since the last `start`; 0 if the watch is stopped."""
        return 0.0 if self._begin is None else time.monotonic() - self._begin

    def stop(self) -> None:
        if self._begin is not None:
            self.seconds += time.monotonic() - self._begin
            self._begin = None
