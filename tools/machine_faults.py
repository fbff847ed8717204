"""The rounds with faults of the machine: of its disk, memory, clock, network and permissions.

The docstring of each round is its line in the help of rounds.py.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from tools.children import Ended, Failed, NotTried, Place, fork, new, told

NEW_HOST_NAME, NEW_NETWORK = 0x04000000, 0x40000000  # flags of `unshare`


def inject(place: Place, name: str, number: int, random: Random) -> str:
    """the Nth write, fsync or rename fails (ENOSPC, EIO) or kills, by strace"""
    if shutil.which("strace") is None:
        raise NotTried("strace is not installed")
    if not place.calls:
        folder = place.fresh("calls")
        told(_traced(folder, "trace=write,fsync,rename"), 0)
        place.calls = dict(Counter(re.findall(r"^\d+ +(write|fsync|rename)\(", (folder / "calls").read_text(), re.M)))
    call, fault = random.choice([*place.calls]), random.choice(["error=ENOSPC", "error=EIO", "signal=KILL"])
    nth = f"{random.randint(1, place.calls[call])}{random.choice(['', '+'])}"  # once, or from this call on
    folder = place.fresh(name)
    ended = _traced(folder, "trace=write,fsync,rename", f"inject={call}:{fault}:when={nth}")
    try:
        if re.search(r"^\d+ +write\([12], .*INJECTED", (folder / "calls").read_text(), re.M) and ended.code in (1, 4):
            ended = ended._replace(code=4, err="")  # it could not print what was wrong
        else:
            told(ended, 0, 4, -signal.SIGKILL)
        after = {0: "went on, ", 4: "exit 4, then ", -signal.SIGKILL: "killed, then "}[ended.code]
        return after + (place.finished(folder) if ended.code else place.same(folder))
    except Failed as failed:
        raise Failed(f"{failed} ({call}:{fault}:when={nth})") from None


def _traced(folder: Path, *rules: str) -> Ended:
    """Runs a child under strace, which sees its system calls from the beginning of vitbench on."""
    reader, writer = os.pipe()

    def before() -> None:
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))  # lets a process that is not its parent trace it
        os.read(reader, 1)

    child = fork(folder, before=before)
    command = ["strace", "-f", "-o", str(folder / "calls"), *itertools.chain(*(("-e", rule) for rule in rules))]
    with subprocess.Popen([*command, "-p", str(child.pid)], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        line = strace.stderr.readline()
        os.write(writer, b"x")
        if "attached" not in line:
            child.wait()
            raise NotTried(line.strip())
        ended = child.wait()
        strace.stderr.read()
    os.close(reader)
    os.close(writer)
    return ended


def descriptors(place: Place, name: str, number: int, random: Random) -> str:
    """with few file descriptors (ulimit -n)"""
    many = [256, 64, 32, 16, 12, 8][number % 6]
    folder = place.fresh(name)
    return _limited(place, folder, lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (many, many)))


def memory(place: Place, name: str, number: int, random: Random) -> str:
    """with little memory: a memory cgroup and RLIMIT_AS in turn"""
    if number % 2:  # RLIMIT_AS limits the address space, of which torch reserves more than it uses
        size = [1200, 2400, 3200, 4800][number // 2 % 4] << 20
        return _limited(place, place.fresh(name), lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)))
    with memory_group([300, 400, 500, 600][number // 2 % 4] << 20) as group:
        return _limited(place, place.fresh(name), lambda: (group / "cgroup.procs").write_text(str(os.getpid())))


def _limited(place: Place, folder: Path, limit: Callable[[], object]) -> str:
    ended = told(new(folder, limit), 0, 1, 4, -signal.SIGKILL)
    if ended.code == 0:
        return "went on, " + place.same(folder)
    return ("killed, then " if ended.code < 0 else "one line, then ") + place.finished(folder)


@contextmanager
def memory_group(size: int) -> Iterator[Path]:
    """Makes a memory cgroup with this limit below that of this process. Raises NotTried if this is not possible."""
    own = dict(line.split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    if "memory" in own:
        group, file = Path(f"/sys/fs/cgroup/memory{own['memory']}"), "memory.limit_in_bytes"
    else:
        group, file = Path(f"/sys/fs/cgroup{own.get('', '/')}"), "memory.max"
    group /= f"vitbench-rounds-{os.getpid()}"
    try:
        group.mkdir()
        (group / file).write_text(str(size))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        raise NotTried(f"no memory cgroup: {error.strerror}") from None
    try:
        yield group
    finally:
        group.rmdir()


def clock(place: Place, name: str, number: int, random: Random) -> str:
    """the clock jumps by days and years, within a run and between two attempts, by faketime"""
    if shutil.which("faketime") is None:
        raise NotTried("faketime is not installed")
    library = subprocess.run(["faketime", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True)
    folder = place.fresh(name) if number % 2 == 0 else place.stopped(name, random.choice([2, 5, 9]))
    file, over = folder / "clock", threading.Event()
    file.write_text("-1d" if number % 2 else "+0")

    def jump() -> None:
        while not over.wait(0.05):
            file.write_text(random.choice(["+0", "-1d", "+1d", "-20y", "+5y", "-3600"]))

    environment = {"LD_PRELOAD": library.stdout.strip(), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
    jumps = threading.Thread(target=jump)  # the monotonic clock does not jump
    jumps.start()
    try:
        told(new(folder, None, FAKETIME_DONT_FAKE_MONOTONIC="1", DONT_FAKE_MONOTONIC="1", **environment), 0)
    finally:
        over.set()
        jumps.join()
    return place.same(folder)


def apart(flag: int) -> None:
    """Gives this process its own network or host name. Raises NotTried if it is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flag) != 0:
        raise NotTried(f"unshare: {os.strerror(ctypes.get_errno())}")


