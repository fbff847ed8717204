"""One model's learning curve over seeds: its fit, how sure the fit is, and what it predicts at other sizes.

Shapes: S seeds, k sizes, R refits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vitbench.errors import UserError, did_you_mean
from vitbench.numbers.forms import PARAMETERS, Array, Fits, fit_curves
from vitbench.numbers.intervals import Interval, jackknife_spread, mean_interval, means_without_each, t_quantile

GUARD = 4.0  # times the largest n, beyond which no fit is extrapolated
UNRELIABLE = 0.15  # a fit whose held-back check errs by a larger share than this is called unreliable
NEAR_CHANCE = 0.75  # a curve begins near chance where its first error is above this share of chance's
AS_GOOD = 2.0  # forms whose AICc differ by less than this are about as well supported (Burnham and Anderson 2004)
PRIOR = 16  # the degrees of freedom for which the mean variance of all sizes counts
DRAWS = 1000  # in a bootstrap over seeds
LAST_BITS = 1e-9  # estimates that differ by this share are equal: a fit multiplies the rounding of its errors
FEW_SEEDS = 10  # with fewer, a bootstrap over seeds is approximate


@dataclass(frozen=True)
class Curve:
    """One model's errors along an axis, each seed at each size, and what is fitted to them."""

    label: str
    n: Array  # (k,), growing
    errors: Array  # (S, k), not below 0
    seeds: tuple[object, ...]  # a seed for each row, by which rows are paired with another curve's
    chance: float = math.nan  # the error of guessing, if it is known
    form: str = "pow2"  # of the fit; `choose_form` finds one for all curves of a report
    least: float = math.nan  # what an error of 0 counts as where logs are taken; NaN: half of the smallest above 0

    @cached_property
    def logs(self) -> Array:
        if self.errors.all():
            return np.log(self.errors)
        least = self.errors[self.errors > 0].min(initial=1.0) / 2 if math.isnan(self.least) else self.least
        return np.log(np.where(self.errors > 0, self.errors, least))

    @property
    def is_perfect(self) -> NDArray[np.bool_]:
        """At which sizes half of the runs or more err in nothing, so that no fit can rest on them: (k,)."""
        return (self.errors == 0).mean(0) >= 0.5

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
        if not variances.max(initial=0.0) > LAST_BITS**2:
            return np.ones(len(self.n))
        weights = 1 / (PRIOR * variances.mean() + degrees * variances)
        return weights / weights.mean()

    @cached_property
    def aicc(self) -> dict[str, float]:
        """Akaike's criterion over all runs, corrected for small samples (Hurvich and Tsai 1989), by form.

        The forms are those that the curve admits. The variance counts as a parameter.
        """
        runs, criteria = self.errors.size, {}
        for form in filter(self.admits, PARAMETERS):
            parameters = PARAMETERS[form] + 1
            spare_runs = runs - parameters - 1
            if spare_runs > 0:
                squares = max(self._squares(self._refit(self.mean_logs[None], form)), 1e-300)
                correction = 2 * parameters * (parameters + 1) / spare_runs
                criteria[form] = runs * math.log(squares / runs) + 2 * parameters + correction
        return criteria

    def admits(self, form: str) -> bool:
        """Whether a form can be fitted: it takes more sizes than it has parameters, and m4 errors below chance."""
        return len(self.n) > PARAMETERS[form] and (form != "m4" or bool(np.max(self.errors) < self.chance))

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
        return 1 - self._squares(self.fitted) / total if total > LAST_BITS**2 else math.nan

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

    def error_at(self, n: float) -> Interval:
        """The fitted error at n images, with a jackknife interval over seeds; UserError where n is beyond the guard."""
        self.predict(n)
        log_error = self._jackknife(lambda fits: fits.logs(np.array([float(n)]))[:, 0])
        mean, low, high = (math.exp(end) for end in (log_error.mean, log_error.low, log_error.high))
        return Interval(mean, low, high, log_error.n, log_error.sd)

    @property
    def begins_near_chance(self) -> bool:
        return bool(np.mean(self.errors[:, 0]) > NEAR_CHANCE * self.chance)

    def only(self, seeds: Sequence[object]) -> Curve:
        """Returns the curve of these seeds alone."""
        if tuple(seeds) == self.seeds:
            return self
        rows = [self.seeds.index(seed) for seed in seeds]
        return replace(self, errors=self.errors[rows], seeds=tuple(seeds))

    def at(self, sizes: Sequence[float]) -> Curve:
        """Returns the curve of these sizes alone."""
        kept = np.isin(self.n, sizes)
        return self if kept.all() else replace(self, n=self.n[kept], errors=self.errors[:, kept])

    def log_errors_at(self, n: Array, logs: Array | None = None) -> Array:
        """The log errors of each row of `logs` (R, k), or of each seed, at n (G,): (R, G).

        Between two sizes log e is interpolated linearly over log n; a size of the curve gives its own errors. NaN
        outside the curve's sizes.
        """
        logs = self.logs if logs is None else logs
        if not len(self.n):
            return np.full((len(logs), len(n)), np.nan)
        x, at = np.log(self.n), np.log(n)
        return np.stack([np.interp(at, x, row, left=np.nan, right=np.nan) for row in logs])

    def errors_at(self, n: Array) -> Array:
        """The errors of each seed at n (G,): (S, G). At a size of the curve they are its own to the last bit."""
        errors = np.exp(self.log_errors_at(n))
        own, place = np.isin(n, self.n), np.searchsorted(self.n, n)
        errors[:, own] = self.errors[:, place[own]]
        return errors

    @cached_property
    def rise(self) -> tuple[int, int] | None:
        """The two sizes, as indices, between which the error surely rises most though the images grow; None without.

        Each rise of a log error is tested by Student's t over seeds at 0.025, divided by the number of pairs of sizes.
        """
        pairs = [(i, j) for j in range(len(self.n)) for i in range(j)]
        sure: dict[tuple[int, int], float] = {}
        for i, j in pairs:
            rises = self.logs[:, j] - self.logs[:, i]
            interval = mean_interval(rises.tolist(), 1 - 0.05 / len(pairs), max(1.0, float(np.abs(self.logs).max())))
            if (interval.mean if interval.why == "equal values" else interval.low) > 0:
                sure[i, j] = interval.mean
        return max(sure, key=lambda pair: sure[pair]) if sure else None

    def needed_for(self, error: float) -> Interval:
        """The n at which the fit has fallen to `error`, with a jackknife interval over seeds of log n.

        The mean is inf where the fit never falls so low, and 0 where it is as low at any n. The interval is NaN where
        either depends on the seed.
        """
        log_n_of_all = self._log_n_for(self.fitted, error).item()
        if math.isinf(log_n_of_all):
            return Interval(math.exp(log_n_of_all), math.nan, math.nan, len(self.seeds), math.nan)
        with np.errstate(invalid="ignore"):
            log_n = self._jackknife(lambda fits: self._log_n_for(fits, error))
        mean, low, high = (math.exp(min(end, 700.0)) for end in (log_n.mean, log_n.low, log_n.high))
        return Interval(mean, low, high, log_n.n, log_n.sd)

    def _log_n_for(self, fits: Fits, error: float) -> Array:
        """Inverts the form: log n at which each curve has this error, (R,).

        It is inf where a curve never falls so low, and -inf where one that does not fall begins so low, or where the
        error is that of guessing.
        """
        if fits.form == "m4" and error >= fits.chance:
            return np.full(len(fits.c), -np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            beside = fits.alpha * np.log(fits.chance - error) if fits.form == "m4" else 0.0
            log_n = (np.log(error - fits.e_inf) - beside - fits.log_b) / fits.c
        never = np.where(fits.logs(self.n[:1])[:, 0] <= math.log(error), -np.inf, np.inf)
        return np.where((error > fits.e_inf) & (fits.c < 0), log_n, never)

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
        estimates, estimate = parameter(self._refit(means_without_each(self.logs))), parameter(self.fitted).item()
        spread = jackknife_spread(estimates)
        if not LAST_BITS * max(1.0, abs(estimate)) < spread < math.inf:
            return Interval(estimate, math.nan, math.nan, seeds, 0.0)
        half = t_quantile((1 + level) / 2, seeds - 1) * spread / math.sqrt(seeds)
        return Interval(estimate, estimate - half, estimate + half, seeds, spread)


# -------------------------------------------------------------------------------------------------- the form of a fit


@dataclass(frozen=True)
class FormChoice:
    """The form in which all curves of a report are fitted."""

    form: str
    aicc: dict[str, float]  # summed over the curves, by form, of the forms that all of them admit

    @property
    def as_good(self) -> list[str]:
        """The other forms whose AICc is within AS_GOOD of the chosen one's, or below it."""
        best = self.aicc.get(self.form, math.nan)
        return [form for form, aicc in self.aicc.items() if form != self.form and aicc - best < AS_GOOD]


def choose_form(curves: Sequence[Curve], asked: str | None = None) -> FormChoice:
    """Chooses the form of least AICc, summed over the curves, among those that all curves admit; or the one asked for.

    Curves of different forms would meet where their forms make them meet. m4 is tried where one of the curves begins
    near chance. Raises UserError where a curve does not admit the form that was asked for.
    """
    if asked is not None and asked not in PARAMETERS:
        raise UserError(f"form={asked}: {did_you_mean(asked, PARAMETERS)}")
    criteria = [curve.aicc for curve in curves if curve.aicc]
    shared = [form for form in PARAMETERS if criteria and all(form in aicc for aicc in criteria)]
    if not any(curve.begins_near_chance for curve in curves) and asked != "m4":
        shared = [form for form in shared if form != "m4"]
    summed = {form: math.fsum(aicc[form] for aicc in criteria) for form in shared}
    if asked is None:
        return FormChoice(min(summed, key=lambda form: summed[form]) if summed else "pow2", summed)
    for curve in curves:
        if not curve.admits(asked):
            why = (
                f"{len(curve.n)} sizes, and it takes {PARAMETERS[asked] + 1}"
                if len(curve.n) <= PARAMETERS[asked]
                else "an error that is not below chance, or a chance that is not known"
            )
            raise UserError(f"form={asked}: {curve.label} has {why}")
    return FormChoice(asked, summed)
