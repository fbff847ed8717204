"""Reads how much memory and how many processors this process may use: of the machine, by ulimit and by control groups.

It imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")  # batch systems and containers set their limits there
OWN_GROUPS = Path("/proc/self/cgroup")
# The files of limit and use, and the key of reclaimable bytes in memory.stat, for versions 2 and 1 of control groups.
GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Returns the bytes that a process can allocate now: the free memory, or less if a limit leaves less."""
    return max(0, min((_free_on_machine(), *left_by_control_groups(), *_left_by_ulimits())))


def _free_on_machine() -> int:
    try:
        return _kernel_table(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    except (OSError, KeyError):  # only Linux says how much memory is free; this is all memory of the machine
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def left_by_control_groups(root: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> Iterator[int]:
    """Yields the bytes that the limits of this process's control group, and of each group around it, leave."""
    for group in _control_groups("memory", root, own):
        for limit_file, use_file, reclaimable in GROUP_FILES:
            try:
                limit = int((group / limit_file).read_text())  # "max" means no limit, and raises ValueError
                used = int((group / use_file).read_text())
                yield limit - used + _kernel_table(group / "memory.stat").get(reclaimable, 0)
            except (OSError, ValueError):
                continue


def processor_quota(root: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> float | None:
    """Returns the processor time that control groups allow, in processors; None if they set no limit."""
    quotas = []
    for group in _control_groups("cpu", root, own):
        for quota_file, period_file in (("cpu.max", "cpu.max"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                quota = int((group / quota_file).read_text().split()[0])  # "max" raises ValueError
                period = int((group / period_file).read_text().split()[-1])
            except (OSError, ValueError, IndexError):
                continue
            if quota > 0 < period:  # in version 1, -1 means no limit
                quotas.append(quota / period)
    return min(quotas, default=None)


def _control_groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Yields the folders of this process's control group and of its parent groups, the innermost first."""
    try:
        memberships = own.read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controllers
        innermost = top / path.strip("/")
        for group in (innermost, *innermost.parents):
            if not group.is_relative_to(top):
                break
            yield group


def _left_by_ulimits() -> Iterator[int]:
    """Yields the bytes that `ulimit -v` and `ulimit -d` leave."""
    try:
        import resource

        used_kib = _kernel_table(Path("/proc/self/status"))
    except (ImportError, OSError):
        return
    for resource_limit, key in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        limit = resource.getrlimit(resource_limit)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit - used_kib.get(key, 0) * 1024


def _kernel_table(path: Path) -> dict[str, int]:
    """Returns the lines of a kernel file that have a word and a number."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
