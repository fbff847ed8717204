"""Learning curves: how the error e falls as the number n of images grows.

    pow2   e = b n^c
    pow3   e = e_inf + b n^c                                e_inf in [0, min e)
    m4     (e - e_inf) / (e_0 - e)^alpha = b n^c            e_0 the error of guessing

m4 is the estimator of Alabdulmohsin et al. 2022 ("Revisiting neural scaling laws in language and vision", arXiv
2209.06640), which is made for curves that begin near chance; they fit e_0, which we know. All forms are fitted by
weighted least squares of log e. For the forms that are not linear, a grid over e_inf (and alpha) zooms in on its best
point, and least squares find b and c at each point. So all refits of a bootstrap are computed at once.

Shapes: S seeds, k sizes, R refits, G points of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vitbench.errors import UserError
from vitbench.numbers.intervals import Interval, t_quantile

Array = NDArray[np.float64]

PARAMETERS = {"pow2": 2, "pow3": 3, "m4": 4}  # of each form, which needs one size more than it has parameters
GUARD = 4.0  # no fit is extrapolated beyond so many times the largest n
UNRELIABLE = 0.15  # a fit whose held-back check errs by more than this predicts nothing
NEAR_CHANCE = 0.75  # m4 is tried where the error at the smallest n is above this share of chance's error
PRIOR = 16  # the degrees of freedom for which the mean variance of all sizes counts
DRAWS = 1000  # in a bootstrap over seeds
FEW_SEEDS = 10  # with fewer, a bootstrap over seeds is approximate
Solved = tuple[Array, Array, Array]  # loss, log b and c, each (R, G)


# ---------------------------------------------------------------------------------------------------------- fitting


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


# ------------------------------------------------------------------------------------------------------------ curves


@dataclass(frozen=True)
class Curve:
    """One model's errors on growing shares of the images, each seed at each size, and what is fitted to them."""

    label: str
    n: Array  # (k,), growing
    errors: Array  # (S, k), above 0
    seeds: tuple[object, ...]  # a seed for each row, by which rows are paired with another curve's
    chance: float = math.nan  # the error of guessing, if it is known

    @cached_property
    def logs(self) -> Array:
        return np.log(self.errors)

    @cached_property
    def mean_logs(self) -> Array:
        """The curve is fitted to these: logs of the geometric means over seeds, (k,)."""
        return self.logs.mean(0)

    @cached_property
    def weights(self) -> Array:
        """The weights of the sizes, 1 / variance of log e over seeds: (k,), with mean 1.

        Few seeds estimate a variance badly, and weights that follow this noise make intervals too narrow: at three
        seeds they held the exponent in 91.6 % of simulated studies. So each variance is drawn towards the mean over
        sizes, which counts for 16 degrees of freedom (the moderated variance of Smyth 2004): with it, in 93.7 %.
        """
        variances, degrees = self.logs.var(0, ddof=1), len(self.seeds) - 1
        if not variances.any():
            return np.ones(len(self.n))
        weights = 1 / (PRIOR * variances.mean() + degrees * variances)
        return weights / weights.mean()

    @cached_property
    def aicc(self) -> dict[str, float]:
        """Akaike's criterion over all runs, corrected for small samples (Hurvich and Tsai 1989), by form.

        The variance counts as a parameter. A form is tried where there are more sizes than it has parameters, and m4
        only where the error at the smallest n is near chance and no run is at chance or worse.
        """
        tried = [form for form, count in PARAMETERS.items() if len(self.n) > count]
        if not (np.max(self.errors) < self.chance and np.mean(self.errors[:, 0]) > NEAR_CHANCE * self.chance):
            tried = [form for form in tried if form != "m4"]
        runs, criteria = self.errors.size, {}
        for form in tried:
            parameters = PARAMETERS[form] + 1
            spare_runs = runs - parameters - 1
            if spare_runs > 0:
                squares = max(self._squares(self._refit(self.mean_logs[None], form)), 1e-300)
                correction = 2 * parameters * (parameters + 1) / spare_runs
                criteria[form] = runs * math.log(squares / runs) + 2 * parameters + correction
        return criteria or {"pow2": math.nan}

    @cached_property
    def form(self) -> str:
        return min(self.aicc, key=lambda form: self.aicc[form])

    @cached_property
    def fitted(self) -> Fits:
        """The fit to the means over all seeds: R = 1."""
        return self._refit(self.mean_logs[None])

    @cached_property
    def exponent(self) -> Interval:
        return self._jackknife(lambda fits: fits.c)

    @cached_property
    def offset(self) -> Interval | None:
        """The interval of e_inf; None for pow2, which has no e_inf."""
        return None if self.form == "pow2" else self._jackknife(lambda fits: fits.e_inf)

    @cached_property
    def r2(self) -> float:
        """The share of the weighted variance of log e over all runs that the fit explains."""
        mean = (self.weights * self.logs).mean()
        total = (self.weights * (self.logs - mean) ** 2).sum()
        return 1 - self._squares(self.fitted) / total if total > 0 else math.nan

    @cached_property
    def held_back(self) -> float:
        """The relative error, at the largest n, of a fit to all sizes but the largest."""
        fits = fit_curves(self.form, self.n[:-1], self.mean_logs[None, :-1], self.weights[:-1], self.chance)
        return abs(math.expm1(fits.logs(self.n[-1:]).item() - self.mean_logs[-1]))

    @cached_property
    def draws(self) -> NDArray[np.int64]:
        """The rows that each draw of a bootstrap over seeds takes, (R, S).

        All curves of S seeds have the same draws, so that pairs of runs stay together.
        """
        seeds = len(self.seeds)
        return np.random.default_rng(0).integers(0, seeds, size=(DRAWS, seeds))

    @cached_property
    def drawn_logs(self) -> Array:
        """The mean logs of each draw, (R, k)."""
        return self.logs[self.draws].mean(1)

    @cached_property
    def drawn_fits(self) -> Fits:
        return self._refit(self.drawn_logs)

    def predict(self, n: float) -> float:
        """Returns the fitted error at n images; raises UserError where n is beyond the guard."""
        if not n <= GUARD * self.n[-1]:
            raise UserError(
                f"n={n:,.0f}: a fit up to {self.n[-1]:,.0f} images says nothing beyond {GUARD:g} times as many"
            )
        return math.exp(self.fitted.logs(np.array([float(n)])).item())

    def only(self, seeds: Sequence[object]) -> Curve:
        """Returns the curve of these seeds alone, fitted with the form that all seeds chose."""
        if tuple(seeds) == self.seeds:
            return self
        rows = [self.seeds.index(seed) for seed in seeds]
        subset = replace(self, errors=self.errors[rows], seeds=tuple(seeds))
        subset.__dict__["form"] = self.form
        return subset

    def _refit(self, logs: Array, form: str | None = None) -> Fits:
        return fit_curves(form or self.form, self.n, logs, self.weights, self.chance)

    def _squares(self, fits: Fits) -> float:
        """Sums the weighted squares of what one fit leaves unexplained in all runs."""
        return float((self.weights * (self.logs - fits.logs(self.n)) ** 2).sum())

    def _jackknife(self, parameter: Callable[[Fits], Array], level: float = 0.95) -> Interval:
        """Computes a parameter of the fit to all seeds, and its t interval from fits without one seed (Tukey 1958).

        For pow2 these are, to the digit, the mean and the t interval of one fit per seed. For forms with an offset
        they are better, because the fit to a single seed often ends at e_inf = 0: at 10 seeds the intervals of such
        fits held the exponent in 59 % of simulated studies, and those of the jackknife in 95 %. Bootstrap percentiles
        held it in 73 % at 3 seeds.
        """
        seeds = len(self.seeds)
        means_without_one = (self.logs.sum(0) - self.logs) / (seeds - 1)  # (S, k)
        estimates, estimate = parameter(self._refit(means_without_one)), parameter(self.fitted).item()
        spread = float((seeds - 1) * np.std(estimates, ddof=1))  # of the pseudo-values
        if not spread > 1e-9 * abs(estimate):
            return Interval(estimate, math.nan, math.nan, seeds, 0.0)
        half = t_quantile((1 + level) / 2, seeds - 1) * spread / math.sqrt(seeds)
        return Interval(estimate, estimate - half, estimate + half, seeds, spread)
