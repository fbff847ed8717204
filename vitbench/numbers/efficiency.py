"""How many images one model needs to match another's error: the label-efficiency ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vitbench.numbers.crossover import percentile_interval
from vitbench.numbers.monotone import log_n_at
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

    Two seeds can be drawn in three ways only, which make no distribution: then the interval's ends are NaN.

    n_B is interpolated linearly, log n over log e of the seed means, after isotonic regression, because an error that
    rises with more images is noise here. Where B's curve is flat at A's error, n_B is the smallest such n. A curve of
    one size has no ratios.
    """
    a, b = pair.a, pair.b
    if len(b.n) < 2:
        return []
    means, drawn_means = (a.log_errors_at(pair.n, logs) for logs in (a.mean_logs[None], a.drawn_logs))
    values = log_n_at(b.mean_logs[None], np.log(b.n), means)[0] - np.log(pair.n)  # (k,)
    drawn = log_n_at(b.drawn_logs, np.log(b.n), drawn_means) - np.log(pair.n)  # (R, k)
    ratios = []
    for i, n in enumerate(pair.n):
        enough = len(pair.ratios) >= LEAST_SEEDS
        low, high, _ = percentile_interval(drawn[:, i]) if enough else (math.nan, math.nan, math.nan)
        value, low, high = (math.exp(v) if math.isfinite(v) else v for v in (values[i], low, high))
        ratios.append(Ratio(float(n), value, low, high, b.n[0] / n, b.n[-1] / n))
    return ratios
