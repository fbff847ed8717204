"""Times contestants in alternating windows, so that other work on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Contestant = Callable[[int], float]  # takes a number of steps, does them, and returns the seconds that they took


@dataclass(frozen=True)
class Figure:
    """One measured number: the median of its windows, with the smallest and the largest."""

    row: str
    what: str
    value: float | None  # None if it was not measured; then `note` says why
    unit: str
    low: float | None = None
    high: float | None = None
    windows: int = 1
    at_most: float | None = None  # upper bound of the goal, if it has one
    at_least: float | None = None  # lower bound of the goal, if it has one
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if there is no goal or no value."""
        if self.value is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def described(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


def figure(row: str, what: str, unit: str, values: list[float], **goal_or_note: Any) -> Figure:
    """Makes a Figure from the values of its windows."""
    return Figure(row, what, statistics.median(values), unit, min(values), max(values), len(values), **goal_or_note)


def alternate(contestants: Mapping[str, Contestant], steps: Mapping[str, int], windows: int) -> dict[str, list[float]]:
    """Times each contestant in each of `windows` rounds, in seconds per step, after a short round to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for name, contestant in contestants.items():
        contestant(max(1, steps[name] // 4))
    for _ in range(windows):
        for name, contestant in contestants.items():
            taken[name].append(contestant(steps[name]) / steps[name])
    return taken


def steps_for(contestant: Contestant, seconds: float, fewest: int = 2) -> int:
    """Returns the number of steps of a contestant that take about `seconds`."""
    contestant(fewest)
    return max(fewest, round(seconds / max(contestant(fewest) / fewest, 1e-6)))


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Returns the ratios round by round. An effect that slows a whole round cancels in them."""
    return [numerator / denominator for numerator, denominator in zip(above, below, strict=True)]


def clock(device: str) -> Callable[[], float]:
    """Returns the clock of a device: CPU seconds of this process, or wall-clock seconds for a GPU."""
    return time.process_time if device == "cpu" else time.perf_counter
