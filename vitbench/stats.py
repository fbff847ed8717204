"""What a number over seeds is worth. Plain floats in and out; no torch, and scipy only where a quantile is needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its interval. `low` and `high` are NaN where the values allow none; `why` says why."""

    mean: float
    low: float
    high: float
    n: int
    sd: float

    @property
    def half(self) -> float:
        """The number after the ±: half the interval's width."""
        return (self.high - self.low) / 2

    @property
    def why(self) -> str | None:
        """Why there is no interval; None where there is one."""
        if not math.isnan(self.low):
            return None
        return {0: "no value", 1: "one run"}.get(self.n, "equal values")


def mean_interval(values: Iterable[float | None], level: float = 0.95) -> Interval:
    """Mean and Student's t interval: m ± t((1 + level) / 2, n - 1) · s / sqrt(n), with s the deviation over n - 1.

    Student 1908, "The probable error of a mean", Biometrika 6. At n = 3 t is 4.303, at n = 2 it is 12.706: the width
    is honest about how little two seeds say. Missing and NaN values do not count. One value has no interval, and
    neither have equal values: a width of zero would claim certainty, where the truth is that the measurement did
    not resolve the difference (or that the seed changed nothing).
    """
    kept = [float(value) for value in values if value is not None and not math.isnan(value)]
    n = len(kept)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, math.nan)
    mean = math.fsum(kept) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, math.nan)
    if min(kept) == max(kept):
        return Interval(kept[0], math.nan, math.nan, n, 0.0)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in kept) / (n - 1))
    half = t_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, sd)


@cache
def t_quantile(probability: float, df: int) -> float:
    """The quantile of Student's t; `scipy.special` because `scipy.stats` takes four times as long to import."""
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))
