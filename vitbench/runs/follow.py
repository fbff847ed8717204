"""Sends what a run wrote to trackers: the lines of metrics.csv, and the results of its record.

A tracker says which steps it has, and gets the others. So no step is there twice, however often a run was killed,
resumed or sent. Only lines up to the last saved state are sent, because resuming deletes later lines.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitbench.errors import DataError, TryAgain, UserError
from vitbench.machine.distributed import RANK
from vitbench.machine.redact import redacted
from vitbench.menu import look_up
from vitbench.numbers.words import printable, typed_value
from vitbench.runs.record import Metrics, flat_settings
from vitbench.runs.run import Run, read_metrics
from vitbench.settings.identity import can_decide
from vitbench.trackers.base import Tracker
from vitbench.trackers.menu import MENU

Line = tuple[int, Mapping[str, float]]  # a step and its values by their names

SECONDS_AT_THE_END, SECONDS_AFTER_A_CUT = 30.0, 2.0  # how long a run waits for trackers
OF_THE_RUN = (IsADirectoryError, NotADirectoryError, FileNotFoundError, UnicodeError)  # errors that concern one run
_told: set[str] = set()  # warnings are printed once in a process, because what fails in one run of a sweep fails in all


def lines_of(folder: Path, until: int) -> Iterator[Line]:
    """Yields the lines of metrics.csv up to a step."""
    for row in read_metrics(folder):
        step = int(row.pop("step"))
        if step <= until:
            yield step, {name: float(cell) for name, cell in row.items() if cell}


def results_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the results in a record that are not null, without other fields."""
    return {name: metrics[name] for name in Metrics.__annotations__ if metrics.get(name) is not None}


class Followed:
    """A run in one tracker. An error becomes one line: DataError if the run is at fault, TryAgain if the tracker is."""

    def __init__(self, name: str, run: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._name, self._run = name, run
        with self._told():
            self._tracker: Tracker = look_up("trackers", name, MENU)(run, folder, told_settings(config))
            self._held = {name: {*steps} for name, steps in self._tracker.held().items()}

    def hand_over(self, lines: Iterable[Line]) -> int:
        """Sends what the tracker lacks; returns how many values it sent."""
        count = 0
        for step, values in lines:
            new = {name: value for name, value in values.items() if step not in self._held.get(name, ())}
            if new:
                with self._told():
                    self._tracker.log(step, new)
                for name in new:
                    self._held.setdefault(name, set()).add(step)
                count += len(new)
        return count

    def close(self) -> None:
        with self._told():
            self._tracker.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            why = redacted(printable(f"{type(error).__name__}: {error}"))[:300]
            if isinstance(error, OF_THE_RUN):
                raise DataError(f"trackers={self._name}: {self._run}: {why}") from None
            raise TryAgain(f"trackers={self._name}: {why}") from None


def told_settings(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Returns the settings that decide a run's numbers, as trackers take them: without folders, machines or secrets."""
    flat = {key: value for key, value in flat_settings(config).items() if value is not None and can_decide(key)}
    plain = {key: value if isinstance(value, int | float) else typed_value(value) for key, value in flat.items()}
    return dict(redacted(plain))


class Follower:
    """Follows a run that trains, in a thread of its own, so that a service that fails or hangs does not delay it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._names: list[str] = [*(run.settings["trackers"] or [])] if RANK == 0 else []
        self._steps: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def saved(self, step: int, results: Mapping[str, float] | None = None) -> None:
        """Has all lines up to a step sent, and then the results of this step. Returns at once."""
        if not self._names:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
            self._thread.start()
        self._steps.put((step, results or {}))

    def close(self, at_the_end: bool = False) -> None:
        """Waits until everything is sent; waits only briefly for a run that will be resumed."""
        if self._thread is not None:
            seconds = SECONDS_AT_THE_END if at_the_end else SECONDS_AFTER_A_CUT
            self._steps.put(None)
            self._thread.join(seconds)
            if self._thread.is_alive() and at_the_end:
                _warn(f"trackers={','.join(self._names)}: no answer within {seconds:g} s")
            self._thread = None

    def _work(self) -> None:
        opened: dict[str, Followed] = {}
        for step, results in iter(self._steps.get, None):
            for name in [*self._names]:
                try:
                    if name not in opened:
                        opened[name] = Followed(name, self._run.id, self._run.folder, self._run.settings)
                    opened[name].hand_over([*lines_of(self._run.folder, step), (step, results)])
                except UserError as error:
                    self._names.remove(name)
                    _warn(str(error))
        for name in self._names:
            try:
                opened[name].close()
            except UserError as error:
                _warn(str(error))


def forget_told() -> None:
    """Lets this process print its warnings again, for its next command."""
    _told.clear()


def _warn(problem: str) -> None:
    """Prints a warning, once in a process."""
    if problem not in _told:
        _told.add(problem)
        end = "the run continues, and `vitbench track` can send the rest"
        print(f"warning: {problem}; {end}", file=sys.stderr, flush=True)
