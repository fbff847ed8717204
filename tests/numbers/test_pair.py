from __future__ import annotations

import math

import numpy as np
import pytest

from tests.numbers.test_curves import N, curve, power
from vitbench.numbers.curves import Curve
from vitbench.numbers.intervals import holm, t_p
from vitbench.numbers.pair import Pair, pool


def test_the_pooled_test_is_students_over_the_means_of_each_seed() -> None:
    """Differences 0.08, 0.10 and 0.12 over all sizes: mean 0.10, t = 0.10 / (0.02 / sqrt(3)) = 8.66 with 2 degrees."""
    b = np.full((3, 5), 0.4) * np.array([1, 0.9, 0.8, 0.7, 0.6])
    a = b + np.array([[0.08], [0.10], [0.12]])
    pooled = pool(Pair.of(Curve("a", N, a, (0, 1, 2)), Curve("b", N, b, (0, 1, 2))))
    assert pooled.interval.mean == pytest.approx(0.10) and pooled.interval.sd == pytest.approx(0.02)
    assert pooled.p == pytest.approx(0.01307, rel=1e-3)  # 2 P(T > 8.660), as in tables of Student's t with 2 degrees
    assert pooled.sign_flip == 0.25 and not pooled.changes


def test_a_difference_that_changes_is_no_single_number() -> None:
    a, b = curve(power(3, -0.3), 3, 0.01, 1), curve(power(2, -0.3), 3, 0.01, 2)
    pooled = pool(Pair.of(a, b))
    per_decade = np.polyfit(np.log10(N), 3 * N**-0.3 - 2 * N**-0.3, 1)[0]
    assert pooled.changes and pooled.slope.mean == pytest.approx(per_decade, rel=0.05)


def test_p_of_a_mean_is_that_of_its_interval() -> None:
    """The 95 % interval holds 0 exactly where p is above 0.05."""
    from vitbench.numbers.intervals import mean_interval

    edge = mean_interval([1.0, 2.0, 3.0])
    shifted = mean_interval([value - edge.low for value in (1.0, 2.0, 3.0)])
    assert t_p(shifted) == pytest.approx(0.05) and math.isnan(t_p(mean_interval([1.0])))
    assert holm([t_p(shifted), math.nan, 0.001]) == pytest.approx([0.05, math.nan, 0.002], nan_ok=True)


def test_sizes_at_which_both_guess_are_left_out() -> None:
    """Only a is better than guessing at 2,000 images, both are from 8,000 on, and neither is at 500."""
    noise = np.array([[0.002], [-0.001], [-0.001]])
    a = np.array([0.900, 0.80, 0.6, 0.5, 0.4]) + noise
    b = np.array([0.901, 0.90, 0.7, 0.6, 0.5]) - noise
    pair = Pair.of(Curve("a", N, a, (0, 1, 2), 0.9), Curve("b", N, b, (0, 1, 2), 0.9))
    assert pair.at_chance.tolist() == [True, False, False, False, False]
    assert pair.n.tolist() == N[1:].tolist() and pair.differences.shape == (3, 4)


def test_models_without_a_size_in_common_are_compared_between_their_sizes() -> None:
    """Along multiply-adds a's sizes are 1.3 times b's; each power law is interpolated exactly."""
    a = Curve("a", 1.3 * N, 3 * (1.3 * N) ** -0.3 * np.ones((3, 1)), (0, 1, 2))
    b = Curve("b", N, 2 * N**-0.3 * np.ones((3, 1)), (0, 1, 2))
    pair = Pair.of(a, b, interpolated=True)
    assert pair.n[0] == 650 and pair.n[-1] == 50_000 and (np.diff(np.log(pair.n)) > 0).all()
    assert pair.ratios == pytest.approx(math.log(1.5) * np.ones((3, len(pair.n))))
    assert len(Pair.of(a, Curve("far", 1e6 * N, b.errors, (0, 1, 2)), interpolated=True).n) == 0


def test_differences_that_are_equal_but_for_rounding_have_no_interval() -> None:
    a = np.array([[0.80, 0.60, 0.40], [0.81, 0.61, 0.41], [0.82, 0.62, 0.42]])
    pair = Pair.of(Curve("a", N[:3], a, (0, 1, 2)), Curve("b", N[:3], a - 0.2, (0, 1, 2)))
    assert pool(pair).interval.why == "equal values" and math.isnan(pool(pair).p)
