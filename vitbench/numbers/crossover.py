"""Where two learning curves meet.

A gap that shrinks is not yet a crossover, and curves that are extrapolated far enough always meet somewhere. So there
are six verdicts, and a limit on how far a fit is extrapolated, the guard. A pair is tested once, and not at each size,
where one of twenty intervals excludes 0 by chance. tests/numbers/test_simulated.py measures how often a verdict is
wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vitbench.numbers.curves import GUARD, LAST_BITS
from vitbench.numbers.forms import Array, Fits
from vitbench.numbers.intervals import jackknife_spread, mean_interval, means_without_each, t_quantile
from vitbench.numbers.monotone import log_n_at
from vitbench.numbers.pair import LEAST_SEEDS, Pair, pool, slopes

LEAST_SIZES = 3
UNSETTLED = 0.05  # where more of the draws do not meet within the guard, no crossover is extrapolated
LEVEL = 0.975  # of the interval on each side of a crossing; either side, of the same seeds, may differ by chance


@dataclass(frozen=True)
class Crossover:
    """Whether and where the order of two curves changes."""

    verdict: str  # observed, extrapolated, beyond guard, none, undefined or limited
    why: str = ""  # the word for why the verdict is none, undefined or limited
    n: float = math.nan  # the n at which the curves meet
    low: float = math.nan  # low and high: the interval of n
    high: float = math.nan
    unmet_share: float = math.nan  # the share of draws that do not meet within the guard
    times: float = math.nan  # n over the largest size, where the crossover is extrapolated
    first_leader: str = ""  # the label of the curve that errs less at the smallest size


def find_crossover(pair: Pair, p: float | None = None) -> Crossover:
    """Gives a verdict on a pair.

    observed      The sizes can be cut in two so that the mean difference, over seeds, surely has one sign on the left
                  and the other sign on the right (both 97.5 % intervals exclude 0). It is placed between the points,
                  by isotonic regression of the log ratio of errors; its interval is a jackknife over seeds.
    extrapolated  One curve errs less, by the pooled test; the gap, a ratio of errors, shrinks by more than its spread
                  over seeds; and the fits meet within GUARD times the largest n, as do those of at least 95 % of the
                  draws. A gap that surely opened before it shrank is judged from its widest size on.
    beyond guard  The same, but the fits meet further out, or some do and some do not. The curves may or may not meet.
    none          One curve errs less, and the gap surely grows, or does not surely shrink, or it shrinks and the fits
                  never meet, nor do those of 95 % of the draws within GUARD times the largest n.
    undefined     The seeds do not settle which errs less; or there are too few of them, or too few sizes.

    The sixth, `limited`, is for those who know how the runs were trained (vitbench/fitting/limits.py). `p` is that of
    the pooled test, where it is corrected for the number of pairs.
    """
    if not pair.paired or len(pair.a.seeds) < LEAST_SEEDS or len(pair.shared) < LEAST_SIZES:
        return Crossover("undefined", "few")
    if len(pair.n) < LEAST_SIZES:
        return Crossover("undefined", "chance")
    cut = _cut(pair)
    if cut is not None:
        return _observed(pair, cut)
    pooled = pool(pair)
    if not (pooled.p if p is None else p) < 0.05:
        return Crossover("undefined", "changes" if pooled.changes else "equal")
    first_sign = 1 if pooled.interval.mean > 0 else -1
    first_leader = (pair.b if first_sign > 0 else pair.a).label
    if any(sign == -first_sign for sign in _sure_signs(pair.differences, pair.scale)):
        return Crossover("undefined", "mixed", first_leader=first_leader)
    lead = first_sign * pair.ratios  # (S, k), above 0 where the leader errs less
    widest = int(np.argmax(lead.mean(0)))
    opening = mean_interval(lead[:, widest] - lead[:, 0], scale=pair.log_scale)
    opened = widest > 0 and opening.low > 0  # as where both begin near chance
    n, lead = (pair.n[widest:], lead[:, widest:]) if opened else (pair.n, lead)
    if len(n) == 1:
        return Crossover("none", "grows", first_leader=first_leader)
    trend = slopes(n, lead, pair.log_scale)
    if not trend.high < 0:
        return Crossover("none", "grows" if trend.low > 0 else "parallel", first_leader=first_leader)
    return _extrapolated(pair, first_sign, first_leader)


def _sure_signs(differences: Array, scale: float) -> list[int]:
    """The sign of each column's mean over seeds, or 0 where it is not sure; `scale` is the size of the errors."""
    intervals = [mean_interval(column, LEVEL, scale) for column in differences.T]
    return [int(each.low > 0) - int(each.high < 0) for each in intervals]


