"""Timing by windows that alternate, so that both sides of a comparison share whatever else the machine does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Contestant = Callable[[int], float]  # does so many steps and returns the seconds that they took


@dataclass(frozen=True)
class Figure:
    """One measured number: the median of its windows, with the least and the greatest of them."""

    row: str
    what: str
    value: float | None  # None where it was not measured; then `note` says why
    unit: str
    low: float | None = None
    high: float | None = None
    windows: int = 1
    at_most: float | None = None  # the goal, as the next one
    at_least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is no goal or no value."""
        if self.value is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def described(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


def figure(row: str, what: str, unit: str, values: list[float], **goal_or_note: Any) -> Figure:
    """Makes a Figure of the values of its windows."""
    return Figure(row, what, statistics.median(values), unit, min(values), max(values), len(values), **goal_or_note)


def alternate(contestants: Mapping[str, Contestant], steps: Mapping[str, int], windows: int) -> dict[str, list[float]]:
    """Times each contestant in each of `windows` rounds, in seconds a step, after a short round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for name, contestant in contestants.items():
        contestant(max(1, steps[name] // 4))
    for _ in range(windows):
        for name, contestant in contestants.items():
            taken[name].append(contestant(steps[name]) / steps[name])
    return taken


def steps_for(contestant: Contestant, seconds: float, fewest: int = 2) -> int:
    """How many steps of a contestant take about `seconds`."""
    contestant(fewest)
    return max(fewest, round(seconds / max(contestant(fewest) / fewest, 1e-6)))


def ratios(above: list[float], below: list[float]) -> list[float]:
    """The ratios round by round, in which whatever slows a whole round cancels."""
    return [numerator / denominator for numerator, denominator in zip(above, below, strict=True)]


def clock(device: str) -> Callable[[], float]:
    """The CPU seconds of this process, which others on the machine do not disturb; on a GPU, seconds as they pass."""
    return time.process_time if device == "cpu" else time.perf_counter
