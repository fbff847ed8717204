from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.numbers.test_curves import N, curve, fitted, power
from vitbench.numbers.crossover import Crossover, find_crossover
from vitbench.numbers.curves import Curve
from vitbench.numbers.efficiency import label_efficiency
from vitbench.numbers.forms import Array, Fits
from vitbench.numbers.pair import Pair


def together(a: Curve, b: Curve) -> Pair:
    """A pair in the one form that both choose."""
    return Pair.of(fitted(a, b), fitted(b, a))


# -------------------------------------------------------------------------------------------------------- crossovers


def verdict(a: Callable[[Array], Array], b: Callable[[Array], Array], seeds: int = 5, noise: float = 0.01) -> Crossover:
    return find_crossover(together(curve(a, seeds, noise, 1), curve(b, seeds, noise, 2)))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_parallel_curves_do_not_cross(seeds: int) -> None:
    found = [
        find_crossover(Pair.of(curve(power(3, -0.3), seeds, 0.01, rng), curve(power(2, -0.3), seeds, 0.01, 100 + rng)))
        for rng in range(40)
    ]
    parallel = sum((one.verdict, one.why) == ("none", "parallel") for one in found)
    assert parallel >= 34  # a 95 % interval is wrong once in 20 times, in half of which the curves grow apart
    assert {one.verdict for one in found} <= {"none", "beyond guard"}


@pytest.mark.parametrize("n", [2000, 5000, 16_000])
@pytest.mark.parametrize("seeds", [3, 10])
def test_curves_that_cross_inside_are_observed_to(n: float, seeds: int) -> None:
    found = verdict(power(3, -0.35), power(3 * n**-0.2, -0.15), seeds)
    assert (found.verdict, found.first_leader) == ("observed", "curve 2")
    assert found.n == pytest.approx(n, rel=0.1) and found.low <= found.n <= found.high and found.unmet_share == 0


def test_a_crossing_that_is_the_same_for_every_seed_but_for_rounding_has_no_interval() -> None:
    crossing = (power(3, -0.35), power(3 * 5000**-0.2, -0.15))
    found = find_crossover(together(*(curve(error, rng=1) for error in crossing)))  # the same chance in both
    assert found.verdict == "observed" and found.n == pytest.approx(5000, rel=0.1)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_a_late_crossing_lies_between_its_points_whatever_the_fits_say() -> None:
    """One model improves at the last size only, as after a phase change: no power law fits that."""
    n = np.array([100.0, 300, 1000, 3000, 10_000])
    late = np.array([0.80, 0.72, 0.60, 0.50, 0.15])
    early = np.array([0.77, 0.64, 0.50, 0.40, 0.31])
    rng = np.random.default_rng(0)
    a, b = (
        Curve(label, n, errors * np.exp(rng.normal(0, 0.01, (3, 5))), (0, 1, 2))
        for label, errors in (("late", late), ("early", early))
    )
    found = find_crossover(together(a, b))
    assert (found.verdict, found.first_leader) == ("observed", "early")
    assert 3000 < found.low <= found.n <= found.high < 10_000


def test_a_crossing_just_outside_is_extrapolated() -> None:
    found = verdict(power(3, -0.35), power(3 * 100_000**-0.15, -0.2))
    assert found.verdict == "extrapolated" and found.times == pytest.approx(2, rel=0.15)
    assert found.low < 100_000 < found.high and found.unmet_share < 0.1


def test_a_crossing_far_outside_is_beyond_guard_and_gets_no_number() -> None:
    found = verdict(power(3, -0.35), power(3 * 1e6**-0.1, -0.25), noise=0.003)
    assert found.verdict == "beyond guard" and math.isnan(found.n) and math.isnan(found.times)


def test_a_gap_that_shrinks_towards_other_offsets_is_no_crossover() -> None:
    found = verdict(power(5, -0.4, 0.16), power(2.2, -0.4, 0.12), noise=0.003)
    assert (found.verdict, found.why) == ("none", "never")


def test_the_last_bits_of_a_constant_ratio_are_no_trend() -> None:
    errors = np.stack([20 * N**-0.35 * (1 + seed / 100) for seed in range(3)])
    found = find_crossover(Pair.of(Curve("a", N, 1.5 * errors, (0, 1, 2)), Curve("b", N, errors, (0, 1, 2))))
    assert (found.verdict, found.why) == ("none", "parallel")


def test_a_gap_that_grows_is_no_crossover() -> None:
    found = verdict(power(3, -0.35), power(3, -0.2), noise=0.003)
    assert (found.verdict, found.why, found.first_leader) == ("none", "grows", "curve 1")


def from_chance(log_b: float, e_inf: float, c: float = -0.7) -> Callable[[Array], Array]:
    law = Fits("m4", np.array([log_b]), np.array([c]), np.array([e_inf]), np.array([0.8]), 0.9)
    return lambda n: np.exp(law.logs(n))[0]


