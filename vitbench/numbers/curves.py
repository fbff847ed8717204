"""Learning curves: how the error e falls with the number n of images.

    pow2   e = b n^c
    pow3   e = e_inf + b n^c                                e_inf in [0, min e)
    m4     (e - e_inf) / (e_0 - e)^alpha = b n^c            e_0 the error of guessing

m4 is the estimator of Alabdulmohsin et al. 2022 ("Revisiting neural scaling laws in language and vision", arXiv
2209.06640), for curves that begin near chance; e_0 is fitted there and known here. All forms are fitted by weighted
squares of log e. Those that are not linear have a grid over e_inf (and alpha), which zooms in on its best point, with
least squares for b and c inside, so that all refits of a bootstrap go through it at once.

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

PARAMETERS = {"pow2": 2, "pow3": 3, "m4": 4}  # of each form; it takes one size more to fit it
GUARD = 4.0  # times the largest n: as far as a fit is carried
UNRELIABLE = 0.15  # error of the held-back check above which a fit predicts nothing
NEAR_CHANCE = 0.75  # share of chance's error at the smallest n from which on m4 is tried
PRIOR = 16  # degrees of freedom that the mean variance of all sizes counts for
DRAWS = 1000  # of a bootstrap
FEW_SEEDS = 10  # below, a bootstrap over seeds is approximate


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
        """log e of every curve at n (G,): (R, G)."""
        power = self.log_b[:, None] + self.c[:, None] * np.log(n)
        offset = self.e_inf[:, None]
        if self.form == "m4":
            return _m4_log_e(power, offset, self.alpha[:, None], self.chance)[0]
        with np.errstate(divide="ignore"):
            return np.logaddexp(np.log(offset), power)


def fit_curves(form: str, n: Array, logs: Array, weights: Array, chance: float = math.nan) -> Fits:
    """A curve of `form` through each row of logs (R, k), the logs of errors at n (k,); weights (k,)."""
    x, y, zeros = np.log(n), logs[:, None], np.zeros(len(logs))
    if form == "pow2":
        log_b, c = _line(x, logs, weights)
        return Fits(form, log_b, c, zeros, zeros, chance)
    least = np.exp(logs.min(1))  # e_inf is searched below it
    if form == "pow3":
        e_inf, alpha, log_b, c = _zoom(lambda e, _: _pow3(x, y, weights, e), least, zeros, (33, 1), (9, 1), 9)
    else:
        e_inf, alpha, log_b, c = _zoom(
            lambda e, a: _m4(x, y, weights, e, a, chance), least, zeros + 3, (9, 7), (5, 5), 12
        )
    return Fits(form, log_b, c, e_inf, alpha, chance)


Solved = tuple[Array, Array, Array]  # loss, log b and c, each (R, G)


def _line(x: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted least squares of y = a + c x over the last axis: a and c."""
    total = weights.sum(-1)
    mean_x, mean_y = (weights * x).sum(-1) / total, (weights * y).sum(-1) / total
    dx = x - mean_x[..., None]
    c = (weights * dx * y).sum(-1) / (weights * dx * dx).sum(-1)
    return mean_y - c * mean_x, c


def _pow3(x: Array, y: Array, weights: Array, e_inf: Array) -> Solved:
    """At given e_inf (R, G, 1): a line through log(e - e_inf), then two Gauss-Newton steps on the squares of log e."""
    above = np.exp(y) - e_inf
    a, c = _line(x, np.log(above), weights * (above / np.exp(y)) ** 2)
    for step in range(3):
        power = np.exp(a[..., None] + c[..., None] * x)  # (R, G, k)
        residual = y - np.log(e_inf + power)
        if step < 2:
            slope = power / (e_inf + power)  # of log e in a, and divided by x in c
            da, dc = _line(x, residual / slope, weights * slope**2)
            a, c = a + da, c + dc
    return (weights * residual**2).sum(-1), a, c


def _m4(x: Array, y: Array, weights: Array, e_inf: Array, alpha: Array, chance: float) -> Solved:
    """At given e_inf and alpha (R, G, 1) the left side's log is linear in log n: a line, then two steps as in _pow3."""
    e = np.exp(y)
    left = np.log(e - e_inf) - alpha * np.log(chance - e)
    a, c = _line(x, left, weights / (e / (e - e_inf) + alpha * e / (chance - e)) ** 2)
    logit = None
    for step in range(3):
        log_e, slope, logit = _m4_log_e(a[..., None] + c[..., None] * x, e_inf, alpha, chance, logit)
        residual = y - log_e
        if step < 2:
            da, dc = _line(x, residual / slope, weights * slope**2)
            a, c = a + da, c + dc
    return (weights * residual**2).sum(-1), a, c


