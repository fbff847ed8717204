"""Where two learning curves meet, and how many images one model needs to match another.

A gap that shrinks is not yet a crossover, and curves that are extrapolated far enough always meet somewhere. So there
are five verdicts, a guard on how far a fit is extrapolated, and bounds where there is no number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from vitbench.numbers.curves import GUARD, Array, Curve, Fits
from vitbench.numbers.intervals import mean_interval

LEAST_SEEDS = 3  # a bootstrap over seeds takes so many


@dataclass(frozen=True)
class Pair:
    """Two curves on their shared seeds and sizes."""

    a: Curve
    b: Curve

    @classmethod
    def of(cls, a: Curve, b: Curve) -> Pair:
        """Keeps the shared seeds, or leaves both curves as they are where fewer than two are shared."""
        seeds = [seed for seed in a.seeds if seed in b.seeds]
        return cls(a.only(seeds), b.only(seeds)) if len(seeds) > 1 else cls(a, b)

    @property
    def paired(self) -> bool:
        return self.a.seeds == self.b.seeds

    @cached_property
    def n(self) -> Array:
        """The shared sizes, (k,)."""
        return np.intersect1d(self.a.n, self.b.n)

    @cached_property
    def differences(self) -> Array:
        """e_A - e_B of each seed at each size, (S, k)."""
        return self._at_shared_sizes(self.a.errors, self.a) - self._at_shared_sizes(self.b.errors, self.b)

    @cached_property
    def ratios(self) -> Array:
        """log e_A - log e_B of each seed at each size, (S, k)."""
        return self._at_shared_sizes(self.a.logs, self.a) - self._at_shared_sizes(self.b.logs, self.b)

    def _at_shared_sizes(self, values: Array, curve: Curve) -> Array:
        return values[:, np.searchsorted(curve.n, self.n)]


@dataclass(frozen=True)
class Crossover:
    """Whether and where the order of two curves changes."""

    verdict: str  # observed, extrapolated, beyond guard, none or undefined
    why: str = ""  # the word for why the verdict is none or undefined
    n: float = math.nan  # images at which the curves meet
    low: float = math.nan  # low and high: the bootstrap interval of n, infinite where its draws do not meet
    high: float = math.nan
    unmet_share: float = math.nan  # the share of draws that do not meet within the guard
    times: float = math.nan  # n over the largest size, where the crossover is extrapolated
    first_leader: str = ""  # the label of the curve that leads at the smallest size


def find_crossover(pair: Pair) -> Crossover:
    """Gives one of five verdicts on a pair.

    observed      The paired differences have one sign at some sizes and the other sign at larger sizes, and on both
                  sides their 95 % intervals exclude 0.
    extrapolated  One curve leads at all sizes, the gap between them shrinks by more than its spread over seeds, and the
                  fits meet within GUARD times the largest n. The gap is a ratio of errors; if it surely opened before
                  it shrank, it is judged from its widest size on.
    beyond guard  The same, but the fits meet further out, and we do not say where.
    none          One curve leads, and either the gap does not surely shrink or the fits never meet.
    undefined     The seeds do not settle it: no size has a sure difference, or the order changes without certainty.
    """
    a, b, n = pair.a, pair.b, pair.n
    if not pair.paired or len(n) < 3:
        return Crossover("undefined", "few")
    intervals = [mean_interval(column) for column in pair.differences.T]
    signs = [0 if i.why else int(i.low > 0) - int(i.high < 0) for i in intervals]  # 0 where the sign is not sure
    sure_signs = [sign for sign in signs if sign]
    if not sure_signs:
        return Crossover("undefined", "equal")
    first_sign = sure_signs[0]
    first_leader = b.label if first_sign > 0 else a.label
    flips = sum(earlier != later for earlier, later in pairwise(sure_signs))
    if flips > 1:
        return Crossover("undefined", "repeated", first_leader=first_leader)
    drawn_meetings = _meeting(a.drawn_fits, b.drawn_fits, first_sign, n[0], GUARD * n[-1])
    low, high, unmet = _percentile_interval(drawn_meetings, len(pair.ratios))
    if flips:
        meeting = _meeting(a.fitted, b.fitted, first_sign, n[0], n[-1]).item()
        if not math.isfinite(meeting):  # the fits miss what the points show
            last = max(i for i, sign in enumerate(signs) if sign == first_sign)
            first = signs.index(-first_sign)
            meeting = float(np.sqrt(n[last] * n[first]))
        return Crossover("observed", "", meeting, low, high, unmet, first_leader=first_leader)
    if (np.sign(pair.ratios.mean(0)) != first_sign).any():
        return Crossover("undefined", "uncertain", unmet_share=unmet, first_leader=first_leader)
    lead = first_sign * pair.ratios  # (S, k), above 0 where the leader leads
    widest = int(np.argmax(lead.mean(0)))
    opened = widest > 0 and mean_interval(lead[:, widest] - lead[:, 0]).low > 0  # as where both begin near chance
    x, lead = (np.log(n[widest:]), lead[:, widest:]) if opened else (np.log(n), lead)
    if len(x) == 1:
        return Crossover("none", "grows", unmet_share=unmet, first_leader=first_leader)
    trend = mean_interval(lead @ (x - x.mean()) / x.var() / len(x))  # per log n, over seeds
    if not trend.high < 0:
        return Crossover("none", "grows" if trend.low > 0 else "parallel", unmet_share=unmet, first_leader=first_leader)
    meeting = _meeting(a.fitted, b.fitted, first_sign, n[-1], 1e6 * n[-1]).item()
    if meeting == -math.inf:
        return Crossover("undefined", "uncertain", unmet_share=unmet, first_leader=first_leader)
    if meeting == math.inf:
        return Crossover("none", "never", unmet_share=unmet, first_leader=first_leader)
    if meeting > GUARD * n[-1]:
        return Crossover("beyond guard", unmet_share=unmet, first_leader=first_leader)
    return Crossover("extrapolated", "", meeting, low, high, unmet, float(meeting / n[-1]), first_leader)


def _meeting(a: Fits, b: Fits, first_sign: int, low: float, high: float) -> Array:
    """Finds the n at which e_A - e_B loses its first sign, (R,).

    It is -inf where the sign is lost at `low` already, and inf where it is kept up to `high`.
    """
    grid = np.geomspace(low, high, 201)
    gap = first_sign * (a.logs(grid) - b.logs(grid))  # (R, G), taken as straight between points, as it is for pow2
    lost = gap <= 0
    i = np.maximum(lost.argmax(1), 1)
    left, right = np.take_along_axis(gap, i[:, None] - 1, 1)[:, 0], np.take_along_axis(gap, i[:, None], 1)[:, 0]
    with np.errstate(all="ignore"):
        meeting = grid[i - 1] * (grid[1] / grid[0]) ** (left / (left - right))
    return np.where(lost[:, 0], -np.inf, np.where(lost.any(1), meeting, np.inf))


def _percentile_interval(draws: Array, seeds: int) -> tuple[float, float, float]:
    """Finds the ends of the 95 % percentile interval of draws, and the share of draws that are infinite.

    Two seeds can be drawn in three ways only, which make no distribution: then both ends are NaN.
    """
    ordered = np.sort(draws)
    if seeds < LEAST_SEEDS:
        return math.nan, math.nan, float(np.isinf(draws).mean())
    low, high = ordered[int(0.025 * len(ordered))], ordered[math.ceil(0.975 * len(ordered)) - 1]
    return float(low), float(high), float(np.isinf(draws).mean())


@dataclass(frozen=True)
class Ratio:
    """How many times n images B needs to match A's error at n; outside B's sizes only a bound is known."""

    n: float
    value: float  # -inf says "less than `least`", and inf "more than `most`"
    low: float
    high: float
    least: float  # B's smallest size as a multiple of n
    most: float  # B's largest size as a multiple of n


def label_efficiency(pair: Pair) -> list[Ratio]:
    """Computes n_B(e_A(n)) / n at each shared size, with its bootstrap interval over seeds.

    n_B is interpolated linearly, log n over log e of the seed means, after isotonic regression, because an error that
    rises with more images is noise here. Where B's curve is flat at A's error, n_B is the smallest such n.
    """
    a, b = pair.a, pair.b
    shared = np.searchsorted(a.n, pair.n)
    values = _log_n_at(b.mean_logs[None], np.log(b.n), a.mean_logs[None, shared])[0] - np.log(pair.n)  # (k,)
    drawn = _log_n_at(b.drawn_logs, np.log(b.n), a.drawn_logs[:, shared]) - np.log(pair.n)  # (R, k)
    ratios = []
    for i, n in enumerate(pair.n):
        low, high, _ = _percentile_interval(drawn[:, i], len(pair.ratios))
        value, low, high = (math.exp(v) if math.isfinite(v) else v for v in (values[i], low, high))
        ratios.append(Ratio(float(n), value, low, high, b.n[0] / n, b.n[-1] / n))
    return ratios


def _log_n_at(logs: Array, log_n: Array, levels: Array) -> Array:
    """Finds the log n at which each curve (R, k) falls to each level (R, G).

    It is -inf where a curve begins below the level, and inf where it never falls so far.
    """
    falling = _isotonic(logs)
    reached = falling[:, None, :] <= levels[..., None] + 1e-12  # (R, G, k)
    i = np.clip(reached.argmax(-1), 1, None)  # (R, G)
    left, right = np.take_along_axis(falling, i - 1, 1), np.take_along_axis(falling, i, 1)
    with np.errstate(all="ignore"):
        share = np.clip((left - levels) / (left - right), 0, 1)
    log_n_at = log_n[i - 1] + share * (log_n[i] - log_n[i - 1])
    log_n_at = np.where(reached[..., 0], np.where(levels > falling[:, :1] + 1e-12, -np.inf, log_n[0]), log_n_at)
    return np.where(reached.any(-1), log_n_at, np.inf)


def _isotonic(logs: Array) -> Array:
    """Finds the nearest curves (R, k) that never rise (Barlow 1972).

    Point m of a curve is the min over i <= m of the max over j >= m of the mean of its points i to j.
    """
    k = logs.shape[1]
    total = np.concatenate([np.zeros((len(logs), 1)), logs.cumsum(1)], 1)
    means = {(i, j): (total[:, j + 1] - total[:, i]) / (j + 1 - i) for i in range(k) for j in range(i, k)}
    columns = [np.min([np.max([means[i, j] for j in range(m, k)], 0) for i in range(m + 1)], 0) for m in range(k)]
    return np.stack(columns, 1)
