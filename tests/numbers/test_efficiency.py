"""How many images one model needs to match another agrees with which of them errs less."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vitbench.numbers.curves import Curve
from vitbench.numbers.efficiency import label_efficiency
from vitbench.numbers.pair import Pair

N = np.array([100.0, 1000.0, 10_000.0])
SEEDS = (0, 1, 2)


def pair(leader: object, follower: object) -> Pair:
    a, b = (np.broadcast_to(np.asarray(errors, float), (3, len(N))).copy() for errors in (leader, follower))
    return Pair.of(Curve("leader", N, a, SEEDS), Curve("follower", N, b, SEEDS))


def test_two_equal_curves_have_the_ratio_1_also_where_they_are_flat() -> None:
    for errors in ([0.5, 0.3, 0.1], [0.3, 0.3, 0.3], [0.5, 0.3, 0.3]):
        ratios = label_efficiency(pair(errors, np.array(errors) * (1 + 1e-15)))
        assert [ratio.value for ratio in ratios] == pytest.approx([1.0] * 3)
        assert all(math.isnan(ratio.low) and math.isnan(ratio.high) for ratio in ratios), "no draw differs"


def test_a_model_that_errs_less_does_not_need_more_images() -> None:
    """At 100 images the follower errs by 5 points less, and it rises after that: its regression is flat at 30 %."""
    seeds, leader, follower = (
        np.array([[0.0], [0.01], [-0.01]]),
        np.array([0.25, 0.24, 0.23]),
        np.array([0.20, 0.34, 0.30]),
    )
    first, *_ = label_efficiency(pair(leader + seeds, follower + seeds))
    assert math.isnan(first.value) and math.isnan(first.low) and math.isnan(first.high)


@pytest.mark.parametrize("seed", range(20))
def test_the_ratio_is_above_1_only_where_the_follower_errs_more(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (0.5 * np.exp(random.normal(0, 0.4, (1, 3)) + random.normal(0, 0.05, (3, 3))) for _ in range(2))
    for ratio, behind in zip(label_efficiency(pair(a, b)), (b - a).mean(0), strict=True):
        assert math.isnan(ratio.value) or (ratio.value - 1) * behind >= 0


def test_a_ratio_that_no_draw_of_seeds_changes_has_no_interval() -> None:
    factors = np.array([[0.9], [1.0], [1.1]])  # one of each seed, the same for both
    (first, *_) = label_efficiency(pair(factors * [0.4, 0.2, 0.1], factors * [0.8, 0.4, 0.2]))
    assert first.value == pytest.approx(10) and math.isnan(first.low) and math.isnan(first.high)