def _cut(pair: Pair) -> int | None:
    """The sign of the difference before a crossing; None where the sizes cannot be cut so that there is one.

    Of several cuts that show one, the one after which the sign changes most surely is taken.
    """
    best, found = 0.0, None
    signs = _sure_signs(pair.differences, pair.scale)
    for first in range(1, len(pair.n)):
        sides = np.stack([pair.differences[:, :first].mean(1), pair.differences[:, first:].mean(1)], 1)
        left, right = _sure_signs(sides, pair.scale)
        contradicted = -left in signs[:first] or -right in signs[first:]
        if left * right < 0 and not contradicted:
            spread = sides.std(0, ddof=1)
            if (sure := float(np.min(np.abs(sides.mean(0)) / spread))) > best:
                best, found = sure, left
    return found


def _observed(pair: Pair, first_sign: int) -> Crossover:
    """Places a crossing between the points, whatever the fits say: where the mean of log e_A - log e_B has fallen to 0.

    That mean can have one sign everywhere, because the cut was found in the differences and not in the ratios. Then
    the differences are taken.
    """
    seeds = len(pair.a.seeds)
    for values in (pair.ratios, pair.differences):
        leads = first_sign * values  # (S, k), above 0 before the crossing
        means = np.concatenate([leads.mean(0)[None], means_without_each(leads), leads[pair.a.draws].mean(1)])
        places = log_n_at(means, np.log(pair.n), np.zeros((len(means), 1)))[:, 0]  # of all, without each seed, of draws
        if np.isfinite(places[0]):
            break
    place, without_each, drawn = places[0], places[1 : 1 + seeds], places[1 + seeds :]
    half = math.inf  # where the crossing rests on one seed alone
    if np.isfinite(without_each).all():
        spread = jackknife_spread(without_each)
        half = t_quantile(0.975, seeds - 1) * spread / math.sqrt(seeds) if spread > LAST_BITS * place else math.nan
    low, high = math.exp(place - half), math.exp(min(place + half, 700))
    leader = (pair.b if first_sign > 0 else pair.a).label
    unmet = float(np.isinf(drawn).mean())
    return Crossover("observed", "", math.exp(place), low, high, unmet, first_leader=leader)


def _extrapolated(pair: Pair, first_sign: int, first_leader: str) -> Crossover:
    """The verdict on a pair whose gap surely shrinks, by where the fits meet."""
    a, b, n = pair.a, pair.b, pair.n
    meeting = _meeting(a.fitted, b.fitted, first_sign, n[-1], 1e6 * n[-1]).item()
    if meeting == -math.inf:
        return Crossover("undefined", "fits", first_leader=first_leader)
    low, high, unmet = percentile_interval(_meeting(a.drawn_fits, b.drawn_fits, first_sign, n[0], GUARD * n[-1]))
    if meeting == math.inf and unmet > 1 - UNSETTLED:
        return Crossover("none", "never", unmet_share=unmet, first_leader=first_leader)
    if meeting > GUARD * n[-1] or unmet > UNSETTLED:
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


def percentile_interval(draws: Array) -> tuple[float, float, float]:
    """Finds the ends of the 95 % percentile interval of draws, and the share of draws that are infinite.

    Ends that are equal are NaN, as in `mean_interval`; where both are infinite, they stay, as they say the same.
    """
    ordered = np.sort(draws)
    low, high = float(ordered[int(0.025 * len(ordered))]), float(ordered[math.ceil(0.975 * len(ordered)) - 1])
    if math.isfinite(high - low) and high - low <= LAST_BITS * max(1.0, abs(low), abs(high)):
        low = high = math.nan
    return low, high, float(np.isinf(draws).mean())
