"""What `vitbench watch` reads: the state of each run, which runs wait, and how long all of them will still take.

It looks again and again, and then reads only the folders in which a file has changed.
"""

from __future__ import annotations

import math
import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError
from vitbench.runs.plan import noted_by_sweeps, plan
from vitbench.runs.records import folders_kept_apart, run_folders
from vitbench.runs.standing import (
    DIVERGED,
    ENDED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    NO_RUN,
    RUNNING,
    UNREADABLE,
    Begun,
    Seen,
    Standing,
    look_at,
    standing_of,
)
from vitbench.runs.study import Study
from vitbench.sweeping.estimate import Estimate, total

WAITING, EVIDENCE = "waiting", "evidence"
# in the order in which they are shown
STATES = (FINISHED, RUNNING, FAILED, DIVERGED, INTERRUPTED, WAITING, EVIDENCE, UNREADABLE)
# errors that settings can cause which vitbench did not write
ODD = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


class Snapshot(NamedTuple):
    """What was seen at one time."""

    title: str
    folder: Path
    study: str | None
    time: float  # in seconds since the epoch
    runs: list[Standing]  # those that have a folder
    waiting: list[str]  # the ids of planned runs that nobody has begun
    evidence: list[str]  # the ids of planned runs that a sweep took as done by their rows in results/
    seconds_left: dict[str, float]  # by the id of a run that has not ended, where they can be estimated
    at_once: int  # how many runs are training now
    problems: list[str]

    def of(self, state: str) -> list[Standing]:
        """Returns the runs in a state, the most recently changed first."""
        return sorted((run for run in self.runs if run.state == state), key=lambda run: -run.changed)

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        counted = Counter(run.state for run in self.runs)
        counted |= Counter({WAITING: len(self.waiting), EVIDENCE: len(self.evidence)})
        return {state: counted[state] for state in STATES}

    @property
    def share(self) -> float:
        """How much of all runs is done, 0 to 1. A failed run counts as done."""
        done = sum(1 if run.state in ENDED else run.begun.share if run.begun else 0 for run in self.runs)
        return (done + len(self.evidence)) / max(1, sum(self.counts.values()))

    @property
    def has_ended(self) -> bool:
        """Whether no planned run is left; False where no study is watched, because then no run is planned."""
        return self.study is not None and not self.waiting and all(run.state in ENDED for run in self.runs)

    @property
    def unended(self) -> list[str]:
        """The ids of runs that have something left to do."""
        return [run.id for run in self.runs if run.state in (RUNNING, INTERRUPTED, UNREADABLE)] + self.waiting

    @property
    def time_left(self) -> float | None:
        """The seconds until all have ended, if as many train at a time as now; None where no run tells it."""
        return total(self.seconds_left.values(), max(1, self.at_once)) if self.seconds_left else None