def test_a_gap_that_opens_at_chance_and_then_shrinks_is_judged_from_its_widest() -> None:
    """Both models begin by guessing, so the gap grows at first; a trend over all sizes would say that it grows on."""
    n = np.array([200.0, 500, 2000, 8000, 20_000, 50_000])
    a, b = from_chance(7.2, 0.02, -0.91), from_chance(4.0, 0.05, -0.7)
    late, early = (curve(law, 5, 0.004, i, n, 0.9) for i, law in enumerate((a, b)))
    found = find_crossover(together(late, early))
    lead = np.log(a(n) / b(n))
    assert np.argmax(lead) == 2 and lead[-1] > 0.05  # the gap opens, shrinks, and is still there at the end
    assert found.verdict == "extrapolated" and found.first_leader == early.label


def test_equal_curves_have_no_order_to_change() -> None:
    found = find_crossover(Pair.of(curve(power(3, -0.3), 3, 0.05, 3), curve(power(3, -0.3), 3, 0.05, 4)))
    assert found.verdict == "undefined" and found.why == "equal"


def test_a_flip_that_the_seeds_do_not_settle_is_undefined() -> None:
    found = verdict(power(3, -0.31), power(3 * 30_000**-0.06, -0.25), seeds=3, noise=0.02)
    assert (found.verdict, found.why) == ("undefined", "fits")


def test_only_common_seeds_and_sizes_are_compared() -> None:
    a, b = curve(power(3, -0.3), 5, rng=1), curve(power(2, -0.3), 4, rng=2, n=N[1:])
    pair = Pair.of(a, Curve("b", b.n, b.errors, (1, 2, 3, 9)))
    assert pair.a.seeds == pair.b.seeds == (1, 2, 3) and pair.n.tolist() == N[1:].tolist()
    assert pair.differences == pytest.approx(a.errors[1:4, 1:] - b.errors[:3])
    alone = Pair.of(a, Curve("b", b.n, b.errors, (6, 7, 8, 9)))
    assert not alone.paired and find_crossover(alone).why == "few"


def test_pairing_removes_what_the_seeds_have_in_common() -> None:
    shift = np.random.default_rng(0).normal(0, 0.2, (5, 1))
    a, b = curve(power(3, -0.35), noise=0.01, rng=1), curve(power(3 * 5000**-0.2, -0.15), noise=0.01, rng=2)
    shifted = [Curve(one.label, one.n, one.errors * np.exp(shift), one.seeds) for one in (a, b)]
    found = find_crossover(together(*shifted))
    assert found.verdict == "observed" and found.high / found.low < 1.3


# -------------------------------------------------------------------------------------------------- label efficiency


def test_the_ratio_of_shifted_power_laws_is_known() -> None:
    """B's error at 3n images is A's at n, so B needs three times as many; log-log interpolation is exact here."""
    a, b = curve(power(3, -0.3), noise=0.0), curve(power(3 * 3**0.3, -0.3), noise=0.0)
    ratios = label_efficiency(Pair.of(a, b))
    assert [ratio.value for ratio in ratios[:3]] == pytest.approx([3.0] * 3)
    assert [(ratio.value, ratio.most) for ratio in ratios[3:]] == [(math.inf, 2.5), (math.inf, 1.0)]
    back = label_efficiency(Pair.of(b, a))
    assert back[0].value == -math.inf and back[0].least == 1.0
    assert [ratio.value for ratio in back[1:]] == pytest.approx([1 / 3] * 4)


def test_its_interval_holds_the_ratio_and_ends_in_a_bound_where_draws_do() -> None:
    a, b = curve(power(3, -0.3), 10, 0.02, 1), curve(power(3 * 2.45**0.3, -0.3), 10, 0.02, 2)
    ratios = label_efficiency(Pair.of(a, b))
    assert all(ratio.low <= 2.45 <= ratio.high for ratio in ratios[:4])
    assert ratios[3].high == math.inf  # 2.45 x 20,000 is close to the largest size, 50,000


def test_two_seeds_have_a_ratio_and_no_interval() -> None:
    a, b = curve(power(3, -0.3), 2, 0.02, 1), curve(power(3 * 2.45**0.3, -0.3), 2, 0.02, 2)
    ratio = label_efficiency(Pair.of(a, b))[1]
    assert ratio.value == pytest.approx(2.45, rel=0.5) and math.isnan(ratio.low) and math.isnan(ratio.high)


def test_an_error_that_rises_is_levelled_first() -> None:
    a = Curve("a", N, np.array([[0.6, 0.5, 0.35, 0.3, 0.2]] * 2), (0, 1))
    b = Curve("b", N, np.array([[0.6, 0.4, 0.5, 0.3, 0.2]] * 2), (0, 1))
    ratios = label_efficiency(Pair.of(a, b))
    level = math.sqrt(0.4 * 0.5)  # the sizes 2,000 and 8,000 share this level, which is reached at 2,000
    share = (math.log(0.6) - math.log(0.5)) / (math.log(0.6) - math.log(level))
    assert ratios[1].value == pytest.approx(500 * 4**share / 2000)
    assert [ratios[i].value for i in (0, 3, 4)] == pytest.approx([1, 1, 1])


def test_draws_take_whole_seeds_and_the_same_ones_of_both_curves() -> None:
    a, b = curve(power(3, -0.3), rng=1), curve(power(2, -0.3), rng=2)
    assert (a.draws == b.draws).all() and a.draws.shape == (1000, 5)
    assert a.drawn_logs[0] == pytest.approx(a.logs[a.draws[0]].mean(0))
