"""Signals that end a run between two steps, after it was saved."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from vitbench.errors import TryAgain

# what asks a run to save and end; Windows has not all of them
STOPPING = [
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGINT") if hasattr(signal, name)
]


class Stopped(TryAgain):
    """The run was saved and ended by a signal; 130 after Ctrl-C, 75 otherwise."""

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(message)
        self.number = number
        self.exit_code = 130 if number == signal.SIGINT else 75


class Interrupt:
    """Decides what a signal does: at first it ends the process (143, or 130 for Ctrl-C), for nothing is saved yet;
    after `saves()` it is remembered in `received` until the next step is over, and a second Ctrl-C stops at once;
    after `stops(message)` it raises Stopped.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._remember = False
        self._message: str | None = None
        self._before: dict[int, Any] = {}

    def saves(self) -> None:
        self._remember = True

    def stops(self, message: str) -> None:
        self._message = message

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in STOPPING}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._message is not None:
            raise Stopped(self._message, number)
        if number == signal.SIGINT and (not self._remember or self.received is not None):
            raise KeyboardInterrupt
        if not self._remember:
            sys.exit(143)
        self.received = number
