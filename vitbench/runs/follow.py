"""What a run wrote is handed to trackers: the lines of metrics.csv, and the results of its record.

A tracker says which steps it holds, and gets the others. So it does not matter how often a run was killed, resumed or
handed over: no step is there twice. Only lines that a saved state holds are handed over, because resuming takes the
others back.
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
OF_THE_RUN = (IsADirectoryError, NotADirectoryError, FileNotFoundError, UnicodeError)  # no other run has this fault
_told: set[str] = set()  # the warnings of this process: what fails in one run of a sweep fails in all


def lines_of(folder: Path, until: int) -> Iterator[Line]:
    """The lines of metrics.csv up to a step."""
    for row in read_metrics(folder):
        step = int(row.pop("step"))
        if step <= until:
            yield step, {name: float(cell) for name, cell in row.items() if cell}


def results_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The results of a record that are known, without other fields."""
    return {name: metrics[name] for name in Metrics.__annotations__ if metrics.get(name) is not None}


class Followed:
    """A run in one tracker. What the tracker raises becomes one line: DataError of a run, and TryAgain of a tracker."""

    def __init__(self, name: str, run: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._name, self._run = name, run
        with self._told():
            self._tracker: Tracker = look_up("trackers", name, MENU)(run, folder, told_settings(config))
            self._held = {name: {*steps} for name, steps in self._tracker.held().items()}

    def hand_over(self, lines: Iterable[Line]) -> int:
        """Hands over what the tracker lacks; returns how many values that were."""
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
    """The settings that decide a run's numbers, as trackers take them: without folders, machines and secrets."""
    flat = {key: value for key, value in flat_settings(config).items() if value is not None and can_decide(key)}
    plain = {key: value if isinstance(value, int | float) else typed_value(value) for key, value in flat.items()}
    return dict(redacted(plain))


class Follower:
    """Follows a run that trains, in a thread of its own, so that no service that fails or hangs holds up the run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._names: list[str] = [*(run.settings["trackers"] or [])] if RANK == 0 else []
        self._steps: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def saved(self, step: int, results: Mapping[str, float] | None = None) -> None:
        """Has all lines up to a step handed over, and then results of this step; returns at once."""
        if not self._names:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trackers", daemon=True)
            self._thread.start()
        self._steps.put((step, results or {}))

    def close(self, at_the_end: bool = False) -> None:
        """Waits for what is not handed over yet; only briefly for a run that will be resumed."""
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
    """Lets the warnings of this process be told again: for its next command."""
    _told.clear()


def _warn(problem: str) -> None:
    """Prints a warning once a process."""
    if problem not in _told:
        _told.add(problem)
        end = "the run is not held up, and `vitbench track` hands over the rest"
        print(f"warning: {problem}; {end}", file=sys.stderr, flush=True)
