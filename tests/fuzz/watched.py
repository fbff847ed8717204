"""Reads examples in a forked process that is watched: how it ends, how long and with how much memory, what it does.

An example may be read, or refused by an error of vitbench/errors.py in one line. All else is a finding: another
exception, more processor time or memory than a reader has, a process that dies, code that is executed, a process or a
connection that is opened, a file written outside the example's own folder.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.terminal import escaped

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# by the audit event, which of its arguments are paths that it changes
CHANGING = {
    "os.chmod": (0,), "os.chown": (0,), "os.link": (1,), "os.mkdir": (0,), "os.mkfifo": (0,), "os.mknod": (0,),
    "os.remove": (0,), "os.removexattr": (0,), "os.rename": (0, 1), "os.rmdir": (0,), "os.setxattr": (0,),
    "os.symlink": (1,), "os.truncate": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
}  # fmt: skip
EXECUTING = {
    "ctypes.dlopen", "http.client.connect", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.posix_spawn", "os.spawn",
    "os.startfile", "os.system", "pickle.find_class", "pty.spawn", "socket.bind", "socket.connect",
    "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "urllib.Request",
}  # fmt: skip
# these make classes of text that no example holds; what executes while something is imported is its module
MAY_EXECUTE = {"collections", "dataclasses", "typing"}
OWN_PICKLES = ("pickle.find_class", "vitbench.settings.composed_once")  # it copies what it holds in memory
IMPORTING = {"importlib._bootstrap", "_frozen_importlib"}
ADDRESSES = 2_000_000_000  # bytes that a reader may ask for at once, whatever its bound


@dataclass(frozen=True)
class Reader:
    """Something that reads a file which anyone can have made."""

    read: Callable[[Path], Any]
    file: str = "file"  # its path below the folder of the example
    around: Callable[[], Mapping[str, bytes]] = dict  # the files that lie beside it
    allowed: tuple[type[Exception], ...] = ()  # beside UserError: those that whoever calls it turns into a line
    seconds: float = 5.0  # of processor time
    megabytes: float = 200.0  # of memory beyond what a valid file takes
    silence: float = field(default=300.0, repr=False)  # seconds, after which it waits for something


class Watched:
    """A process that reads one example after another; `with` ends it."""

    def __init__(self, reader: Reader, folder: Path, valid: bytes) -> None:
        self.reader, self.folder, self.valid = reader, folder, valid
        self.process = 0

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self._ended(signal.SIGKILL)

    def finding(self, blob: bytes) -> str | None:
        """What is wrong with how the reader took an example; None where nothing is."""
        if not self.process:
            self._start()
        self.pipe.send_bytes(blob)
        try:
            if self.pipe.poll(self.reader.silence):
                return self.pipe.recv_bytes().decode(errors="backslashreplace") or None
        except (EOFError, ConnectionError):
            status = self._ended(None)
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
                return f"hangs: more than {self.reader.seconds:g} s of processor time"
            return f"the process died (status {status})"
        self._ended(signal.SIGKILL)
        return f"hangs: silent for {self.reader.silence:g} s"

    def _ended(self, by: int | None) -> int:
        if by is not None:
            os.kill(self.process, by)
        self.pipe.close()
        status, self.process = os.waitpid(self.process, 0)[1], 0
        return status

    def _start(self) -> None:
        self.pipe, its = multiprocessing.Pipe()
        with warnings.catch_warnings(action="ignore"):  # Python warns of threads, which a fork does not have
            self.process = os.fork()
        if self.process:
            its.close()
            self.pipe.recv_bytes()  # it is ready, and what takes long is imported
            return
        try:
            self.pipe.close()
            _serve(its, self.reader, self.folder, self.valid)
        except (EOFError, ConnectionError):
            pass
        except BaseException:
            its.send_bytes(f"the harness failed: {traceback.format_exc()}".encode())
        finally:
            os._exit(0)


class Executed(BaseException):
    """Ends a reader at what it must not do; no `except Exception` catches it."""


def _serve(pipe: Any, reader: Reader, folder: Path, valid: bytes) -> None:
    """What the process does: reads what comes out of the pipe, and answers what is wrong, or nothing."""
    faulthandler.disable()  # how a process died is told by its parent
    warnings.simplefilter("ignore")
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(stream, mode) for stream, mode in enumerate("rww"))
    folder, around = Path(os.path.realpath(folder)), reader.around()
    _read(reader, _laid(folder, reader, around, valid))  # what it imports and remembers is no example's
    libc = ctypes.CDLL(None)
    pipe.send_bytes(b"ready")
    did: list[str] = []
    watch = [False]
    sys.addaudithook(lambda event, arguments: _audit(event, arguments, folder, did) if watch[0] else None)
    before = _memory("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (before + ADDRESSES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        path = _laid(folder, reader, around, pipe.recv_bytes())
        did.clear()
        libc.malloc_trim(0)  # what was freed and kept here would hide what the example takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("VmRSS")
        signal.setitimer(signal.ITIMER_PROF, reader.seconds)
        watch[0] = True
        told = _read(reader, path)
        watch[0] = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        taken = (_memory("VmHWM") - before) / 1e6
        if did:
            told = f"does what it must not: {', '.join(did)}"
        elif not told and taken > reader.megabytes:
            told = f"takes {taken:.0f} MB, more than {reader.megabytes:.0f}"
        pipe.send_bytes(told.encode(errors="backslashreplace"))


def _laid(folder: Path, reader: Reader, around: Mapping[str, bytes], blob: bytes) -> Path:
    """Lays an example and the files beside it into the empty folder, which is the working folder, too."""
    os.chdir("/")
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in {**around, reader.file: blob}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.chdir(folder)
    return folder / reader.file


def _read(reader: Reader, path: Path) -> str:
    try:
        reader.read(path)
    except (UserError, *reader.allowed) as error:
        if len(escaped(str(error)).splitlines()) > 1 or not str(error).strip():  # as it is printed
            return f"says no one line: {error!r}"
    except BaseException:
        return traceback.format_exc()
    return ""


def _memory(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _audit(event: str, arguments: tuple[Any, ...], folder: Path, did: list[str]) -> None:
    """Notes and stops what a reader must not do."""
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & WRITING) or any(letter in (mode or "") for letter in "wax+")
        wrong = writes and _is_outside(path, folder)
    elif event in CHANGING:
        wrong = any(_is_outside(arguments[place], folder) for place in CHANGING[event])
    elif event == "exec":
        callers = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_stack(sys._getframe(2))]
        is_ours = callers[0] in MAY_EXECUTE or not IMPORTING.isdisjoint(callers)
        wrong = not is_ours or arguments[0].co_filename.startswith(f"{folder}/")
    elif event == "ctypes.dlopen":
        wrong = not str(arguments[0]).startswith(f"{sys.prefix}/")  # a package that is imported for the first time
    else:
        wrong = event in EXECUTING and (event, sys._getframe(2).f_globals.get("__name__")) != OWN_PICKLES
    if wrong:
        did.append(f"{event}{arguments!r} in {sys._getframe(2).f_globals.get('__name__')}"[:300])
        raise Executed(did[-1])


def _is_outside(path: Any, folder: Path) -> bool:
    if isinstance(path, int) or os.fspath(path) == os.devnull:
        return False
    real = os.path.realpath(os.fsdecode(path))
    return not os.path.normpath(real).startswith(f"{folder}/") and real != str(folder)
