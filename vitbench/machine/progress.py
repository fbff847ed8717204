"""Shows progress on stderr: a bar in a terminal, or else a plain line every 30 s."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vitbench.machine.terminal import beneath, escaped, output_escaped

SECONDS_BETWEEN_LINES = 30.0


def interactive(stream: Any = None) -> bool:
    """Returns whether a bar can be drawn on a stream, by default stderr."""
    return (stream or sys.stderr).isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


MEGABYTE = 1e6


class Progress:
    """The progress of one task. `update` may be called at any rate, and `say` prints a line that stays."""

    def __init__(self, label: str, total: float, unit: str, bar: Any = None, quiet: bool = False):
        self.label, self.total, self.unit = label, total, unit
        self._bar, self._quiet = bar, quiet
        self._task = bar.add_task(escaped(label), total=total, note="") if bar is not None else None
        self._begin = self._last_line = time.monotonic()

    def update(self, completed: float, note: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=completed, note=escaped(note))
            return
        now = time.monotonic()
        if not self._quiet and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = completed / max(now - self._begin, 1e-9)
            left = f", {(self.total - completed) / rate:.0f} s left" if rate else ""
            done, all_ = (f"{round(count, 1):,.12g}" for count in (completed, self.total))
            self.say(f"{self.label}: {done} of {all_} {self.unit}{left}{', ' + note if note else ''}")

    def megabytes(self) -> Callable[[int], None]:
        """Returns a function that takes the size of each block in bytes and moves a bar whose unit is MB."""
        done = 0

        def tell(size: int) -> None:
            nonlocal done
            done += size
            self.update(done / MEGABYTE)

        return tell

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(escaped(line), markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: float, unit: str, wanted: bool | None = None) -> Iterator[Progress]:
    """Yields a Progress. `wanted` True draws a bar, False prints nothing, None draws a bar only in a terminal."""
    if wanted is False:
        yield Progress(label, total, unit, quiet=True)
    elif not interactive() and wanted is None:
        yield Progress(label, total, unit)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        ]
        console = Console(file=beneath(sys.stderr))
        # rich replaces stdout and stderr for a while and interprets what is printed, so output is escaped before that.
        with Bar(*columns, console=console, transient=True) as bar, output_escaped():
            yield Progress(label, total, unit, bar)
