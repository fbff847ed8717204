"""Signals that end a run between two steps, after it was saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from vitbench.errors import TryAgain
from vitbench.machine.distributed import WORLD_SIZE

# what asks a run to save and end; Windows has not all of them
STOPPING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT") if hasattr(signal, name)
]
STUCK_SECONDS = 25  # from a SIGTERM until a process that waits for one that has gone ends; torchrun kills it after 30


class Stopped(TryAgain):
    """The run was saved and ended by a signal; 130 after Ctrl-C, 75 otherwise."""

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(message)
        self.number = number
        self.exit_code = 130 if number == signal.SIGINT else 75


class Interrupt:
    """Decides what a signal does: at first it ends the process (143, or 130 for Ctrl-C), for nothing is saved yet;
    after `saves()` it is remembered in `received` until the next step is over, and a second Ctrl-C stops at once (not
    under torchrun, which adds one of its own); after `stops(message)` it raises Stopped.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._remember = False
        self._message: str | None = None
        self._before: dict[int, Any] = {}

    def saves(self) -> None:
        self._remember, self._message = True, None

    def stops(self, message: str) -> None:
        self._message = message

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in STOPPING}
            if WORLD_SIZE > 1:
                _end_when_stuck()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # torchrun sends the others a SIGTERM when the first one ends, and they still have to say why they do
            signal.signal(number, handler if WORLD_SIZE == 1 else signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None and WORLD_SIZE == 1
        if self._message is not None:
            self.received = number  # the other runs of a stack save
            raise Stopped(self._message, number)
        if number == signal.SIGINT and (again or not self._remember):
            raise KeyboardInterrupt
        if not self._remember:
            sys.exit(143)
        self.received = number


def _end_when_stuck() -> None:
    """Ends this process some time after a SIGTERM that it did not obey.

    When one of several processes is killed, torchrun sends the others a SIGTERM. One that waits for it inside NCCL never
    comes back to Python, where signals are handled; a thread reads of them here.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while os.read(reader, 1)[0] != signal.SIGTERM:
            pass
        time.sleep(STUCK_SECONDS)
        os.write(2, b"vitbench: stuck, ended without saving; repeating the command goes on from the last save\n")
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()