def _m4_log_e(power: Array, e_inf: Array, alpha: Array, chance: float, logit: Array | None = None) -> Solved:
    """log e of m4 at power = log(b n^c), its slope in power, and the logit of (e - e_inf) / (e_0 - e_inf).

    Newton's method for the logit z, in which the left side's log has a slope between 1 and alpha everywhere:
    log s(z) - alpha log s(-z) = power - (1 - alpha) log(e_0 - e_inf), s the logistic function. `logit` is where to start.
    """
    room = chance - e_inf
    wanted = power - (1 - alpha) * np.log(room)
    steps = 1
    if logit is None:
        logit, steps = np.where(wanted < 0, wanted, wanted / np.maximum(alpha, 0.05)), 4
    for _ in range(steps):
        share = 1 / (1 + np.exp(-logit))  # s(z)
        rise = 1 - share + alpha * share
        ahead = np.log(share) - alpha * np.log1p(-share) - wanted
        logit = np.clip(logit - ahead / np.maximum(rise, 1e-3), -36, 36)
    share = 1 / (1 + np.exp(-logit))
    e = e_inf + room * share
    return np.log(e), room * share * (1 - share) / (e * (1 - share + alpha * share)), logit


def _zoom(
    solve: Callable[[Array, Array], Solved],
    least: Array,
    most: Array,
    coarse: tuple[int, int],
    fine: tuple[int, int],
    rounds: int,
) -> tuple[Array, Array, Array, Array]:
    """The best e_inf in [0, least) and alpha in [0, most] of each refit, with log b and c.

    A grid over both, then ever finer ones around the best point so far.
    """
    rows, points = np.arange(len(least)), coarse
    tops = (least * (1 - 1e-6), most)
    ends = [(0 * top, top) for top in tops]
    for _ in range(rounds):
        axes = [
            low[:, None] + (high - low)[:, None] * np.linspace(0, 1, p)
            for (low, high), p in zip(ends, points, strict=True)
        ]
        e_inf = np.repeat(axes[0], points[1], 1)  # (R, G)
        alpha = np.tile(axes[1], points[0])
        with np.errstate(all="ignore"):
            loss, a, c = solve(e_inf[..., None], alpha[..., None])
        best = np.where(np.isfinite(loss), loss, np.inf).argmin(1)
        found = e_inf[rows, best], alpha[rows, best], a[rows, best], c[rows, best]
        for i, top in enumerate(tops):
            step = (ends[i][1] - ends[i][0]) / max(points[i] - 1, 1)
            ends[i] = (np.maximum(found[i] - step, 0), np.minimum(found[i] + step, top))
        points = fine
    return found


# ------------------------------------------------------------------------------------------------------------ curves


