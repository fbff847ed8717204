"""Describes where a result comes from: the time, the code, the packages and the hardware."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import NotRequired, TypedDict

from vitbench.menu import MOST_THREADS

WORD = re.compile(r"[\w.-]+")  # the name at the beginning of a requirement


class Hardware(TypedDict):
    """The hardware that computed a run, and how."""

    device: str  # cpu or cuda
    name: str  # name of the processor or the GPU
    threads: int  # number of CPU threads in each process
    precision: str  # float32, or bfloat16 (by autocast)
    compiled: bool  # whether torch.compile compiled the network
    processes: NotRequired[int]  # number of processes of torchrun; only if there was more than one
    stacked: NotRequired[int]  # number of runs that trained together as one model; only if there was more than one
    graph: NotRequired[bool]  # whether a step was recorded as a CUDA graph; only if it was


class Versions(TypedDict):
    """The versions that a run was computed with; `packages` has those of all packages."""

    python: str  # the version of Python
    vitbench: str  # the version of vitbench
    torch: str  # the version of PyTorch, with its build (such as +cpu)
    numpy: str  # the version of NumPy


class Provenance(TypedDict):
    """The fields of a record about where its numbers were computed."""

    hardware: Hardware  # the hardware that computed the run
    versions: Versions  # the main versions that the run was computed with
    packages: NotRequired[dict[str, str]]  # the version of each package that was installed, by its name; absent: old


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@cache
def commit() -> str | None:
    """Returns the commit of the checkout that vitbench runs from, with a plus if files differ from it.

    For a copy of a checkout without its .git, it is the value of the variable VITBENCH_COMMIT; otherwise it is None.
    """
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return os.environ.get("VITBENCH_COMMIT") or None

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=5)

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        if head.returncode:
            return None
        changes = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


@cache
def packages() -> dict[str, str]:
    """Returns the version of each package that vitbench needs directly or indirectly; of all if it is not installed."""
    installed = {_normal(one.name): one for one in distributions()}
    wanted, names = ["vitbench"] if "vitbench" in installed else [*installed], set[str]()
    while wanted:
        if (name := wanted.pop()) in installed and name not in names:
            names.add(name)
            wanted += [_normal(WORD.match(line)[0]) for line in installed[name].requires or ()]  # type: ignore[index]
    return {name: installed[name].version for name in sorted(names)}


def _normal(name: str) -> str:
    """Returns a package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def processor() -> str:
    """Returns the name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_process(processes: int) -> int:
    """Returns the default number of threads of a process: OMP_NUM_THREADS if it is set, else its share of the cores.

    `processes` share the machine. If there are several, OMP_NUM_THREADS is ignored, because torchrun sets it to 1.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if processes == 1 and said.isascii() and said.isdecimal() and int(said) > 0:
        return min(int(said), MOST_THREADS)
    return max(1, cores() // processes)
