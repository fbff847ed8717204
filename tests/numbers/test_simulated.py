"""How often verdicts are wrong, in simulated tables whose truth is known. `pytest -m slow -rP` prints the figures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from tests.numbers.test_crossover import together
from vitbench.numbers.crossover import Crossover, find_crossover
from vitbench.numbers.curves import Curve
from vitbench.numbers.forms import Array
from vitbench.numbers.pair import pool

pytestmark = pytest.mark.slow

TABLES = 1000
CHANCE = 0.9
# the deviations of log e: of each run, of a seed at all its sizes, and of a seed's slope over the sizes
NOISES = {"independent": (0.03, 0.0, 0.0), "shared by a seed": (0.03, 0.05, 0.0), "tilted by a seed": (0.03, 0.0, 0.03)}


def draw(means: Array, n: Array, seeds: int, noise: tuple[float, float, float], rng: np.random.Generator) -> Curve:
    run, seed, tilt = noise
    x = (np.log(n) - np.log(n).mean()) / np.log(n).std()
    logs = rng.normal(0, run, (seeds, len(n))) + rng.normal(0, 1, (seeds, 2)) @ np.stack([seed + 0 * x, tilt * x])
    return Curve(f"{rng.random()}", n, np.minimum(means * np.exp(logs), 0.999), tuple(range(seeds)), CHANCE)


def verdicts(
    a: Array, b: Array, n: Array, seeds: int, noise: tuple[float, float, float], tables: int = TABLES
) -> list[Crossover]:
    rng = np.random.default_rng(0)
    return [find_crossover(together(*(draw(means, n, seeds, noise, rng) for means in (a, b)))) for _ in range(tables)]


def share(found: Sequence[Crossover], *words: str) -> float:
    return sum(one.verdict in words for one in found) / len(found)


def most(rate: float, tables: int = TABLES) -> float:
    """The rate that so many tables exceed in one of forty cases where it is the true one."""
    return rate + 2 * math.sqrt(rate * (1 - rate) / tables)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("seeds", "sizes"), [(3, 3), (5, 3), (3, 10)])
def test_equal_models_are_seldom_told_to_cross_or_to_lead(seeds: int, sizes: int, noise: str) -> None:
    """At most 2.5 % of tables of two equal models have an observed crossover, and at most 5 % a leader."""
    n = np.geomspace(450, 45_000, sizes)
    means = 0.1 + 0.5 * (n / 450) ** -0.5
    tables = TABLES if sizes == 3 else 300  # ten sizes take five times as long
    found = verdicts(means, means, n, seeds, NOISES[noise], tables)
    observed, led = share(found, "observed"), share(found, "none", "extrapolated", "beyond guard")
    print(f"{seeds} seeds, {sizes} sizes, noise {noise}: observed {observed:.1%}, a leader {led:.1%}")
    assert observed <= most(0.025, tables) and led <= most(0.05, tables)


@pytest.mark.parametrize("seeds", [3, 5])
def test_models_at_chance_are_told_so(seeds: int) -> None:
    n = np.geomspace(450, 45_000, 5)
    means = np.full(5, 0.998 * CHANCE)
    found = verdicts(means, means, n, seeds, (0.003, 0.0, 0.0))
    print(f"{seeds} seeds at chance: {Counter((one.verdict, one.why) for one in found)}")
    assert share(found, "observed") <= most(0.025)
    assert share(found, "none", "extrapolated", "beyond guard") <= most(0.05)


@pytest.mark.parametrize(("crossing", "least"), [(4000, 0.99), (13_500, 0.9)])
def test_curves_that_cross_are_seen_to(crossing: float, least: float) -> None:
    n = np.array([450.0, 1350, 4500, 13_500, 45_000])
    found = verdicts(0.3 * (n / crossing) ** -0.35, 0.3 * (n / crossing) ** -0.14, n, 3, NOISES["independent"], 200)
    print(f"3 seeds, crossing at {crossing:,}: observed {share(found, 'observed'):.1%}")
    assert share(found, "observed") >= least


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("noise", ["independent", "tilted by a seed"])
def test_the_interval_of_an_observed_crossing_holds_it(seeds: int, noise: str) -> None:
    n, crossing, tables = np.array([450.0, 1350, 4500, 13_500, 45_000]), 4000, 300
    found = verdicts(0.3 * (n / crossing) ** -0.35, 0.3 * (n / crossing) ** -0.14, n, seeds, NOISES[noise], tables)
    observed = [one for one in found if one.verdict == "observed"]
    covered = np.mean([one.low <= crossing <= one.high for one in observed])
    print(f"{seeds} seeds, noise {noise}: the interval of the crossing holds it in {covered:.1%} of {len(observed)}")
    assert len(observed) > 0.9 * tables and 0.90 <= covered <= 0.98


def test_curves_that_approach_one_bayes_error_are_seldom_extrapolated_to_cross() -> None:
    """They never cross. The fits cannot know it, and say in most tables that they never meet, or may or may not."""
    n = np.array([450.0, 1350, 4500, 13_500, 45_000])
    found = verdicts(0.2 + 4 * n**-0.5, 0.2 + 2 * n**-0.5, n, 3, (0.02, 0.0, 0.0), 60)
    counts = Counter((one.verdict, one.why) for one in found)
    print(f"one Bayes error: {counts}")
    assert share(found, "observed") == 0 and share(found, "extrapolated") <= 0.1


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("noise", NOISES)
def test_the_pooled_interval_covers_the_difference(seeds: int, noise: str) -> None:
    n = np.geomspace(450, 45_000, 5)
    a, b = (factor * (0.1 + 0.5 * (n / 450) ** -0.5) for factor in (1.1, 1.0))
    run, *of_seed = NOISES[noise]
    inflated = math.exp((run**2 + sum(sd**2 for sd in of_seed)) / 2)  # the mean of a lognormal, about
    rng = np.random.default_rng(1)
    pairs = [together(*(draw(means, n, seeds, NOISES[noise], rng) for means in (a, b))) for _ in range(TABLES)]
    intervals = [pool(pair).interval for pair in pairs]
    covered = np.mean([each.low <= inflated * (a - b).mean() <= each.high for each in intervals])
    print(f"{seeds} seeds, noise {noise}: the pooled interval covers in {covered:.1%}")
    assert 0.93 <= covered <= 0.97
