"""How many images one model needs to match another's error: the label-efficiency ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vitbench.numbers.crossover import percentile_interval
from vitbench.numbers.forms import Array
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
    values = _log_n_at(b.mean_logs[None], np.log(b.n), means)[0] - np.log(pair.n)  # (k,)
    drawn = _log_n_at(b.drawn_logs, np.log(b.n), drawn_means) - np.log(pair.n)  # (R, k)
    ratios = []
    for i, n in enumerate(pair.n):
        enough = len(pair.ratios) >= LEAST_SEEDS
        low, high, _ = percentile_interval(drawn[:, i]) if enough else (math.nan, math.nan, math.nan)
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
