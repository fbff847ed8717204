"""How many bytes are free on a GPU or in this machine's memory, as far as the system tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

CONTROL_GROUPS = Path("/sys/fs/cgroup")  # batch systems and containers set their limits there
# limit, use, and the key of reclaimable bytes in memory.stat, for versions 2 and 1 of Linux's control groups
GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes(device: torch.device) -> int:
    """Bytes that a process can take now: what the machine has free, or less where a limit leaves less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return max(0, min((_free_on_machine(), *_left_by_control_groups(), *_left_by_ulimits())))


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


def _free_on_machine() -> int:
    try:
        return _kernel_table(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    except (OSError, KeyError):  # outside Linux, nobody says what is free; this is all memory there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _left_by_control_groups(root: Path = CONTROL_GROUPS, own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yields what the limits of this process's control group, and of each group around it, leave."""
    try:
        memberships = own.read_text().splitlines()
    except OSError:
        return
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        innermost = top / path.strip("/")
        for group in (innermost, *innermost.parents):
            if not group.is_relative_to(top):
                break
            for limit_file, use_file, reclaimable in GROUP_FILES:
                try:
                    limit = int((group / limit_file).read_text())  # "max", where there is no limit, is a ValueError
                    used = int((group / use_file).read_text())
                    yield limit - used + _kernel_table(group / "memory.stat").get(reclaimable, 0)
                except (OSError, ValueError):
                    continue


def _left_by_ulimits() -> Iterator[int]:
    """Yields what `ulimit -v` and `ulimit -d` leave."""
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
    """The lines of a file of the kernel's that hold a word and a number."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