def root_alone() -> None:
    if os.geteuid() != 0:
        raise NotTried("it needs root")


def network(place: Place, name: str, number: int, random: Random) -> str:
    """without any network, as by unshare -n"""
    root_alone()
    folder = place.fresh(name)
    told(fork(folder, before=lambda: apart(NEW_NETWORK)).wait(), 0)
    return place.same(folder)


def host(place: Place, name: str, number: int, random: Random) -> str:
    """killed, and repeated on a host with another name"""
    root_alone()

    def another() -> None:
        apart(NEW_HOST_NAME)
        socket.sethostname("another-host")

    folder = place.fresh(name)
    told(fork(folder).wait(random.uniform(place.seconds / 2, place.seconds), kill=True), 0, -signal.SIGKILL)
    told(fork(folder, before=another).wait(), 0)
    return place.same(folder)


def nobody(place: Place, name: str, number: int, random: Random) -> str:
    """as a user without privileges: in their own folder, in a folder of root, on a stopped run of root"""
    root_alone()
    case = number % 3
    folder = place.stopped(name, random.choice([2, 5, 9])) if case == 2 else place.fresh(name, drawn=True)
    for path in [folder, *([folder / "runs"] if case == 0 else []), folder / "cache", *folder.rglob("cache/**/*")]:
        os.chown(path, 65534, 65534)

    def drop() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)

    ended = told(fork(folder, before=drop).wait(), 0 if case == 0 else 4)
    return place.same(folder) if case == 0 else f"exit {ended.code}, then {place.finished(folder)}"


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    root_alone()
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        raise NotTried(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def readonly(place: Place, name: str, number: int, random: Random) -> str:
    """on a read-only disk that is empty, has a stopped run, or has a finished run"""
    case = number % 3
    folder = place.stopped(name, random.choice([2, 5, 9])) if case == 1 else place.fresh(name, drawn=True)
    if case == 2:
        place.finished(folder)
    with mounted(folder / "runs", "--bind", str(folder / "runs")):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder / "runs")], check=True)
        code = told(fork(folder).wait(), 0 if case == 2 else 4).code
    return f"exit {code}, then {place.finished(folder)}"


def full(place: Place, name: str, number: int, random: Random) -> str:
    """on a disk of 50 kB to 2 MB, which is then enlarged"""
    size, folder = [50, 100, 200, 400, 700, 1000, 1500, 2000][number % 8], place.fresh(name)
    with mounted(folder / "runs", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs"):
        ended = told(fork(folder).wait(), 0, 4)
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder / "runs")], check=True)
        return f"exit {ended.code}, then {place.finished(folder)}"
