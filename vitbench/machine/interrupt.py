"""Lets a signal end a run between two steps, after the run has been saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from vitbench.errors import TryAgain
from vitbench.machine.distributed import WORLD_SIZE

# The signals that ask a run to save and end. Windows lacks some of them.
STOPPING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT") if hasattr(signal, name)
]
STUCK_SECONDS = 25  # a process that does not react to SIGTERM ends itself after this time; torchrun kills it after 30


class Stopped(TryAgain):
    """A signal ended the run after it was saved. The exit code is 130 after Ctrl-C, else 75."""

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(message)
        self.number = number
        self.exit_code = 130 if number == signal.SIGINT else 75


class Interrupt:
    """A context manager that decides what a signal does.

    At first, a signal ends the process, because nothing is saved yet (exit code 143, or 130 for Ctrl-C). After
    `saves()`, a signal is remembered in `received`, so that the run saves and ends after the present step. A second
    Ctrl-C then ends the process at once, except under torchrun, which sends a second one itself. After
    `stops(message)`, a signal raises Stopped.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._remember = False
        self._message: str | None = None
        self._old_handlers: dict[int, Any] = {}

    def saves(self) -> None:
        self._remember, self._message = True, None

    def stops(self, message: str) -> None:
        self._message = message

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            numbers = [number for number in STOPPING if not _ignored_by_nohup(number)]
            self._old_handlers = {number: signal.signal(number, self._handle) for number in numbers}
            if WORLD_SIZE > 1:
                _end_when_stuck()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old_handlers.items():
            # When one process ends, torchrun sends SIGTERM to the others, but they still have to print why they end.
            signal.signal(number, handler if WORLD_SIZE == 1 else signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_second = self.received is not None and WORLD_SIZE == 1
        if self._message is not None:
            self.received = number  # tells the other runs of a stack to save
            raise Stopped(self._message, number)
        if number == signal.SIGINT and (is_second or not self._remember):
            raise KeyboardInterrupt
        if not self._remember:
            sys.exit(143)
        self.received = number


def _ignored_by_nohup(number: int) -> bool:
    """Returns whether the signal is SIGHUP and `nohup` has set it to be ignored."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN


def _end_when_stuck() -> None:
    """Ends this process some seconds after a SIGTERM, if it still runs.

    When one of several processes is killed, torchrun sends SIGTERM to the others. A process that waits inside NCCL for
    the killed one never returns to Python, which handles signals. So a thread receives the signal through a pipe.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while os.read(reader, 1)[0] != signal.SIGTERM:
            pass
        time.sleep(STUCK_SECONDS)
        os.write(2, b"vitbench: stuck, ended without saving; repeat the command to continue from the last save\n")
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()
