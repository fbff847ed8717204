"""How many images one model needs to match another's error: the label-efficiency ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vitbench.numbers.crossover import percentile_interval
from vitbench.numbers.curves import LAST_BITS
from vitbench.numbers.forms import Array
from vitbench.numbers.intervals import ROUNDING
from vitbench.numbers.monotone import last_log_n_at, log_n_at
from vitbench.numbers.pair import LEAST_SEEDS, Pair


@dataclass(frozen=True)
class Ratio:
    """How many times n images B needs to match A's error at n; outside B's sizes only a bound is known."""

    n: float
    value: float  # -inf says "less than `least`", and inf "more than `most`"
    low: float
    high: float
    least: float  # B's smallest size as a multiple of n
    most: float  # B's largest size as a multiple of n

    @property
    def inverse(self) -> Ratio:
        """How many times the images B needs A takes, with the bounds that this has."""
        value, low, high = (-end if math.isinf(end) else 1 / end for end in (self.value, self.high, self.low))
        return Ratio(self.n, value, low, high, 1 / self.most, 1 / self.least)


def label_efficiency(pair: Pair) -> list[Ratio]:
    """Computes n_B(e_A(n)) / n at each shared size, with its bootstrap interval over seeds.

    The ends of the interval are NaN with two seeds, which can be drawn in three ways only.

    n_B is interpolated linearly, log n over log e of the seed means, after isotonic regression, because an error that
    rises with more images is taken for noise. Where B's curve is flat at A's error, n_B is the n nearest to A's, so
    that two equal curves have the ratio 1. The regression can turn the order of the two at n around, so that B would
    need more images though it errs less there (or fewer though it errs more): then the ratio is NaN. A curve of one
    size has no ratios.
    """
    a, b = pair.a, pair.b
    if len(b.n) < 2:
        return []
    means, drawn_means = (a.log_errors_at(pair.n, logs) for logs in (a.mean_logs[None], a.drawn_logs))
    values = _log_ratios(b.mean_logs[None], b.n, means, pair.n)[0]  # (k,)
    drawn = _log_ratios(b.drawn_logs, b.n, drawn_means, pair.n)  # (R, k)
    behind = -pair.differences.mean(0)  # above 0 where B errs more, NaN where it has no such size
    turned = (np.abs(behind) > ROUNDING * pair.scale) & (np.sign(values) * np.sign(behind) < 0)
    ratios = []
    for i, n in enumerate(pair.n):
        if turned[i] and abs(values[i]) > LAST_BITS:
            ratios.append(Ratio(float(n), math.nan, math.nan, math.nan, b.n[0] / n, b.n[-1] / n))
            continue
        enough = len(pair.ratios) >= LEAST_SEEDS
        low, high, _ = percentile_interval(drawn[:, i]) if enough else (math.nan, math.nan, math.nan)
        value, low, high = (math.exp(v) if math.isfinite(v) else v for v in (values[i], low, high))
        ratios.append(Ratio(float(n), value, low, high, b.n[0] / n, b.n[-1] / n))
    return ratios


def _log_ratios(logs: Array, sizes: Array, levels: Array, n: Array) -> Array:
    """Finds log(n_B / n) of curves (R, k) at levels (R, G), for n (G,): of several n_B the nearest to n."""
    first, last = (find(logs, np.log(sizes), levels) - np.log(n) for find in (log_n_at, last_log_n_at))
    return np.clip(0.0, np.minimum(first, last), np.maximum(first, last))