@dataclass(frozen=True)
class Curve:
    """One model's errors on growing shares of the images, every seed at every size, and what is fitted to them."""

    label: str
    n: Array  # (k,), growing
    errors: Array  # (S, k), above 0
    seeds: tuple[object, ...]  # what pairs this curve's rows with another's
    chance: float = math.nan  # the error of guessing, if known

    @cached_property
    def logs(self) -> Array:
        return np.log(self.errors)

    @cached_property
    def mean_logs(self) -> Array:
        """The curve that is fitted: geometric means over seeds, (k,)."""
        return self.logs.mean(0)

    @cached_property
    def weights(self) -> Array:
        """1 / variance of log e over seeds, (k,), mean 1.

        Few seeds tell a variance badly, and weights that follow its noise make intervals too narrow (three seeds held
        the exponent in 91.6 % of studies, with this in 93.7 %): so each variance is drawn towards the mean of all sizes,
        which counts as much as 16 degrees of freedom (the moderated variance of Smyth 2004).
        """
        own, degrees = self.logs.var(0, ddof=1), len(self.seeds) - 1
        if not own.any():
            return np.ones(len(self.n))
        weights = 1 / (PRIOR * own.mean() + degrees * own)
        return weights / weights.mean()

    @cached_property
    def aicc(self) -> dict[str, float]:
        """Akaike's criterion, corrected for small samples (Hurvich and Tsai 1989), of each form that is tried.

        Over all runs; the variance counts as a parameter. A form needs one size more than it has parameters. m4 is
        tried where the smallest n is near chance and no run is at chance or worse.
        """
        tried = [form for form, count in PARAMETERS.items() if len(self.n) > count]
        if not (np.max(self.errors) < self.chance and np.mean(self.errors[:, 0]) > NEAR_CHANCE * self.chance):
            tried = [form for form in tried if form != "m4"]
        runs, criteria = self.errors.size, {}
        for form in tried:
            parameters = PARAMETERS[form] + 1
            spare = runs - parameters - 1
            if spare > 0:
                squares = max(self._squares(self._refit(self.mean_logs[None], form)), 1e-300)
                correction = 2 * parameters * (parameters + 1) / spare
                criteria[form] = runs * math.log(squares / runs) + 2 * parameters + correction
        return criteria or {"pow2": math.nan}

    @cached_property
    def form(self) -> str:
        return min(self.aicc, key=lambda form: self.aicc[form])

    @cached_property
    def fitted(self) -> Fits:
        """The curve itself, R = 1."""
        return self._refit(self.mean_logs[None])

    @cached_property
    def exponent(self) -> Interval:
        return self._jackknife(lambda fits: fits.c)

    @cached_property
    def offset(self) -> Interval | None:
        """e_inf; None for pow2, which has none."""
        return None if self.form == "pow2" else self._jackknife(lambda fits: fits.e_inf)

    @cached_property
    def r2(self) -> float:
        """Share of the weighted variance of log e, over all runs, that the fit explains."""
        mean = (self.weights * self.logs).mean()
        total = (self.weights * (self.logs - mean) ** 2).sum()
        return 1 - self._squares(self.fitted) / total if total > 0 else math.nan

    @cached_property
    def held_back(self) -> float:
        """Relative error of the fit without the largest n, at the largest n."""
        fits = fit_curves(self.form, self.n[:-1], self.mean_logs[None, :-1], self.weights[:-1], self.chance)
        return abs(math.expm1(fits.logs(self.n[-1:]).item() - self.mean_logs[-1]))

    @cached_property
    def draws(self) -> NDArray[np.int64]:
        """Bootstrap over seeds: which rows each draw takes, (R, S). The same for all curves of S seeds, so that pairs stay."""
        seeds = len(self.seeds)
        return np.random.default_rng(0).integers(0, seeds, size=(DRAWS, seeds))

    @cached_property
    def drawn_logs(self) -> Array:
        """Mean logs of each draw, (R, k)."""
        return self.logs[self.draws].mean(1)

    @cached_property
    def drawn_fits(self) -> Fits:
        return self._refit(self.drawn_logs)

    def predict(self, n: float) -> float:
        """The fitted error at n images, which must not be further out than the guard allows."""
        if not n <= GUARD * self.n[-1]:
            raise UserError(
                f"n={n:,.0f}: a fit up to {self.n[-1]:,.0f} images says nothing beyond {GUARD:g} times as many"
            )
        return math.exp(self.fitted.logs(np.array([float(n)])).item())

    def only(self, seeds: Sequence[object]) -> Curve:
        """The same curve and form with these seeds."""
        if tuple(seeds) == self.seeds:
            return self
        rows = [self.seeds.index(seed) for seed in seeds]
        made = replace(self, errors=self.errors[rows], seeds=tuple(seeds))
        made.__dict__["form"] = self.form
        return made

    def _refit(self, logs: Array, form: str | None = None) -> Fits:
        return fit_curves(form or self.form, self.n, logs, self.weights, self.chance)

    def _squares(self, fits: Fits) -> float:
        return float((self.weights * (self.logs - fits.logs(self.n)) ** 2).sum())

    def _jackknife(self, of: Callable[[Fits], Array], level: float = 0.95) -> Interval:
        """The fit to all seeds, with a t interval from the fits that leave out one seed each (Tukey 1958).

        For pow2 these are, to the digit, mean and t interval of one fit per seed. For forms with an offset they are
        better: a seed's own fit often ends at e_inf = 0, and at 10 seeds the intervals of such fits held the exponent
        in 59 % of simulated studies, the jackknife's in 95 %. Bootstrap percentiles do so in 73 % at 3 seeds.
        """
        seeds = len(self.seeds)
        left_out = (self.logs.sum(0) - self.logs) / (seeds - 1)  # (S, k)
        estimates, whole = of(self._refit(left_out)), of(self.fitted).item()
        spread = float((seeds - 1) * np.std(estimates, ddof=1))  # of the pseudo-values
        if not spread > 1e-9 * abs(whole):
            return Interval(whole, math.nan, math.nan, seeds, 0.0)
        half = t_quantile((1 + level) / 2, seeds - 1) * spread / math.sqrt(seeds)
        return Interval(whole, whole - half, whole + half, seeds, spread)
