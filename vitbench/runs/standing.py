"""Reads the state of a run from its folder, for another process or another machine that shares the disk.

Nothing is written. The run's lock says whether a process trains the run. A machine may not see the locks of another
machine. Then the age of the run's files decides: a run saves every five minutes, so one that has written nothing for
SILENT_SECONDS was killed, or its machine is down.
"""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError
from vitbench.machine.locks import is_held
from vitbench.runs.fields import fault_of_settings
from vitbench.runs.record import Record
from vitbench.runs.records import divergence_of, read_record, result_of
from vitbench.runs.run import STATES, Run, read_metrics
from vitbench.settings.compose import read_yaml

FINISHED, DIVERGED, FAILED, RUNNING, INTERRUPTED = "finished", "diverged", "failed", "running", "interrupted"
UNREADABLE, NO_RUN = "unreadable", "no run"
ENDED = (FINISHED, DIVERGED, FAILED)

SILENT_SECONDS = 900  # a process whose lock cannot be seen counts as ended after so long without a write
SIGNS = ("failure.json", "config.yaml", "metrics.csv", ".holder.json", *STATES)  # files of a run without a record
MOST_EPOCHS = MOST_SECONDS = 1e9


class Seen(NamedTuple):
    """What can be seen of a run's folder without opening its files. As long as it is the same, the run is, too."""

    files: dict[str, tuple[int, int, int]]  # by name: the time of the last change in nanoseconds, the size, the inode
    locked: bool = False  # whether a process holds the run
    silent: bool = True  # whether nothing was written for SILENT_SECONDS

    @property
    def changed(self) -> float:
        """When a file last changed, in seconds since the epoch; 0 where there is none."""
        return max((time for time, _, _ in self.files.values()), default=0) / 1e9


class Begun(NamedTuple):
    """How far a run is that has not ended."""

    settings: dict[str, Any]  # from its config.yaml; {} where that cannot be read
    rows: list[dict[str, str]]  # the lines of its metrics.csv
    saved: int  # the step of its newest state; 0 where there is none
    problems: list[str]  # a line for each file that cannot be read

    @property
    def step(self) -> int:
        """The last step that is known to be done."""
        return max(self.saved, int(self.rows[-1]["step"]) if self.rows else 0)

    @property
    def steps(self) -> int | None:
        """How many steps the run has; None where settings and metrics do not say."""
        return steps_by(self.settings.get("optim"), self.rows)

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The seconds of training that are left, at the speed so far; None where metrics.csv does not say."""
        if not self.rows or not self.steps:
            return None
        done, seconds = int(self.rows[-1]["step"]), float(self.rows[-1].get("train_seconds") or 0)
        is_known = done > 0 and 0 < seconds < MOST_SECONDS
        return seconds / done * max(0, self.steps - self.step) if is_known else None

    @property
    def progress(self) -> str:
        """Says which step was the last, and of how many."""
        step = f"step {self.step:,}" if self.step else "no step saved"
        try:
            recipe = self.settings["optim"]
            steps, epochs, least = recipe["steps"], recipe["epochs"], recipe.get("min_steps")
            if epochs is None:
                return step + f" of {steps:,d}"
            return step + f" of {epochs:g} epochs" + (f", at least {least:,d} steps" if least else "")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # it was damaged
            return step


class Standing(NamedTuple):
    """The state of a run, and what else its folder says."""

    id: str
    state: str
    told: str = ""  # the result, what ended the run, which process trains it, or what is wrong with its folder
    changed: float = 0.0  # when a file of the run last changed, in seconds since the epoch
    begun: Begun | None = None  # how far it is; None where it has ended
    accuracy: float | None = None  # on test images; None where it has not finished or learned no classes
    train_seconds: float | None = None  # None where it has not finished or diverged


def look_at(folder: Path) -> Seen:
    """Looks at a run's folder without opening its files."""
    if record := _signs(folder, ("record.json",)):
        return Seen(record)
    files = _signs(folder, SIGNS)
    seen = Seen(files, locked=is_held(folder / ".lock"))
    return seen._replace(silent=time.time() - seen.changed > SILENT_SECONDS)


def _signs(folder: Path, names: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    signs = {}
    for name in names:
        try:
            status = os.stat(f"{folder}/{name}")
            signs[name] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except (OSError, ValueError):
            continue
    return signs


def standing_of(
    folder: Path, seen: Seen | None = None, tell: Callable[[Record], None] = lambda record: None
) -> Standing:
    """Reads the state of a run. `seen` is what `look_at` returned, and `tell` is called with the record, if any."""
    seen = seen or look_at(folder)
    run = Run(folder, {})
    try:
        record = read_record(folder / "record.json")
        told = result_of(record) if record["status"] == FINISHED else divergence_of(record)
        tell(record)
        numbers = record.get("test_accuracy"), record["train_seconds"]
        return Standing(run.id, record["status"], told, seen.changed, None, *numbers)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except UserError as error:
        return Standing(run.id, UNREADABLE, str(error), seen.changed)
    process = run.holder()
    is_elsewhere = process is not None and process[1] != socket.gethostname()
    name = f"process {process[0]} on {process[1]}" if process else ""
    if seen.locked:
        return Standing(run.id, RUNNING, name, seen.changed, _begun(run))
    if why := run.failure():
        return Standing(run.id, FAILED, why, seen.changed)
    if is_elsewhere and not seen.silent:
        told = f"{name}, by the age of its files, because its lock cannot be seen here"
        return Standing(run.id, RUNNING, told, seen.changed, _begun(run))
    if "config.yaml" not in seen.files and process is None:
        return Standing(run.id, NO_RUN, f"{folder} holds no run", seen.changed)
    told = f"{name} {'is silent' if is_elsewhere else 'was killed'}" if process else "stopped"
    return Standing(run.id, INTERRUPTED, told, seen.changed, _begun(run))


def _begun(run: Run) -> Begun:
    settings: dict[str, Any] = {}
    rows: list[dict[str, str]] = []
    problems = []
    path = run.folder / "config.yaml"
    if path.exists():
        try:
            settings = read_yaml(path)
            if fault := fault_of_settings(settings):
                problems.append(f"{path} is not as vitbench writes it: {fault}")
        except UserError as error:
            problems.append(str(error))
    try:
        rows = read_metrics(run.folder)
    except UserError as error:
        problems.append(str(error))
    return Begun(settings, rows, run.saved_step() or 0, problems)


def steps_by(optim: Any, rows: Sequence[Mapping[str, str]]) -> int | None:
    """Returns how many steps a run has by its settings `optim` or, for epochs, by its last line of metrics.csv."""
    recipe = optim if isinstance(optim, Mapping) else {}
    steps, epochs, least = (recipe.get(key) for key in ("steps", "epochs", "min_steps"))
    if type(steps) is int:
        return steps if steps > 0 else None
    by_epochs = 0
    if rows and isinstance(epochs, int | float) and (epoch := float(rows[-1].get("epoch") or 0)) > 0:
        in_all = int(rows[-1]["step"]) * min(epochs, MOST_EPOCHS) / epoch
        by_epochs = math.ceil(in_all - 1e-6) if math.isfinite(in_all) else 0
    return max(by_epochs, least if type(least) is int else 0) or None
