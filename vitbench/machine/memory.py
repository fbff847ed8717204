"""How many bytes there is room for, on a GPU or in this machine's memory, as far as the system tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

GROUPS = Path("/sys/fs/cgroup")  # where batch systems and containers set limits
# limit, use and the part of the use that the system gives back, in versions 2 and 1 of Linux's control groups
FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes(device: torch.device) -> int:
    """Bytes that can be taken now: the least of what is free and of what each limit leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return max(0, min((*_free(), *_left_by_groups(), *_left_by_limits())))


def _free() -> Iterator[int]:
    try:
        yield _table(Path("/proc/meminfo").read_text())["MemAvailable:"] * 1024
    except (OSError, KeyError):  # not Linux: what it has, as what is free cannot be asked for
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left_by_groups(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Of this process's control group and of those around it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        top = groups / kinds
        inside = top / path.strip("/")
        for group in (inside, *inside.parents):
            if not group.is_relative_to(top):
                break
            for limit, use, given_back in FILES:
                try:
                    most = int((group / limit).read_text())  # "max" where there is none
                    used = int((group / use).read_text())
                    yield most - used + _table((group / "memory.stat").read_text()).get(given_back, 0)
                except (OSError, ValueError):
                    continue


def _left_by_limits() -> Iterator[int]:
    """Of `ulimit -v` and `ulimit -d`."""
    try:
        import resource

        used = _table(Path("/proc/self/status").read_text())
    except (ImportError, OSError):
        return
    for kind, key in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        most = resource.getrlimit(kind)[0]
        if most != resource.RLIM_INFINITY:
            yield most - used.get(key, 0) * 1024


def _table(text: str) -> dict[str, int]:
    """The lines of a file of the kernel's that are a word and a number."""
    words = (line.split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}