class Watcher:
    """Looks at the runs of a study or, where no study is given, at all runs of a folder."""

    def __init__(self, folder: Path, study: Study | None, name: str | None) -> None:
        """`name` is the study as it was typed."""
        self.folder, self.study, self.name = folder, study, name
        self._remembered: dict[str, tuple[Seen, Standing]] = {}
        self._estimate = Estimate(None, threads=None, anywhere=True)
        self._learns = False  # whether records are read for the estimate, which takes long for thousands of runs
        self._planned: list[str] | None = None  # ids by the study's file, where no sweep has noted anything
        self._settings: dict[str, Mapping[str, Any]] = {}  # the settings of planned runs, by id
        self._typed: list[str] | None = None  # the words of the sweeps from which `_settings` were composed
        # the seconds that waiting runs need, and before them what they were computed from
        self._left: tuple[Any, dict[str, float]] = (None, {})

    def look(self) -> Snapshot:
        """Looks once at all runs."""
        there = {folder.name: folder for folder in run_folders(self.folder)}
        planned, evidence = self._plan()
        names = [*there] if planned is None else [name for name in planned if name in there]
        seen = {name: look_at(there[name]) for name in names}
        is_open = len(seen) < len(planned or []) or any("record.json" not in each.files for each in seen.values())
        if is_open and not self._learns:  # runs that have ended tell how long the others will take
            self._learns = True
            self._remembered.clear()
        runs = [self._standing(there[name], seen[name]) for name in names]
        problems = [run.told for run in runs if run.state in (UNREADABLE, NO_RUN)]
        problems += [problem for run in runs if run.begun for problem in run.begun.problems]
        if planned is None:
            apart = folders_kept_apart(self.folder)
            problems += [f"{place} has runs whose images have changed; runs={place} shows them" for place in apart]
        begun = {run.id for run in runs if run.state != NO_RUN}
        waiting = [name for name in planned or [] if name not in begun and name not in evidence]
        runs = [run for run in runs if run.state != NO_RUN]
        now = time.time()
        return Snapshot(
            title=self.study.title if self.study else f"runs={self.folder}",
            folder=self.folder,
            study=self.name,
            time=now,
            runs=runs,
            waiting=waiting,
            evidence=[name for name in planned or [] if name in evidence and name not in begun],
            seconds_left=self._seconds_left(runs, waiting, now),
            at_once=sum(run.state == RUNNING for run in runs),
            problems=problems,
        )

    def _standing(self, folder: Path, seen: Seen) -> Standing:
        """Returns the state of a run, which is read again where a file has changed."""
        before = self._remembered.get(folder.name)
        if before and before[0] == seen:
            return before[1]
        standing = standing_of(folder, seen, self._estimate.add if self._learns else lambda record: None)
        if standing.begun is not None:
            self._learn(standing.begun)
        self._remembered[folder.name] = seen, standing
        return standing

    # --------------------------------------------------------------------------------------------- what is planned

    def _plan(self) -> tuple[list[str] | None, set[str]]:
        """Returns the ids of the planned runs (None where no study is watched), and those with evidence alone."""
        if self.study is None:
            return None, set()
        noted = noted_by_sweeps(self.study, self.folder)
        if noted.ids or noted.certificates:
            return [*dict.fromkeys([*noted.ids, *noted.certificates])], {*noted.evidence}
        if self._planned is None:
            self._settings = self._planned_with("")
            self._planned = [*self._settings]
        return self._planned, set()

    def _planned_with(self, typed: str) -> dict[str, Mapping[str, Any]]:
        """Returns, by id, the settings of the runs that a sweep with these words plans."""
        assert self.study is not None
        return {run.id: run.settings for run in plan(self.study, shlex.split(typed), confirm=True)}

    def _settings_of(self, waiting: Collection[str]) -> dict[str, Mapping[str, Any]]:
        """Returns the settings of runs that nobody has begun, as far as the words of the sweeps say them."""
        if self.study is not None and not {*waiting} <= self._settings.keys():
            typed = noted_by_sweeps(self.study, self.folder).typed
            if typed != self._typed:
                self._typed = typed
                for words in typed:
                    with suppress(UserError, ValueError):  # the study has changed, or someone else wrote the line
                        self._settings |= self._planned_with(words)
        return {name: self._settings[name] for name in waiting if name in self._settings}

    # ------------------------------------------------------------------------------------------- how long it takes

    def _learn(self, begun: Begun) -> None:
        """Tells the estimate how fast a run trains that has not ended."""
        with suppress(*ODD):
            last, batch = begun.rows[-1], begun.settings["optim"]["batch_size"]
            step, epoch, seconds = int(last["step"]), float(last["epoch"]), float(last["train_seconds"])
            if step and seconds > 0 and math.isfinite(seconds):
                self._estimate.add_begun(begun.settings, round(step * batch / epoch), step, seconds)

    def _seconds_left(self, runs: Iterable[Standing], waiting: Collection[str], now: float) -> dict[str, float]:
        """Returns, by id, how many seconds each run that has not ended will still train."""
        left = {}
        begun = [(run, run.begun) for run in runs if run.begun]
        for run, its in begun:
            seconds = its.seconds_left
            with suppress(*ODD):
                if seconds is None and (whole := self._estimate.seconds(its.settings)) is not None:
                    seconds = whole * (1 - its.share)
            if seconds is not None:
                since = now - run.changed if run.state == RUNNING and its.rows else 0
                left[run.id] = max(0.0, seconds - max(0.0, since))
        known = (len(self._remembered), len(waiting), sum(bool(its.rows) for _, its in begun))
        if self._left[0] != known:  # thousands of runs may wait, so this is computed only when something has changed
            self._left = known, {}
            for name, settings in self._settings_of(waiting).items():
                with suppress(*ODD):
                    if (whole := self._estimate.seconds(settings)) is not None:
                        self._left[1][name] = whole
        return left | self._left[1]
