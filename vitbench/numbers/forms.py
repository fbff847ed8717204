"""Forms of learning curves: how the error e falls as n grows (images, or another axis), and how a curve is fitted.

    pow2   e = b n^c
    pow3   e = e_inf + b n^c                                e_inf in [0, min e)
    m4     (e - e_inf) / (e_0 - e)^alpha = b n^c            e_0 the error of guessing

m4 is the estimator of Alabdulmohsin et al. 2022 ("Revisiting neural scaling laws in language and vision", arXiv
2209.06640), which is made for curves that begin near chance; they fit e_0, which we know. All forms are fitted by
weighted least squares of log e. For the forms that are not linear, a grid over e_inf (and alpha) zooms in on its best
point, and least squares find b and c at each point. So all refits of a bootstrap are computed at once.

Shapes: k sizes, R refits, G points of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PARAMETERS = {"pow2": 2, "pow3": 3, "m4": 4}  # of each form, which needs one size more than it has parameters
Solved = tuple[Array, Array, Array]  # loss, log b and c, each (R, G)


@dataclass(frozen=True)
class Fits:
    """R curves of one form."""

    form: str
    log_b: Array  # (R,)
    c: Array  # (R,)
    e_inf: Array  # (R,), zeros for pow2
    alpha: Array  # (R,), zeros but for m4
    chance: float  # e_0 of m4

    def logs(self, n: Array) -> Array:
        """Computes log e of every curve at n (G,): (R, G)."""
        power = self.log_b[:, None] + self.c[:, None] * np.log(n)
        offset = self.e_inf[:, None]
        if self.form == "m4":
            return _m4_log_e(power, offset, self.alpha[:, None], self.chance)[0]
        with np.errstate(divide="ignore"):
            return np.logaddexp(np.log(offset), power)


def fit_curves(form: str, n: Array, logs: Array, weights: Array, chance: float = math.nan) -> Fits:
    """Fits a curve of `form` to each row of logs (R, k), the logs of errors at n (k,), with weights (k,)."""
    x, y, zeros = np.log(n), logs[:, None], np.zeros(len(logs))
    if form == "pow2":
        log_b, c = _fit_line(x, logs, weights)
        return Fits(form, log_b, c, zeros, zeros, chance)
    least_errors = np.exp(logs.min(1))

    def solve(e_inf: Array, alpha: Array) -> Solved:
        return _solve_pow3(x, y, weights, e_inf) if form == "pow3" else _solve_m4(x, y, weights, e_inf, alpha, chance)

    if form == "pow3":
        e_inf, alpha, log_b, c = _zoom(solve, least_errors, zeros, coarse=(33, 1), fine=(9, 1), rounds=9)
    else:
        e_inf, alpha, log_b, c = _zoom(solve, least_errors, zeros + 3, coarse=(9, 7), fine=(5, 5), rounds=12)
    return Fits(form, log_b, c, e_inf, alpha, chance)


def _fit_line(x: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Finds a and c of y = a + c x by weighted least squares over the last axis."""
    total = weights.sum(-1)
    mean_x, mean_y = (weights * x).sum(-1) / total, (weights * y).sum(-1) / total
    dx = x - mean_x[..., None]
    c = (weights * dx * y).sum(-1) / (weights * dx * dx).sum(-1)
    return mean_y - c * mean_x, c


def _solve_pow3(x: Array, y: Array, weights: Array, e_inf: Array) -> Solved:
    """Finds b and c of pow3 at given e_inf (R, G, 1).

    A line through log(e - e_inf) is improved by two Gauss-Newton steps on the squares of log e.
    """
    above = np.exp(y) - e_inf
    a, c = _fit_line(x, np.log(above), weights * (above / np.exp(y)) ** 2)
    for step in range(3):
        power = np.exp(a[..., None] + c[..., None] * x)  # (R, G, k)
        residual = y - np.log(e_inf + power)
        if step < 2:
            slope = power / (e_inf + power)  # d log e / da, and d log e / dc divided by x
            da, dc = _fit_line(x, residual / slope, weights * slope**2)
            a, c = a + da, c + dc
    return (weights * residual**2).sum(-1), a, c


