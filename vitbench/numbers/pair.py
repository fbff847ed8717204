"""Two learning curves, paired by seed, and the one test that says which of them errs less.

Shapes: S seeds, k sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vitbench.numbers.curves import Curve
from vitbench.numbers.forms import Array
from vitbench.numbers.intervals import ROUNDING, Interval, mean_interval, sign_flip, smallest_difference, t_p

LEAST_SEEDS = 3  # two seeds are too few for certainty
SAME_SIZE = 1.1  # sizes within a tenth of each other count as one where curves are interpolated


@dataclass(frozen=True)
class Pair:
    """Two curves on their shared seeds, compared at their shared sizes."""

    a: Curve
    b: Curve
    interpolated: bool = False  # along an axis on which two models have no size in common, such as multiply-adds

    @classmethod
    def of(cls, a: Curve, b: Curve, interpolated: bool = False) -> Pair:
        """Keeps the shared seeds, or leaves both curves as they are where fewer than two are shared."""
        seeds = [seed for seed in a.seeds if seed in b.seeds]
        return cls(a.only(seeds), b.only(seeds), interpolated) if len(seeds) > 1 else cls(a, b, interpolated)

    @property
    def paired(self) -> bool:
        return self.a.seeds == self.b.seeds

    @cached_property
    def shared(self) -> Array:
        """The sizes at which both curves have an error, (k,)."""
        if not self.interpolated:
            return np.intersect1d(self.a.n, self.b.n)
        low, high = max(self.a.n[0], self.b.n[0]), min(self.a.n[-1], self.b.n[-1])
        if low > high:
            return np.array([])
        own = np.concatenate([self.a.n, self.b.n])
        inside = [low]
        for n in sorted(own[(own > low) & (own < high / SAME_SIZE)]):
            if n > SAME_SIZE * inside[-1]:
                inside.append(n)
        return np.unique([*inside, high])

    @cached_property
    def at_chance(self) -> NDArray[np.bool_]:
        """At which shared sizes neither model is surely better than guessing, (k,)."""
        return np.all([_at_chance(curve, self.shared) for curve in (self.a, self.b)], 0)

    @cached_property
    def n(self) -> Array:
        """The shared sizes but for those where both models guess, which say nothing of either: (k,)."""
        return self.shared[~self.at_chance]

    @cached_property
    def differences(self) -> Array:
        """e_A - e_B of each seed at each size, (S, k)."""
        return self.a.errors_at(self.n) - self.b.errors_at(self.n)

    @cached_property
    def ratios(self) -> Array:
        """log e_A - log e_B of each seed at each size, (S, k)."""
        return self.a.log_errors_at(self.n) - self.b.log_errors_at(self.n)

    @property
    def scale(self) -> float:
        """The size of the errors of which `differences` are differences."""
        return max(float(curve.errors.max(initial=0.0)) for curve in (self.a, self.b))

    @property
    def log_scale(self) -> float:
        """The same for `ratios`: rounding an error moves its logarithm as rounding moves the number 1."""
        return max(1.0, *(float(np.abs(curve.logs).max(initial=0.0)) for curve in (self.a, self.b)))


def _at_chance(curve: Curve, sizes: Array) -> NDArray[np.bool_]:
    """At which sizes the error over seeds is not surely below chance, by a one-sided 95 % interval."""
    if math.isnan(curve.chance):
        return np.zeros(len(sizes), bool)
    errors = [mean_interval(column, 0.9) for column in curve.errors_at(sizes).T]
    least = curve.chance * (1 - ROUNDING)
    return np.array([(each.mean if each.why else each.high) >= least for each in errors], bool)


@dataclass(frozen=True)
class Pooled:
    """The difference of two models over all sizes that count: one number for each seed, so one test for each pair."""

    interval: Interval  # of the mean over the sizes of e_A - e_B
    p: float  # of Student's paired t, two-sided
    sign_flip: float  # the exact p of the permutation test, which cannot go below 2^(1 - n)
    slope: Interval  # of e_A - e_B on log10 n, per factor of ten
    smallest: float  # the true difference that this many seeds would show with 80 % power

    @property
    def changes(self) -> bool:
        """Whether the difference surely changes with n, so that one number cannot stand for all sizes."""
        return self.slope.n >= LEAST_SEEDS and (self.slope.low > 0 or self.slope.high < 0)


def pool(pair: Pair) -> Pooled:
    """Computes the pooled test of a pair (NaN where no size counts, or no seed is shared).

    The mean over sizes within a seed makes sizes that rest on nested subsets one number, so that their dependence
    needs no model.
    """
    counts = pair.paired and len(pair.n) > 0
    means: Sequence[float] = pair.differences.mean(1).tolist() if counts else []
    interval = mean_interval(means, scale=pair.scale)
    return Pooled(
        interval,
        t_p(interval),
        sign_flip(means, pair.scale),
        slopes(pair.n, pair.differences, pair.scale) if counts else mean_interval([]),
        smallest_difference(interval),
    )


def slopes(n: Array, values: Array, scale: float) -> Interval:
    """The interval over seeds of the least-squares slope of values (S, k) on log10 n (k,).

    It is NaN with fewer than two sizes. The values are differences of numbers of the size `scale`, so slopes that
    differ by the last bits of those are equal.
    """
    x = np.log10(n)
    if len(x) < 2:
        return mean_interval([])
    slope = values @ (x - x.mean()) / x.var() / len(x)
    return mean_interval(slope.tolist(), scale=scale / float(x.std()))
