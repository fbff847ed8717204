"""Timing by windows that alternate: what is compared shares whatever else the machine does meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Contestant = Callable[[int], float]  # does n steps, returns the seconds they took


@dataclass(frozen=True)
class Figure:
    """One measured number: the median of its windows, with the least and the greatest of them."""

    row: str
    what: str
    value: float | None  # None: not measured, and `note` says why
    unit: str
    low: float | None = None
    high: float | None = None
    windows: int = 1
    at_most: float | None = None  # the goal
    at_least: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )

    def described(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met}


def figure(row: str, what: str, unit: str, values: list[float], **more: Any) -> Figure:
    return Figure(row, what, statistics.median(values), unit, min(values), max(values), len(values), **more)


def alternate(contestants: Mapping[str, Contestant], steps: Mapping[str, int], windows: int) -> dict[str, list[float]]:
    """Seconds a step of each contestant in each of `windows` rounds, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for name, contestant in contestants.items():
        contestant(max(1, steps[name] // 4))
    for _ in range(windows):
        for name, contestant in contestants.items():
            taken[name].append(contestant(steps[name]) / steps[name])
    return taken


def steps_for(contestant: Contestant, seconds: float, fewest: int = 2) -> int:
    """How many steps take about `seconds`."""
    contestant(fewest)
    return max(fewest, round(seconds / max(contestant(fewest) / fewest, 1e-6)))


def ratios(above: list[float], below: list[float]) -> list[float]:
    """Round by round, so that what slows a whole round cancels."""
    return [a / b for a, b in zip(above, below, strict=True)]


def clock(device: str) -> Callable[[], float]:
    """Seconds of this process on the CPU, which other processes do not disturb; on a GPU, seconds as they pass."""
    return time.process_time if device == "cpu" else time.perf_counter
