from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from scipy import stats as scipy_stats

from vitbench.numbers.intervals import (
    Interval,
    count_discordant,
    holm,
    is_at_chance,
    least_p,
    mcnemar_p,
    mean_interval,
    paired,
    sign_flip,
    smallest_difference,
    t_quantile,
)


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


# ------------------------------------------------------------------------------------------------------- comparisons


def test_pairs_are_common_keys_and_their_interval_is_that_of_the_differences() -> None:
    a = {("s", 0): 0.30, ("s", 1): 0.34, ("s", 2): 0.33, ("s", 7): 0.9}
    b = {("s", 2): 0.30, ("s", 0): 0.28, ("s", 1): 0.31, ("s", 8): 0.1}
    found = paired(a, b)
    assert found.interval == mean_interval([0.30 - 0.28, 0.34 - 0.31, 0.33 - 0.30])
    assert found.p == 2 / 2**3


def test_the_smallest_difference_is_wider_than_the_interval_by_the_quantile_of_its_power() -> None:
    differences = mean_interval([0.02, 0.05, 0.03])
    assert smallest_difference(differences) == pytest.approx(differences.half * (4.30265 + 1.06066) / 4.30265, rel=1e-5)


@pytest.mark.parametrize("values", [[], [0.5], [0.1] * 3])
def test_without_an_interval_there_is_no_smallest_difference(values: list[float]) -> None:
    assert math.isnan(smallest_difference(mean_interval(values)))


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_smallest_difference_is_shown_in_four_of_five_studies(n: int) -> None:
    import numpy as np

    true_difference = smallest_difference(Interval(0.0, -1.0, 1.0, n, 1.0))
    draws = np.random.default_rng(0).normal(true_difference, 1.0, size=(20_000, n))
    shown = np.mean([i.low > 0 or i.high < 0 for i in map(mean_interval, draws.tolist())])
    print(f"n={n}: a true difference of {true_difference:.2f} deviations is shown in {shown:.3f} of 20,000 studies")
    assert 0.75 < shown < 0.82


def test_the_sign_flip_test_is_scipys_exact_permutation_test() -> None:
    for values in (
        [0.3, -0.1, 0.2, 0.4],
        [0.1, 0.2, 0.3, 0.4, 0.5, -0.6],
        [1.0, -1.0, 0.5],
        [0.2, 0.2, 0.2, -0.1, 0.4],
    ):
        known = scipy_stats.permutation_test(
            (values,), lambda x: sum(x), permutation_type="samples", n_resamples=2 ** len(values), vectorized=False
        )
        assert sign_flip(values) == pytest.approx(known.pvalue)


def test_fishers_darwin_plants() -> None:
    """Fisher 1935, "The design of experiments", section 21, has p = 5.267 % for 15 pairs of maize plants."""
    differences = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sign_flip(differences) == pytest.approx(1726 / 2**15)


@pytest.mark.parametrize(("n", "p"), [(2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_the_least_p_is_what_differences_of_one_sign_get(n: int, p: float) -> None:
    assert least_p(n) == p and sign_flip([0.1 + i / 100 for i in range(n)]) == p


def test_many_pairs_are_drawn_and_agree_with_the_t_test() -> None:
    import numpy as np

    values = np.random.default_rng(0).normal(0.3, 1, 40)
    assert sign_flip(values.tolist()) == pytest.approx(scipy_stats.ttest_1samp(values, 0).pvalue, abs=0.01)
    assert sign_flip([0.1] * 30) == least_p(30) == 2**-16
    assert math.isnan(sign_flip([])) and sign_flip([0.0, 0.0]) == 1


def test_holm_corrects_step_by_step() -> None:
    """Takes the example of Wright 1992 ("Adjusted p-values for simultaneous inference"), then ties, caps and NaN."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1, 1] and holm([]) == []
    with_gap = holm([0.01, math.nan, 0.02])
    assert with_gap[0] == 0.02 and math.isnan(with_gap[1]) and with_gap[2] == 0.02


def test_holm_rejects_what_the_sequential_procedure_rejects() -> None:
    """The procedure rejects from the smallest p on, as long as p <= alpha / (number left)."""
    for ps in itertools.product([0.001, 0.012, 0.02, 0.04, 0.2], repeat=4):
        rejected = set()
        for left, i in zip((4, 3, 2, 1), sorted(range(4), key=lambda i: ps[i]), strict=True):
            if ps[i] > 0.05 / left:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(ps)) if p <= 0.05} == rejected


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (6, 16), (16, 6), (5, 5), (59, 6), (121, 59)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    known = scipy_stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar_p(only_a, only_b) == pytest.approx(known)


def test_images_that_one_of_two_runs_gets_right_are_counted(tmp_path: Path) -> None:
    import numpy as np

    labels = np.array([0, 1, 2, 0, 1, 2])
    for name, predictions in {"a": [0, 1, 2, 1, 1, 0], "b": [0, 2, 1, 0, 0, 0]}.items():
        np.save(tmp_path / f"{name}.npy", np.array(predictions))
    a, b = (np.load(tmp_path / f"{name}.npy", allow_pickle=False) for name in "ab")
    assert count_discordant(a, b, labels) == (3, 1)
    with pytest.raises(ValueError, match="6 and 5 predictions of 6 images"):
        count_discordant(a, b[:5], labels)


# -------------------------------------------------------------------------------------------------------- one network


@pytest.mark.parametrize(("images", "classes"), [(1000, 10), (200, 2), (10_000, 100)])
def test_chance_is_inside_the_exact_binomial_interval(images: int, classes: int) -> None:
    for right in range(0, 2 * images // classes, max(1, images // classes // 50)):
        low = scipy_stats.binomtest(right, images).proportion_ci(0.95, "exact").low
        assert is_at_chance(right, images, classes) == (low <= 1 / classes)


def test_one_class_has_no_chance() -> None:
    assert not is_at_chance(100, 100, 1) and is_at_chance(0, 100, 2)


@pytest.mark.parametrize("images", [7, 90, 128, 10_000])
@pytest.mark.parametrize("lead", [0, 1, 3])
def test_differences_that_are_equal_but_for_rounding_have_no_interval(images: int, lead: int) -> None:
    of_b = [right / images for right in (1, 2, 4, 3)]
    of_a = [(right + lead) / images for right in (1, 2, 4, 3)]
    differences = paired(dict(enumerate(of_a)), dict(enumerate(of_b)))
    assert differences.interval.why == "equal values" and math.isnan(differences.interval.low)
    assert (differences.interval.mean == 0) is (lead == 0)
    assert differences.p == (0.125 if lead else 1.0)


def test_equal_values_that_were_computed_in_two_ways_do_not_differ() -> None:
    of_a = {seed: 0.1 + 0.2 + seed / 10 for seed in range(6)}
    of_b = {seed: 0.3 + seed / 10 for seed in range(6)}
    assert any(of_a[seed] != of_b[seed] for seed in of_a), "their last bits do"
    differences = paired(of_a, of_b)
    assert differences.interval.mean == 0 and differences.interval.why == "equal values" and differences.p == 1


def test_small_differences_that_are_none_of_rounding_keep_their_interval() -> None:
    differences = paired({0: 0.5 + 1e-6, 1: 0.5 + 2e-6, 2: 0.5 + 3e-6}, dict.fromkeys(range(3), 0.5))
    assert differences.interval.mean == pytest.approx(2e-6) and differences.interval.low > -1e-6
