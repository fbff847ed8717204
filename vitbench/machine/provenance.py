"""Where a number comes from: the time, the code and the processor."""

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
    """What computed a run."""

    device: str  # cpu or cuda
    name: str  # of the processor or the GPU
    threads: int  # of the CPU, in each process
    precision: str  # float32, or bfloat16 where autocast chooses
    compiled: bool  # by torch.compile
    processes: NotRequired[int]  # of torchrun; only where there was more than one
    stacked: NotRequired[int]  # runs that were trained as one model; only where there was more than one
    graph: NotRequired[bool]  # whether a step was recorded as a CUDA graph; only where it was


class Versions(TypedDict):
    """The versions that a run was computed with; `packages` has those of all packages."""

    python: str  # the version of Python
    vitbench: str  # the version of vitbench
    torch: str  # the version of PyTorch, with what it was built for
    numpy: str  # the version of NumPy


class Provenance(TypedDict):
    """What a record says of where its numbers were computed."""

    hardware: Hardware  # what computed the run
    versions: Versions  # those that it was computed with
    packages: NotRequired[dict[str, str]]  # the version of each package that was installed, by its name; absent: old


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@cache
def commit() -> str | None:
    """The commit of the checkout that vitbench runs from, with a plus if files differ.

    A copy of a checkout without its .git has what the variable VITBENCH_COMMIT says, and an installed vitbench None.
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
    """The version of each package that vitbench needs, itself or through others; of all, where it is not installed."""
    installed = {_normal(one.name): one for one in distributions()}
    wanted, names = ["vitbench"] if "vitbench" in installed else [*installed], set[str]()
    while wanted:
        if (name := wanted.pop()) in installed and name not in names:
            names.add(name)
            wanted += [_normal(WORD.match(line)[0]) for line in installed[name].requires or ()]  # type: ignore[index]
    return {name: installed[name].version for name in sorted(names)}


def _normal(name: str) -> str:
    """A package's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def processor() -> str:
    """The name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_process(processes: int) -> int:
    """How many threads a process computes with where nobody typed it: what OMP_NUM_THREADS says, else its cores.

    `processes` share the machine. torchrun sets OMP_NUM_THREADS=1 by itself, which says nothing of the user.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if processes == 1 and said.isascii() and said.isdecimal() and int(said) > 0:
        return min(int(said), MOST_THREADS)
    return max(1, cores() // processes)