def _solve_m4(x: Array, y: Array, weights: Array, e_inf: Array, alpha: Array, chance: float) -> Solved:
    """Finds b and c of m4 at given e_inf and alpha (R, G, 1), where the log of the left side is linear in log n.

    A line through it is improved by two Gauss-Newton steps, as in _solve_pow3.
    """
    e = np.exp(y)
    left = np.log(e - e_inf) - alpha * np.log(chance - e)
    a, c = _fit_line(x, left, weights / (e / (e - e_inf) + alpha * e / (chance - e)) ** 2)
    logit = None
    for step in range(3):
        log_e, slope, logit = _m4_log_e(a[..., None] + c[..., None] * x, e_inf, alpha, chance, logit)
        residual = y - log_e
        if step < 2:
            da, dc = _fit_line(x, residual / slope, weights * slope**2)
            a, c = a + da, c + dc
    return (weights * residual**2).sum(-1), a, c


def _m4_log_e(power: Array, e_inf: Array, alpha: Array, chance: float, logit: Array | None = None) -> Solved:
    """Computes log e of m4 at power = log(b n^c), its slope in power, and the logit of (e - e_inf) / (e_0 - e_inf).

    Newton's method solves log s(z) - alpha log s(-z) = power - (1 - alpha) log(e_0 - e_inf) for the logit z, where s is
    the logistic function; the slope of the left side in z is everywhere between 1 and alpha. It begins at `logit`.
    """
    height = chance - e_inf
    target = power - (1 - alpha) * np.log(height)
    steps = 1
    if logit is None:
        logit, steps = np.where(target < 0, target, target / np.maximum(alpha, 0.05)), 4
    for _ in range(steps):
        share = 1 / (1 + np.exp(-logit))  # s(z)
        slope = 1 - share + alpha * share
        excess = np.log(share) - alpha * np.log1p(-share) - target
        logit = np.clip(logit - excess / np.maximum(slope, 1e-3), -36, 36)
    share = 1 / (1 + np.exp(-logit))
    e = e_inf + height * share
    return np.log(e), height * share * (1 - share) / (e * (1 - share + alpha * share)), logit


def _zoom(
    solve: Callable[[Array, Array], Solved],
    least_errors: Array,
    largest_alpha: Array,
    coarse: tuple[int, int],
    fine: tuple[int, int],
    rounds: int,
) -> tuple[Array, Array, Array, Array]:
    """Finds the best e_inf below `least_errors` and alpha up to `largest_alpha` of each refit, with log b and c.

    It searches a coarse grid over both, then ever smaller grids around the best point so far.
    """
    rows, points = np.arange(len(least_errors)), coarse
    tops = (least_errors * (1 - 1e-6), largest_alpha)
    ends = [(0 * top, top) for top in tops]
    for _ in range(rounds):
        axes = [
            low[:, None] + (high - low)[:, None] * np.linspace(0, 1, count)
            for (low, high), count in zip(ends, points, strict=True)
        ]
        e_inf = np.repeat(axes[0], points[1], 1)  # (R, G)
        alpha = np.tile(axes[1], points[0])
        with np.errstate(all="ignore"):
            loss, a, c = solve(e_inf[..., None], alpha[..., None])
        best = np.where(np.isfinite(loss), loss, np.inf).argmin(1)
        best_point = e_inf[rows, best], alpha[rows, best], a[rows, best], c[rows, best]
        for i, top in enumerate(tops):
            step = (ends[i][1] - ends[i][0]) / max(points[i] - 1, 1)
            ends[i] = (np.maximum(best_point[i] - step, 0), np.minimum(best_point[i] + step, top))
        points = fine
    return best_point
