"""Where two learning curves meet, and what one is worth in the other's images: for two models on the same seeds.

A gap that shrinks is not a crossover, and curves drawn far enough always meet somewhere. Hence five verdicts, a guard
on how far a fit is carried, and bounds where there is no number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from vitbench.numbers.curves import GUARD, Array, Curve, Fits
from vitbench.numbers.intervals import mean_interval

LEAST_SEEDS = 3  # of a bootstrap


@dataclass(frozen=True)
class Pair:
    """Two curves on the seeds and sizes that they have in common."""

    a: Curve
    b: Curve

    @classmethod
    def of(cls, a: Curve, b: Curve) -> Pair:
        seeds = [seed for seed in a.seeds if seed in b.seeds]
        return cls(a.only(seeds), b.only(seeds)) if len(seeds) > 1 else cls(a, b)

    @property
    def paired(self) -> bool:
        return self.a.seeds == self.b.seeds

    @cached_property
    def n(self) -> Array:
        return np.intersect1d(self.a.n, self.b.n)

    def _common(self, values: Array, curve: Curve) -> Array:
        return values[:, np.searchsorted(curve.n, self.n)]

    @cached_property
    def differences(self) -> Array:
        """e_A - e_B of each seed at each size, (S, k)."""
        return self._common(self.a.errors, self.a) - self._common(self.b.errors, self.b)

    @cached_property
    def ratios(self) -> Array:
        """log e_A - log e_B of each seed at each size, (S, k)."""
        return self._common(self.a.logs, self.a) - self._common(self.b.logs, self.b)


@dataclass(frozen=True)
class Crossover:
    """Whether and where the order of two curves changes."""

    verdict: str  # observed, extrapolated, beyond guard, none, undefined
    why: str = ""  # of `none` and `undefined`
    n: float = math.nan  # images at which the curves meet
    low: float = math.nan  # its bootstrap interval; -inf and inf where draws do not meet within the guard
    high: float = math.nan
    rootless: float = math.nan  # share of draws that do not meet within the guard
    times: float = math.nan  # n as a multiple of the largest size, where extrapolated
    leader: str = ""  # at the smallest size


def crossover(pair: Pair) -> Crossover:
    """The verdict on one pair.

    observed      the paired differences have one sign at some sizes and the other at larger ones, and at both sides
                  their 95 % intervals exclude 0
    extrapolated  one curve leads throughout, the gap (as a ratio of errors, from where it is widest if it surely opened
                  before) shrinks by more than its spread over seeds, and the fits meet within GUARD times the largest n
    beyond guard  the same, but they meet further out: where is not said
    none          one curve leads, and the gap does not shrink for sure (parallel), or the fits never meet
    undefined     what the seeds do not settle: no difference at any size, an order that changes without certainty
    """
    a, b, n = pair.a, pair.b, pair.n
    if not pair.paired or len(n) < 3:
        return Crossover("undefined", "few")
    intervals = [mean_interval(column) for column in pair.differences.T]
    certain = [0 if i.why else int(i.low > 0) - int(i.high < 0) for i in intervals]
    signs = [sign for sign in certain if sign]
    means = np.sign(pair.ratios.mean(0))
    if not signs:
        return Crossover("undefined", "equal")
    before = signs[0]
    leader = b.label if before > 0 else a.label
    flips = sum(one != other for one, other in pairwise(signs))
    if flips > 1:
        return Crossover("undefined", "repeated", leader=leader)
    low, high, rootless = _interval(
        _meet(pair, a.drawn_fits, b.drawn_fits, before, n[0], GUARD * n[-1]), len(pair.ratios)
    )
    if flips:
        meet = _meet(pair, a.fitted, b.fitted, before, n[0], n[-1]).item()
        if not math.isfinite(meet):  # the fits miss what the points show
            last = max(i for i, sign in enumerate(certain) if sign == before)
            first = next(i for i, sign in enumerate(certain) if sign == -before)
            meet = float(np.sqrt(n[last] * n[first]))
        return Crossover("observed", "", meet, low, high, rootless, leader=leader)
    if (means != before).any():
        return Crossover("undefined", "uncertain", rootless=rootless, leader=leader)
    lead = before * pair.ratios  # (S, k), of the leader, as the log of a ratio
    widest = int(np.argmax(lead.mean(0)))
    opened = widest > 0 and mean_interval(lead[:, widest] - lead[:, 0]).low > 0  # as curves do that begin at chance
    x, lead = (np.log(n[widest:]), lead[:, widest:]) if opened else (np.log(n), lead)
    if len(x) == 1:
        return Crossover("none", "grows", rootless=rootless, leader=leader)
    trend = mean_interval(lead @ (x - x.mean()) / x.var() / len(x))  # per log n, over seeds
    if not trend.high < 0:
        return Crossover("none", "grows" if trend.low > 0 else "parallel", rootless=rootless, leader=leader)
    meet = _meet(pair, a.fitted, b.fitted, before, n[-1], 1e6 * n[-1]).item()
    if meet == -math.inf:
        return Crossover("undefined", "uncertain", rootless=rootless, leader=leader)
    if meet == math.inf:
        return Crossover("none", "never", rootless=rootless, leader=leader)
    if meet > GUARD * n[-1]:
        return Crossover("beyond guard", rootless=rootless, leader=leader)
    return Crossover("extrapolated", "", meet, low, high, rootless, float(meet / n[-1]), leader)


def _meet(pair: Pair, a: Fits, b: Fits, before: int, low: float, high: float) -> Array:
    """Where e_A - e_B loses the sign `before`, (R,): -inf if it has lost it at `low`, inf if it keeps it up to `high`."""
    grid = np.geomspace(low, high, 201)
    gap = before * (a.logs(grid) - b.logs(grid))  # (R, G); straight between two points, as for pow2 everywhere
    lost = gap <= 0
    i = np.maximum(lost.argmax(1), 1)
    left, right = np.take_along_axis(gap, i[:, None] - 1, 1)[:, 0], np.take_along_axis(gap, i[:, None], 1)[:, 0]
    with np.errstate(all="ignore"):
        meet = grid[i - 1] * (grid[1] / grid[0]) ** (left / (left - right))
    return np.where(lost[:, 0], -np.inf, np.where(lost.any(1), meet, np.inf))


def _interval(values: Array, seeds: int) -> tuple[float, float, float]:
    """The 95 % percentile interval of draws, of which some are infinite, and the share of these.

    Two seeds can be drawn in three ways only, which is no distribution: NaN stands for the ends.
    """
    ordered = np.sort(values)
    if seeds < LEAST_SEEDS:
        return math.nan, math.nan, float(np.isinf(values).mean())
    low, high = ordered[int(0.025 * len(ordered))], ordered[math.ceil(0.975 * len(ordered)) - 1]
    return float(low), float(high), float(np.isinf(values).mean())


@dataclass(frozen=True)
class Ratio:
    """How many times n images B needs to match A's error at n: outside B's sizes a bound, never a number."""

    n: float
    value: float  # -inf: less than `least`; inf: more than `most`
    low: float
    high: float
    least: float  # B's smallest size as a multiple of n
    most: float  # B's largest


def label_efficiency(pair: Pair) -> list[Ratio]:
    """LER of A <- B, n_B(e_A(n)) / n, at each size in common, with its bootstrap interval over seeds.

    n_B by linear interpolation of log n over log e of the seed means, after isotonic regression (an error that rises
    with more images is noise here); where a level is flat, the smallest n.
    """
    a, b = pair.a, pair.b
    at = np.searchsorted(a.n, pair.n)
    values = _images(b.mean_logs[None], np.log(b.n), a.mean_logs[None, at])[0] - np.log(pair.n)  # (k,)
    drawn = _images(b.drawn_logs, np.log(b.n), a.drawn_logs[:, at]) - np.log(pair.n)  # (R, k)
    ratios = []
    for i, n in enumerate(pair.n):
        low, high, _ = _interval(drawn[:, i], len(pair.ratios))
        value, low, high = (math.exp(v) if math.isfinite(v) else v for v in (values[i], low, high))
        ratios.append(Ratio(float(n), value, low, high, b.n[0] / n, b.n[-1] / n))
    return ratios


def _images(logs: Array, log_n: Array, levels: Array) -> Array:
    """log n at which each curve (R, k) reaches each level (R, G): -inf below its sizes, inf where it never does."""
    falling = _isotonic(logs)
    reached = falling[:, None, :] <= levels[..., None] + 1e-12  # (R, G, k)
    i = np.clip(reached.argmax(-1), 1, None)  # (R, G)
    left, right = np.take_along_axis(falling, i - 1, 1), np.take_along_axis(falling, i, 1)
    with np.errstate(all="ignore"):
        share = np.clip((left - levels) / (left - right), 0, 1)
    found = log_n[i - 1] + share * (log_n[i] - log_n[i - 1])
    found = np.where(reached[..., 0], np.where(levels > falling[:, :1] + 1e-12, -np.inf, log_n[0]), found)
    return np.where(reached.any(-1), found, np.inf)


def _isotonic(logs: Array) -> Array:
    """The nearest curves (R, k) that never rise: min over i <= m of max over j >= m of the mean of i..j (Barlow 1972)."""
    k = logs.shape[1]
    total = np.concatenate([np.zeros((len(logs), 1)), logs.cumsum(1)], 1)
    means = {(i, j): (total[:, j + 1] - total[:, i]) / (j + 1 - i) for i in range(k) for j in range(i, k)}
    columns = [np.min([np.max([means[i, j] for j in range(m, k)], 0) for i in range(m + 1)], 0) for m in range(k)]
    return np.stack(columns, 1)
