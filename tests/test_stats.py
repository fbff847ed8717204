from __future__ import annotations

import math

import pytest
from scipy import stats as scipy_stats

from vitbench.stats import mean_interval, t_quantile


def test_the_interval_is_scipys() -> None:
    values = [0.31, 0.35, 0.36, 0.30, 0.33]
    ours = mean_interval(values)
    low, high = scipy_stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=scipy_stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx((low, high))
    assert ours.sd == pytest.approx(scipy_stats.tstd(values)) and ours.n == 5


def test_t_at_three_seeds_is_the_tables() -> None:
    assert t_quantile(0.975, 2) == pytest.approx(4.303, abs=5e-4)


@pytest.mark.parametrize(("values", "why"), [([], "no value"), ([0.5], "one run"), ([0.1] * 3, "equal values")])
def test_no_interval_is_claimed_where_there_is_none(values: list[float], why: str) -> None:
    interval = mean_interval(values)
    assert math.isnan(interval.low) and math.isnan(interval.high) and interval.why == why
    assert interval.n == len(values) and (not values or interval.mean == values[0])


def test_missing_values_do_not_count() -> None:
    assert mean_interval([0.2, None, math.nan, 0.4]) == mean_interval([0.2, 0.4])


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    import numpy as np

    draws = np.random.default_rng(0).normal(size=(2000, 3))
    covered = np.mean([i.low <= 0 <= i.high for i in map(mean_interval, draws.tolist())])
    assert covered == pytest.approx(0.95, abs=0.015)
